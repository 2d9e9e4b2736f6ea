"""Recordings of a tiny AnimateDiff and detectors of both forms trained on them, for the guard."""

import csv
import shutil
from collections import Counter
from itertools import zip_longest
from types import SimpleNamespace

import torch

import embed_model
import gen_eval_set
import lvd
import train_mae
from lvd import Guard
from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.detectors.bank import load_bank
from lvd.guard.session import GuardSession
from lvd.rules.vote import VoteRule
from lvd.utils.files import load_torch, save_torch, save_yaml
from lvd.x0.file import open_x0_file

STEPS = 5
VIDEOS = 24
AT_ONCE = 12
SHAPE = (4, 3, 4, 8)  # C, F, h, w
CATEGORIES = {"odd": range(0, 14), "loud": range(12, 24)}


def make_world(tiny, root):
    """Record a tiny AnimateDiff, label it, and train detectors of both forms on the recordings."""
    unsafe = record(tiny, root / "unsafe" / "pred_x0.pth", 1)
    normal = record(tiny, root / "normal" / "pred_x0.pth", -1)
    labels = root / "label.csv"
    write_labels(labels)
    config = root / "build_x0.yaml"
    settings = {
        "pred_x0": str(unsafe),
        "normal_pred_x0": str(normal),
        "label_file_dir": str(labels),
        "out_dir": str(root / "data"),
    }
    save_yaml(settings, config)
    evaluation = root / "eval.pth"
    assert gen_eval_set.main(["--config", str(config), "--save_path", str(evaluation)]) == 0
    flags = ["--recordings", str(config), "--eval_dir", str(evaluation)]
    flags += ["--size", "nano", "--gpu_num", "-1"]
    of_shared = ["--model", "shared", "--epoch", "40", "--save_dir", str(root / "shared")]
    of_grid = ["--epoch", "5", "--workers", "1", "--save_dir", str(root / "grid")]
    assert train_mae.main([*flags, *of_shared]) == 0
    assert train_mae.main([*flags, *of_grid]) == 0
    return SimpleNamespace(
        root=root,
        shared=root / "shared",
        grid=root / "grid",
        config=config,
        eval=evaluation,
        x0={LABEL_UNSAFE: open_x0_file(unsafe).tensor, LABEL_NORMAL: open_x0_file(normal).tensor},
    )


def record(tiny, path, kind):
    """Record VIDEOS videos of one kind, 1 (unsafe) or -1, in batches of AT_ONCE."""
    with lvd.record(tiny.pipe, path, VIDEOS) as recording:
        for first in range(0, VIDEOS, AT_ONCE):
            rows = list(range(first, first + AT_ONCE))
            with recording.rows(rows):
                tiny.pipe(**tiny.inputs([kind] * AT_ONCE, rows, first=first, steps=STEPS))
    return path


def write_labels(path):
    """Write CATEGORIES as a label file: a column each, short ones padded with blanks."""
    columns = [[name, *map(str, rows)] for name, rows in CATEGORIES.items()]
    with open(path, "w", newline="") as f:
        csv.writer(f).writerows(zip_longest(*columns, fillvalue=""))


def doubtful(world, form, folder):
    """A copy of the detectors whose thresholds lie among the scores of the recordings, so that
    votes of all sorts come about; and the votes that embed_model.py records of the held-out videos.
    """
    shutil.copytree(getattr(world, form), folder / form)
    bank = load_bank(folder / form)
    for step in bank.steps:
        scores = bank.score(step, torch.cat([x0[:, step] for x0 in world.x0.values()]))
        for group, threshold in enumerate(
            scores.quantile((0.25, 0.8, 0.4, 0.65, 0.75)[step], 0).tolist(), 1
        ):
            path = folder / form / ("shared.pth" if form == "shared" else f"{group}/{step}.pth")
            found = load_torch(path)
            if form == "shared":
                found["thresholds"][step][group - 1] = threshold
            else:
                found["threshold"] = threshold
            save_torch(found, path)
    assert (
        embed_model.main(
            [
                "--model_dir",
                str(folder / form),
                "--recordings",
                str(world.config),
                "--eval_dir",
                str(world.eval),
                "--save_dir",
                str(folder / "results"),
                "--operating_point",
                "validation",
                "--gpu_num",
                "-1",
            ]
        )
        == 0
    )
    return folder / form, folder / "results"


def guard_session(guard, lambda_, eta):
    return GuardSession(guard.bank, guard.reader, VoteRule(lambda_, eta), STEPS)


class Spy:
    """The bank's own scores, counted: {(step, clips): calls}. extra: function of (step, scores) →
    scores."""

    def __init__(self, guard, extra=None):
        self.asked, self._score, self._extra = Counter(), guard.bank.score, extra
        guard.bank.score = self

    def __call__(self, step, clips, level=None):
        self.asked[step] += len(clips)
        found = self._score(step, clips)
        return self._extra(step, found) if self._extra else found


def rigged(world, scores, lambda_=0.5, eta=4):
    """A guard whose detectors' answers are given: function of (step, number of clips) → [n][G]; and
    what was asked."""
    guard = Guard(world.shared, lambda_, eta, "cpu")
    spy = Spy(
        guard, lambda step, found: torch.tensor(scores(step, len(found)), dtype=torch.float32)
    )
    return guard, spy


def run(pipe, tiny, watch, kinds=(1, 1), seeds=(3, 4), **changes):
    with watch:
        return pipe(**tiny.inputs(list(kinds), seeds, first=100, steps=STEPS, **changes)).frames
