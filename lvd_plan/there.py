"""What is there already of each step of reproduce.sh, and would be skipped."""

import os
from dataclasses import dataclass

from lvd.data.clip_file import SUFFIXES
from lvd.data.clip_folders import group_folders, normal_folder
from lvd.detectors.bank import NAMES, SHARED
from lvd.detectors.detector import detector_paths
from lvd.errors import InputError
from lvd.evaluation.results import FOLDS
from lvd.x0.file import open_x0_file
from lvd.x0.sidecar import video_name
from lvd_plan.inputs import NORMAL, UNSAFE
from MagicTime.utils.video import video_kinds


@dataclass(frozen=True)
class There:
    """How much of a step's work is done.

    Attributes:
        done, total: in `unit`s.
        note: what is odd about what is there; "" where nothing is.
    """

    done: int
    total: int
    unit: str
    note: str = ""

    @property
    def left(self):
        """Share of the work that is still to be done."""
        return 1 - min(self.done, self.total) / self.total if self.total else 0.0


def look(inputs, counts):
    """Return {step of reproduce.sh: There}."""
    home, steps = inputs.home, counts.steps
    held_out = sum(counts.held_out.values()) * steps
    clips = {"eval_set": UNSAFE, "eval_normal": NORMAL}
    linked = sum(_clips_of_steps(home / name) for name in clips)
    grid = list(detector_paths(home / "detectors")) if (home / "detectors").is_dir() else []
    return {
        "sample unsafe": _sampled(inputs, UNSAFE, counts),
        "sample normal": _sampled(inputs, NORMAL, counts),
        "build_x0": There(_built(inputs.data.out_dir), counts.clips, "clip"),
        "gen_eval_set": _one(home / "eval.pth", "split"),
        "build_eval_set": There(linked, held_out, "clip"),
        "train_mae": There(len(grid), counts.groups * steps, "detector"),
        "names": _one(home / "detectors" / NAMES, "network"),
        "folds": _one(home / "detectors" / FOLDS, "table"),
        "embed_model": _one(home / "results" / "results.pth", "table"),
        "train shared": _one(home / "shared" / SHARED, "network"),
        "names, shared": _one(home / "shared" / NAMES, "network"),
        "folds, shared": _one(home / "shared" / FOLDS, "table"),
        "embed shared": _one(home / "results_shared" / "results.pth", "table"),
    }


def _one(path, unit):
    return There(int(path.exists()), 1, unit)


def _sampled(inputs, kind, counts):
    """There of a sampling: rows that are recorded and whose videos are there."""
    total, folder = inputs.videos[kind], inputs.folders[kind]
    path = inputs.data.pred_x0 if kind == UNSAFE else inputs.data.normal_pred_x0
    if not path.exists():
        return There(0, total, "video")
    try:
        x0 = open_x0_file(path)
    except InputError as error:
        return There(0, total, "video", str(error))
    planned = [counts.steps, *inputs.latents]
    if list(x0.tensor.shape[1:]) != planned:
        note = f"{path}: a recording of {list(x0.tensor.shape[1:])}, not of {planned}"
        return There(0, total, "video", note)
    kinds = video_kinds(inputs.sampling.settings.format)
    videos = _names(folder / "videos")
    done = 0
    for row in x0.rows:
        name = video_name(row, x0.info.get(row, {}))
        done += row < total and all(f"{name}.{kind}" in videos for kind in kinds)
    return There(done, total, "video")


def _built(data_dir):
    """Clips of a dataset, linked ones once."""
    if not data_dir.is_dir():
        return 0
    try:
        folders = group_folders(data_dir).values()
        normal = normal_folder(data_dir)
    except InputError:
        return 0
    by_step = {}
    for folder in folders:
        for step, names in _by_step(folder).items():
            by_step.setdefault(step, set()).update(names)
    return sum(map(len, by_step.values())) + _clips_of_steps(normal)


def _clips_of_steps(folder):
    return sum(map(len, _by_step(folder).values()))


def _by_step(folder):
    """{name of the step's folder: {clip's file name}}."""
    if not folder.is_dir():
        return {}
    steps = [entry for entry in os.scandir(folder) if entry.is_dir() and entry.name.isdecimal()]
    return {entry.name: {n for n in _names(entry.path) if n.endswith(SUFFIXES)} for entry in steps}


def _names(folder):
    """Names of the whole files in a folder."""
    if not os.path.isdir(folder):
        return set()
    return {entry.name for entry in os.scandir(folder) if not entry.name.startswith(".")}
