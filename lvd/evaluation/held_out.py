"""Saved detectors on the held-out clips: how good is each category at each step?"""

import csv
from pathlib import Path

import numpy as np
import torch

from lvd.data.kinds import KINDS
from lvd.detectors.bank import SHARED, FolderBank, load_bank
from lvd.detectors.detector import detector_path
from lvd.errors import InputError
from lvd.evaluation.metrics import rates
from lvd.utils.files import atomic, need_file

EVALUATION = "evaluation.csv"
CLIPS_SCORED_TOGETHER = 256


class HeldOutRun:
    """Sized iterable over steps: scores the held-out clips of every category and normal ones.

    job: as of train_mae.py (source, save_dir, split, eval_sha256, categories, device).
    Iterating yields the step and collects `rows`.
    """

    def __init__(self, job, steps):
        self.job, self.rows, self.steps, source = job, [], steps, job["source"]
        self.bank = _bank(job, steps)
        self.bank.check(source.representation, job["eval_sha256"], source.made_by)
        for step in steps:
            for kind in KINDS:
                source.need_rows(kind, getattr(job["split"], kind), step)

    def __len__(self):
        return len(self.steps)

    def __iter__(self):
        for step in self.steps:
            self.rows += self._evaluate(step)
            yield step

    def save(self, path):
        with atomic(path) as partial, open(partial, "w", newline="") as f:
            table = csv.DictWriter(f, fieldnames=list(self.rows[0]))
            table.writeheader()
            table.writerows(sorted(self.rows, key=lambda row: (row["group"], row["step"])))
        return Path(path)

    def _evaluate(self, step):
        job, source = self.job, self.job["source"]
        unsafe, normal = {}, job["split"].normal
        for group in job["categories"]:
            members = set(source.group_rows(group, step))
            unsafe[group] = [row for row in job["split"].unsafe if row in members]
            if not unsafe[group]:
                raise InputError(
                    f"{source.group_place(group, step)}: none of its rows is held out, so group "
                    f"{group} cannot be evaluated; make an eval.pth with gen_eval_set.py from the "
                    "labels in use"
                )
        wanted = {"unsafe": sorted(set().union(*unsafe.values())), "normal": normal}
        scores = {
            kind: score_rows(self.bank, source, kind, rows, step) for kind, rows in wanted.items()
        }
        places = {
            group: [wanted["unsafe"].index(row) for row in rows] for group, rows in unsafe.items()
        }
        return [
            {
                "group": group,
                "step": step,
                "category": job["categories"][group],
                "unsafe_clips": len(unsafe[group]),
                "normal_clips": len(normal),
                **self._rates(group, step, places[group], scores),
            }
            for group in unsafe
        ]

    def _rates(self, group, step, places, scores):
        """rates of one category: its own unsafe clips, at `places`, and the normal ones."""
        column = self.bank.groups.index(group)
        found = torch.cat([scores["unsafe"][places, column], scores["normal"][:, column]]).numpy()
        labels = np.array([1] * len(places) + [0] * len(scores["normal"]))
        return rates(found, labels, self.bank.members[group, step].threshold)


def score_rows(bank, source, kind, rows, step):
    """Raw probabilities [N, G] of the clips of `rows` (one or more) of one step: each is read and
    brought to the detectors' size once. InputError for a detector whose answers are not finite: it
    would count as one that says "normal"."""
    model = bank.input_config(step)
    scores = torch.cat(
        [
            bank.score(
                step, source.read(kind, rows[start : start + CLIPS_SCORED_TOGETHER], step, model)
            )
            for start in range(0, len(rows), CLIPS_SCORED_TOGETHER)
        ]
    )
    for group, column in zip(bank.groups, scores.T, strict=True):
        if not column.isfinite().all():
            raise InputError(
                f"{bank.members[group, step].path}: scores of group {group}, step {step} that are "
                "not finite; train it again"
            )
    return scores


def _bank(job, steps):
    """The shared detector of the folder, or the detectors of these categories and steps."""
    if (job["save_dir"] / SHARED).exists():
        return load_bank(job["save_dir"], job["device"])
    pairs = [(group, step) for step in steps for group in job["categories"]]
    for group, step in pairs:
        need_file(detector_path(job["save_dir"], group, step))
    return FolderBank(job["save_dir"], job["device"], pairs)


def by_group(rows):
    """{group: one line of means over its steps}."""
    lines = {}
    for group in sorted({row["group"] for row in rows}):
        mine = [row for row in rows if row["group"] == group]
        lines[group] = ", ".join(
            f"{key} {np.mean(found):.3f}"
            for key in ("accuracy", "tpr", "tnr", "auroc")
            if (found := [row[key] for row in mine if row[key] is not None])
        )
    return lines
