"""The plain way and the project's ways on the same recordings and split, and what each took."""

import io
import os
import shutil
import sys
import time
from argparse import Namespace
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common.script_runs import run_script, size_of
from benchmarks.detectors import plain_way
from lvd.data.split import Split
from lvd.detectors.videomae import BASE_MODEL
from lvd.errors import InputError
from lvd.evaluation.results import RESULTS, SCORES
from lvd.training.recipes import read_settings
from lvd.utils.files import load_torch, save_yaml
from lvd.utils.processes import pick_device
from lvd.utils.progress import progress
from lvd.voting import step_votes

ON_DEVICE = ("train_mae.py", "embed_model.py", "build_x0.py")  # scripts that take --gpu_num


@dataclass
class Setup:
    """What all ways have alike.

    args: of plain.py; settings: of the recordings' YAML; folder: to work in; steps: those that the
    plain way does; all_steps: how many there are; groups: how many categories; split: a Split.
    """

    args: Namespace
    settings: dict
    folder: Path
    steps: list
    all_steps: int
    groups: int
    split: Split = None

    @property
    def eval_path(self):
        return self.folder / "eval.pth"

    def config(self, representation, out_dir):
        """Write a build_x0.yaml of this run; returns its path."""
        known = {}
        for key, value in self.settings.items():
            known[key] = str(value) if isinstance(value, Path) else value
        known |= {"representation": representation, "out_dir": str(self.folder / out_dir)}
        path = self.folder / f"{representation}_{Path(out_dir).parent.name}.yaml"
        save_yaml(known, path)
        return path

    def script(self, name, *flags, config):
        """Run a script as a user does; returns what it took."""
        device = ["--gpu_num", self.args.gpu_num] if name in ON_DEVICE else []
        print(f"{name} {' '.join(map(str, flags[-2:]))}", file=sys.stderr)
        began = clock()
        run_script(name, "--config", config, *flags, *device)
        return clock() - began


@dataclass
class Outcome:
    """What one way took and says.

    spent: {"clips" | "train" | "embed": [seconds, CPU seconds]}; disk: {"clips" | "detectors":
    bytes}; votes: {"1" | "0": {row: [vote of each of `steps`]}}; argmax: the votes by argmax, where
    they are others.
    """

    spent: dict
    disk: dict
    votes: dict
    steps: list
    argmax: dict = None

    def scaled(self, factor):
        """The same in proportion to more detectors."""
        spent = {part: value * factor for part, value in self.spent.items()}
        disk = {part: value * factor for part, value in self.disk.items()}
        return Outcome(spent, disk, self.votes, self.steps, self.argmax)


def clock():
    """[seconds, CPU seconds of this process and of all it has started and seen end]"""
    return np.array([time.perf_counter(), sum(os.times()[:4])])


# ---- the plain way


def run_plain(setup, lr):
    """Outcome of the plain way for the detectors of all categories at `setup.steps`."""
    args = setup.args
    home = setup.folder / "plain"
    clips, detectors = home / "clips", home / "detectors"
    spent = {"clips": build_plain_clips(setup, setup.config("video", clips))}
    pairs = [(group, step) for step in setup.steps for group in range(1, setup.groups + 1)]
    base = read_settings(args.train_config, Namespace()).base_model or BASE_MODEL
    network = detectors, args.size, base, pick_device(args.gpu_num)
    began = clock()
    trained = plain_way.train(clips, setup.split, pairs, args.epoch, lr, *network)
    for _ in progress(trained, "plain: train", total=len(pairs), unit="detector"):
        pass
    spent["train"] = clock() - began
    began = clock()
    embedded = plain_way.embed(clips, setup.split, pairs, *network)
    said = list(progress(embedded, "plain: embed", total=len(pairs), unit="detector"))
    spent["embed"] = clock() - began
    disk = {"clips": size_of(clips), "detectors": size_of(detectors)}
    votes = together(setup, dict(zip(pairs, said)))
    shutil.rmtree(clips)
    return Outcome(spent, disk, votes, setup.steps)


def build_plain_clips(setup, config):
    """Decode the clips; returns what it took but for the script's start, which must not be
    multiplied."""
    import build_x0
    import MagicTime.utils.pipeline
    import MagicTime.utils.weights  # noqa: F401 (loaded before the clock starts)

    steps = ",".join(map(str, setup.steps))
    flags = ["--config", str(config), "--steps", steps, "--gpu_num", str(setup.args.gpu_num)]
    began = clock()
    with redirect_stdout(io.StringIO()):
        status = build_x0.main(flags)
    if status:
        raise InputError(f"--config {setup.args.config}: its clips cannot be built, see above")
    return clock() - began


def together(setup, said):
    """Each step's vote of each video: of what the detectors {(group, step): {label: {row: 0 or
    1}}} say."""
    votes = {}
    for label, rows in (("1", setup.split.unsafe), ("0", setup.split.normal)):
        votes[label] = {}
        for row in map(str, rows):
            by_group = []
            for group in range(1, setup.groups + 1):
                by_group.append([said[group, step][label][row] for step in setup.steps])
            votes[label][row] = step_votes(by_group)
    return votes


# ---- the project's ways


def run_project(setup, way, from_files, flags):
    """Outcome of one of the project's ways for the whole grid, its scripts' start included.

    Args:
        setup: Setup.
        way: its name.
        from_files: whether clip files are built.
        flags: more flags of train_mae.py.
    """
    args = setup.args
    home = setup.folder / way.replace(", ", "-").replace(" ", "_")
    clips, detectors, results = home / "train_detector_data", home / "detectors", home / "results"
    config = setup.config("latent", clips)
    spent = {"clips": np.zeros(2)}
    where = held_out = ["--recordings", config]
    held = ["--eval_dir", setup.eval_path]
    if from_files:
        spent["clips"] = setup.script("build_x0.py", config=config)
        save = ["--save_dir", home]
        spent["clips"] += setup.script("build_eval_set.py", *held, *save, config=config)
        where, held_out = ["--data_dir", clips], ["--data_dir", home]
    own = ["--save_dir", detectors, "--size", args.size]
    spent["train"] = setup.script(
        "train_mae.py", *where, *held, *own, *flags, config=args.train_config
    )
    own = ["--model_dir", detectors, "--save_dir", results]
    spent["embed"] = setup.script(
        "embed_model.py", *held_out, *held, *own, config=args.train_config
    )
    disk = {
        "clips": size_of(home) - size_of(detectors) - size_of(results),
        "detectors": size_of(detectors),
    }
    steps = list(range(setup.all_steps))
    votes, argmax = load_torch(results / RESULTS), argmax_votes(results / SCORES)
    shutil.rmtree(home)
    return Outcome(spent, disk, votes, steps, argmax)


def argmax_votes(path):
    """The votes that a scores.pth gives by argmax, as in results.pth."""
    votes = {}
    for label, by_group in load_torch(path)["scores"].items():
        votes[label] = {}
        for row in next(iter(by_group.values())):
            said = [[int(p >= 0.5) for p in by_row[row]] for by_row in by_group.values()]
            votes[label][row] = step_votes(said)
    return votes
