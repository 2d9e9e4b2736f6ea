"""A small study: recordings that detectors can learn from in seconds, and all that names them.

`python reproduce_tables.py` is run on it as a user runs it, but its tasks run in this process (see
`InProcess`): each script's imports would take longer than its work.
"""

import os
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

import reproduce_tables
from lvd.utils.config import ROOT
from lvd.x0.file import create_x0_file
from lvd_study.runner import Runner, Started
from tests.worlds import magictime_world
from tests.worlds.recording_world import write_labels

STEPS, SHAPE = 4, (4, 4, 4, 4)  # C, F, h, w: what magictime_world samples in STEPS steps
LABELS = {"warped": [*range(0, 10)], "banner": [*range(8, 18)], "strobe": [*range(18, 28)]}
ROWS = {"unsafe": 28, "normal": 28}
SIGNAL = 1.2  # of a category's own channel, in standard deviations of the noise
SEEDS = (2024, 2025)
TRAIN = {"size": "nano", "epoch": 2, "batch_size": 32, "workers": 1, "shared": {"epoch": 2}}
STUDY = {
    "seeds": [*SEEDS],
    "rules_for": ["shared"],
    "folds": 2,
    "max_false_positive_rate": 0.9,
    "max_cost": 1.0,
    "other_seeds": 1,
    "guidance_scales": [1.5],
    "samplings": ["ddim:3"],
    "safe_guidance": ["max"],
    "safety_concept": "warped",
    "weights": {"no_dreambooth": {"dreambooth_path": ""}},
    "wrong_labels": [0.2],
}


class StudyWorld:
    """Recordings, labels, prompts and settings below `root`, and the model that samples.

    Attributes:
        config: build_x0.yaml of the recordings, which are there.
        study: study.yaml; train: train.yaml.
        prompts: {"unsafe", "normal": path}.
        home: the folder of everything that is made; work: of what the study makes there.
        tables: the folder of the pages.
    """

    def __init__(self, root, model):
        self.root = Path(root)
        self.config, self.study = self.root / "build_x0.yaml", self.root / "study.yaml"
        self.train, self.home = self.root / "train.yaml", self.root / "home"
        self.work, self.tables = self.home / "study", self.home / "study" / "tables"
        self.labels = write_labels(self.root / "label.csv", LABELS)
        self.prompts = {kind: self._write_prompts(kind) for kind in ROWS}
        self.recordings = {kind: self.home / kind / "pred_x0.pth" for kind in ROWS}
        sampler = magictime_world.write_config(
            self.root / "sample.yaml", model, prompt=["a"], steps=STEPS, batch_size=8
        )
        settings = {
            "sample_config": str(sampler),
            "pred_x0": str(self.recordings["unsafe"]),
            "normal_pred_x0": str(self.recordings["normal"]),
            "label_file_dir": str(self.labels),
            "out_dir": str(self.home / "data"),
        }
        self.config.write_text(yaml.safe_dump(settings))
        self.train.write_text(yaml.safe_dump(TRAIN))
        self.write_study()
        for seed, kind in enumerate(ROWS):
            self._record(kind, seed)

    def write_study(self, path=None, **changes):
        """Write a study.yaml and return its path; a change to `...` drops the key."""
        path = path or self.study
        settings = {key: value for key, value in {**STUDY, **changes}.items() if value is not ...}
        path.write_text(yaml.safe_dump(settings))
        return path

    def words(self, *flags, study=None):
        """The words after `reproduce_tables.py`."""
        known = ["--config", self.config, "--study", study or self.study]
        known += ["--train_config", self.train, "--gpu_num", -1, *flags]
        return [str(word) for word in known]

    def reproduce(self, *flags, study=None):
        """Run reproduce_tables.py and return its exit status; its tasks run in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lvd_study.runner.Runner", InProcess)
            return reproduce_tables.main(self.words(*flags, study=study))

    def page(self, letter):
        """The text of a page."""
        return (self.tables / f"{letter}.md").read_text()

    def _write_prompts(self, kind):
        path = self.root / f"{kind}.txt"
        path.write_text("".join(f"{kind[0]}{row}\n" for row in range(ROWS[kind])))
        return path

    def _record(self, kind, seed):
        """Noise, and in an unsafe video a channel for each of its categories."""
        draw = torch.Generator().manual_seed(seed)
        rows, path = ROWS[kind], self.recordings[kind]
        x0 = torch.randn(rows, STEPS, *SHAPE, generator=draw)
        if kind == "unsafe":
            for channel, members in enumerate(LABELS.values()):
                x0[members, :, channel] += SIGNAL
        about = {"seed": seed, "scaling_factor": 0.18215}
        path.parent.mkdir(parents=True)
        with create_x0_file(path, rows, STEPS, SHAPE, torch.float32, about) as writer:
            for row, prompt in enumerate(self.prompts[kind].read_text().split()):
                info = {"prompt": prompt, "seed": 100 * seed + row}
                writer.write_row(row, x0[row], {**info, "timesteps": [751, 501, 251, 1]})


class InProcess(Runner):
    """A Runner that runs each task's script in this process, as soon as it is started."""

    def _start(self, task, gpu=None):
        path = self.logs / f"{task.slug}.log"
        with open(path, "w") as log, redirect_stdout(log), redirect_stderr(log), in_folder(ROOT):
            status = main_of(task)
        ended = SimpleNamespace(poll=lambda: status, returncode=status)
        return Started(task, ended, 0.0, open(os.devnull))


@contextmanager
def in_folder(folder):
    """Make a folder the current one for a while (contextlib.chdir needs Python 3.11)."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main_of(task):
    """Run a task's script by its `main`, and return its exit status."""
    script, *words = task.words()
    if script == "-m":
        module, *words = words
    else:
        module = script.removesuffix(".py").replace("/", ".")
    return import_module(module).main(words)


def command(*words):
    """The command line of reproduce_tables.py as a process of its own."""
    return [sys.executable, str(ROOT / "reproduce_tables.py"), *map(str, words)]


@pytest.fixture(scope="session")
def study_world(tmp_path_factory, world):
    """A StudyWorld whose tasks are not run yet, or are by an earlier test: its ledger tells."""
    return StudyWorld(tmp_path_factory.mktemp("study"), world[0])
