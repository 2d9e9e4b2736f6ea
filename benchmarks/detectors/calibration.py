"""Ways to calibrate detectors on their few validation clips, compared where it counts: on clips
that none has seen.

For all detectors of a folder, trained by train_mae.py on the recordings of a finished reproduce.sh:
each way is fitted to a detector's validation clips; log-loss, Brier score and expected calibration
error are those of held-out clips, and of validation clips each left out of the fit in turn, by
which a way can be chosen without looking at held-out ones.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_expit
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from lvd.data.config import DEFAULT_CONFIG
from lvd.data.split import load_split
from lvd.detectors.calibration import IDENTITY, fit_calibration, log_odds
from lvd.detectors.detector import load_detector, predict
from lvd.errors import InputError
from lvd.evaluation.metrics import balanced_weights, calibration_errors
from lvd.training.grid import stratified
from lvd.training.grid_run import detector_path
from lvd.utils.cli import Parser, run_command
from lvd.utils.config import ROOT

LARGEST = 20.0  # the slope that stands for "endless"
RESULT_FILE = "calibration_ways.csv"


def build_parser():
    parser = Parser(
        __doc__, "python benchmarks/detectors/calibration.py --model_dir MagicTime/detectors"
    )
    magictime = ROOT / "MagicTime"
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        help="recordings and labels (default: build_x0.yaml)",
    )
    parser.add_argument(
        "--model_dir",
        type=Path,
        default=magictime / "detectors",
        help="(default: MagicTime/detectors)",
    )
    parser.add_argument(
        "--eval_dir",
        type=Path,
        default=magictime,
        help="eval.pth or its folder (default: MagicTime)",
    )
    parser.add_argument(
        "--every", type=int, default=5, help="leave-one-out for every so many steps (default: 5)"
    )
    add_result_flags(parser, RESULT_FILE)
    return parser


# ---- the ways: raw probabilities [N] and labels [N] → map of raw probabilities to ones that hold
# for balanced classes


def temperature(raw, labels):
    """One number, by likelihood, both classes weighted alike."""
    z, sign, weights = log_odds(raw), 2 * labels - 1, balanced_weights(labels)
    found = minimize_scalar(
        lambda a: -(weights * log_expit(sign * a * z)).sum(), bounds=(0, LARGEST), method="bounded"
    ).x
    return lambda p: expit(found * log_odds(p))


def likelihood(raw, labels):
    """Platt's two numbers by (all but) likelihood alone, with the classes' shares taken out again."""
    found = LogisticRegression(C=1e4, max_iter=1000).fit(log_odds(raw)[:, None], labels)
    a, b = min(found.coef_[0, 0], LARGEST), found.intercept_[0] - _log_share(labels)
    return lambda p: expit(a * log_odds(p) + b)


def smoothed(raw, labels):
    """Platt's own remedy: targets (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) in place of 1 and 0."""
    z, unsafe, normal = log_odds(raw), labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (unsafe + 1) / (unsafe + 2), 1 / (normal + 2))

    def loss(parameters):
        v = parameters[0] * z + parameters[1]
        return -(target * log_expit(v) + (1 - target) * log_expit(-v)).sum()

    a, b = minimize(loss, [0.5, 0.0], method="L-BFGS-B", bounds=[(1e-6, LARGEST), (None, None)]).x
    return lambda p: expit(a * log_odds(p) + b - _log_share(labels))


WAYS = {
    "raw": lambda raw, labels: IDENTITY,
    "temperature": temperature,
    "Platt, likelihood alone": likelihood,
    "Platt, smoothed targets": smoothed,
    "Platt with a prior (used)": fit_calibration,
}


def _log_share(labels):
    return np.log(labels.sum() / (1 - labels).sum())


# ---- scores


class Scores:
    """found: {(group, step): (validation raw, labels, held-out raw, labels)} of all detectors of a
    folder."""

    def __init__(self, args):
        from MagicTime.utils.clip_sources import open_recordings

        self.source, self.split = open_recordings(args.config, "cpu"), load_split(args.eval_dir)
        places = {
            (int(path.parent.name), int(path.stem))
            for path in args.model_dir.glob("[0-9]*/[0-9]*.pth")
        }
        if not places:
            raise InputError(
                f"--model_dir {args.model_dir}: no detectors {{group}}/{{step}}.pth here; run "
                "train_mae.py"
            )
        self.steps = sorted({step for _, step in places})
        self.found = {
            (group, step): self._of(
                load_detector(detector_path(args.model_dir, group, step)), group, step
            )
            for group, step in tqdm(sorted(places), "scores", unit="detector")
        }

    def _of(self, detector, group, step):
        rows, settings = detector.about["rows"], detector.about["settings"]
        labels = torch.tensor([1] * len(rows["unsafe"]) + [0] * len(rows["normal"]))
        held = stratified(labels, settings["validation"], settings["seed"])[1]
        clips = torch.cat(
            [self.source.read(kind, rows[kind], step) for kind in ("unsafe", "normal")]
        )
        mine = [row for row in self.source.group_rows(group, step) if row in self.split.unsafe]
        new = torch.cat(
            [
                self.source.read("unsafe", mine, step),
                self.source.read("normal", self.split.normal, step),
            ]
        )
        return (
            predict(detector, clips[held]).numpy(),
            labels[held].numpy(),
            predict(detector, new).numpy(),
            np.repeat([1, 0], [len(mine), len(self.split.normal)]),
        )


def held_out(way, scores, steps):
    return _errors(
        [
            (way(*found[:2])(found[2]), found[3])
            for (_, step), found in scores.found.items()
            if step in steps
        ]
    )


def left_out(way, scores, steps):
    pairs = []
    for (_, step), (raw, labels, *_) in scores.found.items():
        if step in steps:
            rest = [np.arange(len(raw)) != k for k in range(len(raw))]
            pairs.append(
                (np.array([float(way(raw[m], labels[m])(raw[~m])[0]) for m in rest]), labels)
            )
    return _errors(pairs)


def _errors(pairs):
    """Of (probabilities, labels) of several detectors, each and its classes weighted alike."""
    weights = np.concatenate([balanced_weights(labels) for _, labels in pairs]) / len(pairs)
    p, labels = (np.concatenate(column) for column in zip(*pairs))
    return calibration_errors(p[:, None], labels, weights[:, None])


def work(args):
    args.out = results_path(args, RESULT_FILE)
    if args.every < 1:
        raise InputError(f"--every {args.every}: at least 1 is needed")
    scores = Scores(args)
    counts = {
        kind: [int((found[1] == label).sum()) for found in scores.found.values()]
        for kind, label in (("unsafe", 1), ("normal", 0))
    }
    if min(map(min, counts.values())) < 2:
        raise InputError(
            f"--model_dir {args.model_dir}: a detector has one validation clip of a class; two "
            "are needed to leave one out"
        )
    clips = " and ".join(
        f"{'-'.join(map(str, sorted({min(found), max(found)})))} {kind}"
        for kind, found in counts.items()
    )
    report = Report(
        f"Ways to calibrate {len(scores.found)} detectors on {clips} validation clips each",
        args.out,
    )
    parts = [
        ("held-out clips", scores.steps),
        ("held-out clips, first ten steps", scores.steps[:10]),
    ]
    for part, steps in parts:
        rows = [(name, held_out(way, scores, steps)) for name, way in tqdm(WAYS.items(), part)]
        report.add(part, "classes weighted alike", rows)
    chosen = scores.steps[:: args.every]
    report.add(
        "validation clips, each left out in turn",
        f"every {args.every}th step, classes weighted alike",
        [(name, left_out(way, scores, chosen)) for name, way in tqdm(WAYS.items(), "left out")],
    )
    report.say_where()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
