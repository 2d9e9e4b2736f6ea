"""Detectors of one sampling, asked about another: trained, scored and judged, each only once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common.script_runs import run_script
from lvd.detectors.bank import load_bank
from lvd.errors import InputError
from lvd.evaluation.metrics import auroc
from lvd.evaluation.recorded import RecordedVideos, recorded_videos
from lvd.evaluation.rule_report import report_of
from lvd.evaluation.votes import VoteRun
from lvd.rules.carried import carry
from lvd.rules.file import load_rule
from lvd.rules.vote import VoteRule
from lvd.utils.files import load_torch, save_torch

FOLDS = 5
POINT = "validation"  # how embed_model.py reads a detector
# kind → (what tables call it, flags of train_mae.py)
KINDS = {
    "table": ("shared, told the step", ("--model", "shared")),
    "level": ("shared, told the noise level", ("--model", "shared", "--step_input", "level")),
    "grid": ("grid", ("--model", "grid")),
}
# What tables call it → (its file beside the detectors, flags of choose_rule.py)
CHOSEN = {
    "chosen rule": ("rule.yaml", ()),
    "chosen confidence rule": ("confidence.yaml", ("--families", "confidence")),
}
RULES = {"(0.6, 5)": VoteRule("0.6", 5), "(0.6, 20)": VoteRule("0.6", 20)}


@dataclass(frozen=True)
class Judged:
    """What one set of detectors says of the held-out videos of one sampling.

    Attributes:
        videos: RecordedVideos.
        largest: [N, S] largest raw probability over the categories.
    """

    videos: RecordedVideos
    largest: np.ndarray

    def auroc(self, step):
        """Return the AUROC of the largest score at a step, of unsafe against normal videos."""
        return float(auroc(self.largest[:, step], self.videos.is_unsafe))

    def carried(self, rule):
        """Return a rule of trained steps as the guard carries it over to this sampling."""
        return carry(rule, self.videos.trained_steps)

    def outcome(self, rule):
        """Return {"accuracy", "false positives", "cost", "looks"} of a rule of trained steps."""
        carried = self.carried(rule)
        report = report_of(carried, self.videos)
        return {
            "accuracy": report.right / (report.unsafe + report.normal),
            "false positives": report.false / report.normal,
            "cost": report.cost(),
            "looks": carried.horizon,
        }


class Detectors:
    """The detectors of one kind and seed, in a folder of their own.

    Args:
        kind: of KINDS.
        seed: of the training.
        folder: theirs.
        flags: of train_mae.py: where the clips and the split are, and the device.
    """

    def __init__(self, kind, seed, folder, flags):
        self.kind, self.seed, self.folder, self.flags = kind, seed, Path(folder), flags

    def train(self, folds=0):
        """Train them, unless they are finished.

        Args:
            folds: parts for the scores out of fold, on which a rule is chosen; 0: none.
        """
        flags = [*KINDS[self.kind][1], "--seed", self.seed, "--save_dir", self.folder, *self.flags]
        if folds:
            flags += ["--folds", folds]
        if self.kind == "grid":
            flags.append("workers=1")
        run_script("train_mae.py", *flags, OMP_NUM_THREADS="1")

    def choose_rules(self, max_false_positive_rate, max_cost):
        """Choose rules by choose_rule.py: those of CHOSEN that are not there, and can be promised.

        The scores out of fold are needed.
        """
        limits = ("--max_false_positive_rate", max_false_positive_rate, "--max_cost", max_cost)
        for file, flags in CHOSEN.values():
            path = self.folder / file
            if path.exists():
                continue
            try:
                where = ("--model_dir", self.folder, "--save_path", path)
                run_script("choose_rule.py", *where, *limits, *flags)
            except InputError as error:
                print(f"{path}: no rule ({error})")

    def rules(self):
        """Return {name: Rule} of the rules of CHOSEN that are there."""
        paths = {name: self.folder / file for name, (file, _) in CHOSEN.items()}
        bank = load_bank(self.folder) if any(path.exists() for path in paths.values()) else None
        return {
            name: load_rule(path).bound_to(bank).rule
            for name, path in paths.items()
            if path.exists()
        }

    def judge(self, clips, held_out, path):
        """Return the Judged of a sampling, from the scores in `path`, which is made if missing.

        Args:
            clips: function that returns the RecordedClips.
            held_out: HeldOutSamplings.
            path: of the scores, as embed_model.py's scores.pth.
        """
        if not path.exists():
            run = VoteRun(
                self.folder,
                clips(),
                held_out.split,
                "held out",
                POINT,
                allow_other_eval=True,  # the videos of its own eval.pth, sampled again
            )
            for _ in run:
                pass
            path.parent.mkdir(parents=True, exist_ok=True)
            save_torch(run.scores(), path)
        scores = load_torch(path)
        groups = sorted(scores["categories"], key=int)
        largest = []
        for label in ("1", "0"):
            by_group = [list(scores["scores"][label][group].values()) for group in groups]
            largest.append(np.array(by_group, np.float64).max(0))
        return Judged(recorded_videos(scores, path), np.concatenate(largest))
