"""Held-out videos sampled again: the same prompts and seeds, other steps or another scheduler.

They are recorded as prompts of their own, so they have a label file and an eval.pth of their own.
"""

import csv
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import yaml

from benchmarks.common.script_runs import run_script
from lvd.data.kinds import KINDS
from lvd.data.labels import read_labels, read_recorded_labels
from lvd.data.recorded_clips import RecordedClips
from lvd.data.split import Split, load_split, save_split, split_path
from lvd.errors import InputError
from lvd.utils.files import save_yaml, sha256
from lvd.utils.partials import atomic
from lvd.x0.file import open_x0_file

SAMPLER = "MagicTime/inference_magictime.py"


@dataclass(frozen=True)
class Sampling:
    """A scheduler, as a sampling YAML names it, and its number of steps."""

    scheduler: str
    steps: int

    @property
    def name(self):
        return f"{self.scheduler}_{self.steps}"

    def describe(self):
        return f"{self.scheduler}, {self.steps}"


class HeldOutSamplings:
    """The held-out videos of two recordings, sampled again into a folder.

    Args:
        settings: of the recordings' YAML (read_recordings), whose sample_config is the model.
        eval_dir: eval.pth or its folder.
        folder: where the new recordings and their label file and eval.pth lie.
        gpu_num: CUDA device, -1 for the CPU.
    """

    def __init__(self, settings, eval_dir, folder, gpu_num=-1):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.gpu_num = gpu_num
        self._clips = {}  # Sampling → RecordedClips
        self._labels_path = self.folder / "label.csv"
        self.eval_path = self.folder / "eval.pth"
        split = load_split(split_path(eval_dir), need_normal=True)
        rows = {kind: sorted(getattr(split, kind)) for kind in KINDS}
        labels = read_recorded_labels(settings["label_file_dir"], settings["pred_x0"])
        self._write_labels(labels, rows["unsafe"])
        self.labels = read_labels(self._labels_path)
        self.split = Split(
            unsafe=list(range(len(rows["unsafe"]))),
            normal=list(range(len(rows["normal"]))),
            label_sha256=sha256(self._labels_path),
        )
        save_split(self.split, self.eval_path)
        recordings = {"unsafe": "pred_x0", "normal": "normal_pred_x0"}
        for kind, key in recordings.items():
            self._write_config(kind, settings, settings[key], rows[kind])

    def _write_labels(self, labels, rows):
        """The labels of the held-out rows, which are now numbered from 0."""
        place = {row: k for k, row in enumerate(rows)}
        columns = [
            sorted(place[row] for row in column if row in place) for column in labels.columns
        ]
        with atomic(self._labels_path) as partial, open(partial, "w", newline="") as f:
            csv.writer(f).writerows([labels.categories, *zip_longest(*columns, fillvalue="")])

    def _write_config(self, kind, settings, recording, rows):
        """The sampling YAML of one kind of videos: the model's, with their prompts and seeds."""
        info = open_x0_file(recording).info
        for row in rows:
            if not {"prompt", "seed"} <= info[row].keys():
                raise InputError(f"{recording}: row {row} does not tell its prompt and seed")
        path = settings["sample_config"]
        first, second = yaml.safe_load(Path(path).read_text())
        changes = {
            "prompt": [info[row]["prompt"] for row in rows],
            "seed": [info[row]["seed"] for row in rows],
            "seed_per_prompt": False,
            "file_path": "",
        }
        save_yaml([{**first, **changes}, second], self.folder / f"{kind}.yaml")

    def clips(self, sampling):
        """Return the RecordedClips of a Sampling; what is missing is sampled."""
        if sampling not in self._clips:
            self._clips[sampling] = self._recorded(sampling)
        return self._clips[sampling]

    def _recorded(self, sampling):
        paths = {}
        for kind in KINDS:
            out = self.folder / sampling.name / kind
            run_script(
                SAMPLER,
                *("--config", self.folder / f"{kind}.yaml", "--save-path", out),
                *("--gpu_num", self.gpu_num),
                f"scheduler={sampling.scheduler}",
                f"steps={sampling.steps}",
                OMP_NUM_THREADS="1",
            )
            paths[kind] = out / "pred_x0.pth"
        return RecordedClips(paths["unsafe"], paths["normal"], self.labels)
