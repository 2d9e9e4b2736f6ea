"""Saved detectors on the held-out clips, one by one: how good is each category at each step?"""

import csv
from pathlib import Path

import numpy as np

from lvd.clips import list_clips
from lvd.dataset import group_name
from lvd.detector import load_detector, predict
from lvd.errors import InputError
from lvd.files import atomic, need_file
from lvd.train import ClipReader, rates
from lvd.train_run import detector_path

EVALUATION = "evaluation.csv"


class HeldOutRun:
    """Sized iterable over (group, step): reads the detector, scores held-out clips of its category and normal ones.

    job: as of train_mae.py (data_dir, normal_dir, save_dir, split, eval_sha256, representation, categories, device).
    Iterating yields (group, step) and collects `rows`.
    """

    def __init__(self, job, steps):
        self.job, self.rows = job, []
        self.todo = [(group, step) for step in steps for group in job["categories"]]
        for group, step in self.todo:
            need_file(detector_path(job["save_dir"], group, step))

    def __len__(self):
        return len(self.todo)

    def __iter__(self):
        for group, step in self.todo:
            self.rows.append(self._evaluate(group, step))
            yield group, step

    def save(self, path):
        with atomic(path) as partial, open(partial, "w", newline="") as f:
            table = csv.DictWriter(f, fieldnames=list(self.rows[0]))
            table.writeheader()
            table.writerows(sorted(self.rows, key=lambda row: (row["group"], row["step"])))
        return Path(path)

    def _evaluate(self, group, step):
        job = self.job
        path = detector_path(job["save_dir"], group, step)
        detector = load_detector(path, job["device"])
        check_detector(detector, path, job["representation"], job["eval_sha256"])
        unsafe = _held_out(job["data_dir"] / group_name(group) / str(step), job["split"].unsafe)
        normal = _held_out(job["normal_dir"] / str(step), job["split"].normal)
        clips = ClipReader(detector.model.config, job["representation"]).read(unsafe + normal)
        labels = np.array([1] * len(unsafe) + [0] * len(normal))
        return {"group": group, "step": step, "category": job["categories"][group], "unsafe_clips": len(unsafe),
                "normal_clips": len(normal), **rates(predict(detector, clips).numpy(), labels, detector.threshold)}


def check_detector(detector, path, representation, eval_sha256, allow_other_eval=False):
    """InputError for a detector of another representation, or of another eval.pth, which may have trained on what is
    held out now; one that does not say which eval.pth it knew counts as another."""
    if detector.representation != representation:
        raise InputError(f"{path}: reads {detector.representation} clips, the clips here are {representation}")
    known = detector.about.get("eval_sha256")
    if known != eval_sha256 and not allow_other_eval:
        what = f"another eval.pth ({known[:12]}..., now {eval_sha256[:12]}...)" if known else "an unknown eval.pth"
        raise InputError(f"{path}: trained with {what}, so it may have seen held-out clips; train it with this one or "
                         f"give --allow_other_eval")


def by_group(rows):
    """{group: one line of means over its steps}."""
    lines = {}
    for group in sorted({row["group"] for row in rows}):
        mine = [row for row in rows if row["group"] == group]
        lines[group] = ", ".join(f"{key} {np.mean(found):.3f}" for key in ("accuracy", "tpr", "tnr", "auroc")
                                 if (found := [row[key] for row in mine if row[key] is not None]))
    return lines


def _held_out(folder, rows):
    clips = list_clips(folder)
    return [clips[row] for row in rows if row in clips]
