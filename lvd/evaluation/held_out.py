"""Saved detectors on the held-out clips: how good is each category at each step?"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lvd.data.kinds import KIND_NORMAL, KIND_UNSAFE, KINDS
from lvd.detectors.bank import SHARED, FolderBank, load_bank
from lvd.detectors.calibration import ARGMAX
from lvd.detectors.detector import detector_path
from lvd.errors import InputError
from lvd.evaluation.metrics import rates
from lvd.evaluation.tables import save_table
from lvd.evaluation.vote_report import text_report
from lvd.utils.files import need_file, save_text

EVALUATION = "evaluation.csv"
CLIPS_SCORED_TOGETHER = 256


class HeldOutRun:
    """Scores the held-out clips of every category, and the normal ones, with saved detectors.

    A sized iterable over the steps: iterating yields each step once it is evaluated. After that
    `table`, `save` and `save_reports` give the whole.

    Args:
        job: of train_mae.py (source, save_dir, steps, split, eval_sha256, categories, device).

    Raises:
        InputError: clips or detectors are missing, or do not belong together.
    """

    def __init__(self, job):
        self.source = job.source
        self.split = job.split
        self.categories = job.categories
        self.steps = job.steps
        self.bank = _bank(job.save_dir, job.categories, job.steps, job.device)
        self.bank.check(self.source.representation, job.eval_sha256, self.source.made_by)
        for step in job.steps:
            for kind in KINDS:
                self.source.need_rows(kind, getattr(self.split, kind), step)
        self._lines = []
        self._reports = {group: [] for group in self.categories}

    def __len__(self):
        return len(self.steps)

    def __iter__(self):
        for step in self.steps:
            self._lines += self._evaluate(step)
            yield step

    def table(self):
        """Return a table with a line for each category and step: group, step, category,
        unsafe_clips, normal_clips and the columns of `metrics.rates`."""
        return pd.DataFrame(self._lines).sort_values(["group", "step"])

    def save(self, path):
        """Write the table as CSV and return its path."""
        save_table(self.table(), path)
        return Path(path)

    def save_reports(self, folder):
        """Write scikit-learn's report of each category, step after step, as text.

        They are named as in the paper's code, but written anew and not appended to. As there, a
        clip is unsafe if its raw probability is at least 0.5.

        Returns:
            The paths, {folder}/classification_{group}.txt.
        """
        paths = []
        for group, reports in self._reports.items():
            path = Path(folder) / f"classification_{group}.txt"
            save_text("\n".join(reports), path)
            paths.append(path)
        return paths

    def _evaluate(self, step):
        """Return the lines of one step."""
        own = {group: self._own_rows(group, step) for group in self.categories}
        unsafe = self._scores(KIND_UNSAFE, sorted(set().union(*own.values())), step)
        normal = self._scores(KIND_NORMAL, self.split.normal, step)
        lines = []
        for group, rows in own.items():
            scores = np.concatenate([unsafe.loc[rows, group], normal[group]])
            labels = np.repeat([1, 0], [len(rows), len(normal)])
            line = {"group": group, "step": step, "category": self.categories[group]}
            line |= {"unsafe_clips": len(rows), "normal_clips": len(normal)}
            report = text_report(labels, scores >= ARGMAX)
            self._reports[group].append(f"{self.categories[group]}, step {step}\n\n{report}")
            threshold = self.bank.members[group, step].threshold
            lines.append(line | rates(scores, labels, threshold))
        return lines

    def _own_rows(self, group, step):
        """Return the held-out rows of a category."""
        members = set(self.source.group_rows(group, step))
        rows = [row for row in self.split.unsafe if row in members]
        if not rows:
            raise InputError(
                f"{self.source.group_place(group, step)}: none of its rows is held out, so group "
                f"{group} cannot be evaluated; make an eval.pth with gen_eval_set.py from the "
                "labels in use"
            )
        return rows

    def _scores(self, kind, rows, step):
        """Return raw probabilities as a table: a line for each row, a column for each group."""
        scores = score_rows(self.bank, self.source, kind, rows, step)
        return pd.DataFrame(scores.numpy(), index=rows, columns=self.bank.groups)


def score_rows(bank, source, kind, rows, step, trained=None, level=None):
    """Score clips of one step; each clip is read and brought to the detectors' size once.

    Args:
        bank: of the detectors.
        source: of the clips.
        kind: "unsafe" or "normal".
        rows: one or more rows of that kind.
        step: the denoising step.
        trained: the trained step whose detectors are asked; None: that of the same number.
        level: noise level of the clips; None: that of the trained step.

    Returns:
        Raw probabilities of unsafe [N, G], by the categories of the bank.

    Raises:
        InputError: a detector answers with numbers that are not finite; it would count as one
            that says "normal".
    """
    trained = step if trained is None else trained
    at_level = {} if level is None else {"level": level}

    def ask(clips):
        return bank.score(trained, clips, **at_level)

    scores = _ask(ask, bank.input_config(trained), source, kind, rows, step)
    for group, column in zip(bank.groups, scores.T, strict=True):
        if not column.isfinite().all():
            raise InputError(
                f"{bank.members[group, trained].path}: scores of group {group}, step {step} that "
                "are not finite; train it again"
            )
    return scores


def name_rows(bank, source, kind, rows, step, trained=None, level=None):
    """Ask names.pth about clips of one step; arguments and result: see `score_rows`."""
    trained = step if trained is None else trained

    def ask(clips):
        return bank.names(trained, clips)

    found = _ask(ask, bank.input_config(trained), source, kind, rows, step)
    if not found.isfinite().all():
        raise InputError(
            f"{bank.naming.path}: probabilities of step {step} that are not finite; train it again"
        )
    return found


def _ask(ask, model, source, kind, rows, step):
    """Return what `ask` says of the clips, [N, G]; `model`: their VideoMAEConfig."""
    parts = []
    for start in range(0, len(rows), CLIPS_SCORED_TOGETHER):
        clips = source.read(kind, rows[start : start + CLIPS_SCORED_TOGETHER], step, model)
        parts.append(ask(clips))
    return torch.cat(parts)


def _bank(save_dir, groups, steps, device):
    """Return the shared detector of the folder, or the detectors of these categories and steps."""
    if (save_dir / SHARED).exists():
        return load_bank(save_dir, device)
    pairs = [(group, step) for step in steps for group in groups]
    for group, step in pairs:
        need_file(detector_path(save_dir, group, step))
    return FolderBank(save_dir, device, pairs)


def by_group(table):
    """Return {group: one line of text with means over its steps} of `HeldOutRun.table`."""
    lines = {}
    for group, part in table.groupby("group"):
        means = part[["accuracy", "tpr", "tnr", "auroc"]].astype(float).mean().dropna()
        lines[group] = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    return lines
