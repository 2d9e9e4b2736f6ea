"""Saved detectors on the held-out clips, one by one: how good is each category at each step?"""

import csv
from pathlib import Path

import numpy as np

from lvd.detector import load_detector, predict
from lvd.errors import InputError
from lvd.files import atomic, need_file
from lvd.source import KINDS, Readers
from lvd.train import rates
from lvd.train_run import detector_path

EVALUATION = "evaluation.csv"


class HeldOutRun:
    """Sized iterable over (group, step): reads the detector, scores held-out clips of its category and normal ones.

    job: as of train_mae.py (source, save_dir, split, eval_sha256, categories, device).
    Iterating yields (group, step) and collects `rows`.
    """

    def __init__(self, job, steps):
        self.job, self.rows = job, []
        self.todo = [(group, step) for step in steps for group in job["categories"]]
        self._readers = Readers(job["source"])
        for group, step in self.todo:
            need_file(detector_path(job["save_dir"], group, step))
        for step in steps:
            for kind in KINDS:
                job["source"].need_rows(kind, getattr(job["split"], kind), step)

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
        job, source = self.job, self.job["source"]
        path = detector_path(job["save_dir"], group, step)
        detector = load_detector(path, job["device"])
        check_detector(detector, path, source.representation, job["eval_sha256"], source.made_by)
        members = set(source.group_rows(group, step))
        unsafe = [row for row in job["split"].unsafe if row in members]
        if not unsafe:
            raise InputError(f"{source.group_place(group, step)}: none of its rows is held out, so group {group} cannot be "
                             f"evaluated; make an eval.pth with gen_eval_set.py from the labels in use")
        normal = job["split"].normal
        clips = self._readers.of(step, detector.model.config).read({"unsafe": unsafe, "normal": normal})
        labels = np.array([1] * len(unsafe) + [0] * len(normal))
        return {"group": group, "step": step, "category": job["categories"][group], "unsafe_clips": len(unsafe),
                "normal_clips": len(normal), **rates(predict(detector, clips).numpy(), labels, detector.threshold)}


def check_detector(detector, path, representation, eval_sha256, made_by, allow_other_eval=False):
    """InputError for a detector that is not the one of its place, of another representation, or of another eval.pth or
    other recordings, when it may have trained on what is held out now.

    One that does not say which eval.pth it knew counts as another; made_by: {"pred_x0_made_by": ..., ...} of the clips
    (None: not known).
    """
    if detector.representation != representation:
        raise InputError(f"{path}: reads {detector.representation} clips, the clips here are {representation}")
    check_place(detector.about, path)
    known = detector.about.get("eval_sha256")
    if known != eval_sha256 and not allow_other_eval:
        what = f"another eval.pth ({known[:12]}..., now {eval_sha256[:12]}...)" if known else "an unknown eval.pth"
        raise InputError(f"{path}: trained with {what}, so it may have seen held-out clips; train it with this one or "
                         f"give --allow_other_eval")
    for key in ("pred_x0_made_by", "normal_pred_x0_made_by"):
        before, now = detector.about.get("dataset", {}).get(key), made_by.get(key)
        if before and now and before != now and not allow_other_eval:
            raise InputError(f"{path}: trained on other recordings than the clips here ({key} {before[:12]}... there, "
                             f"{now[:12]}... now), whose rows mean other videos; train it on these or give "
                             f"--allow_other_eval")
    before, now = detector.about.get("dataset", {}).get("rgb_matrix"), made_by.get("rgb_matrix")
    if before and now and before != now:
        raise InputError(f"{path}: trained on frames of another rgb_matrix than the clips here; use that one, or train it "
                         f"again")


def check_place(about, path):
    """InputError when {group}/{step}.pth holds the detector of another category or step."""
    for key, here in (("group", path.parent.name), ("step", path.stem)):
        if about.get(key, int(here)) != int(here):
            raise InputError(f"{path}: holds the detector of {key} {about[key]}; put it back as {about.get('group')}/"
                             f"{about.get('step')}.pth and train this one")


def by_group(rows):
    """{group: one line of means over its steps}."""
    lines = {}
    for group in sorted({row["group"] for row in rows}):
        mine = [row for row in rows if row["group"] == group]
        lines[group] = ", ".join(f"{key} {np.mean(found):.3f}" for key in ("accuracy", "tpr", "tnr", "auroc")
                                 if (found := [row[key] for row in mine if row[key] is not None]))
    return lines
