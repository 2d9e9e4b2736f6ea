"""Ways to calibrate detectors on their few validation clips, compared where it counts: on clips
that none has seen (2 minutes).

For all detectors of a folder, trained by train_mae.py: each way is fitted to a detector's
validation clips, against raw probabilities. Log-loss, Brier score and expected calibration error
are those of held-out clips, and of validation clips each left out of the fit in turn, by which a
way can be chosen without looking at held-out ones.

Needs bash reproduce.sh. Results: calibration_ways.csv and .txt.
"""

import sys

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_expit
from sklearn.linear_model import LogisticRegression

from benchmarks.common.flags import add_eval_dir, add_model_dir, add_recordings, need_positive
from benchmarks.common.needs import REPRODUCE, need_path, read_recordings
from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from lvd.data.split import load_split
from lvd.detectors.calibration import IDENTITY, fit_calibration, log_odds
from lvd.detectors.detector import detector_path, load_detector, predict
from lvd.errors import InputError
from lvd.evaluation.reliability import balanced_weights, calibration_errors
from lvd.training.rows import stratified
from lvd.utils.cli import Parser, run_command
from lvd.utils.progress import progress

LARGEST = 20.0  # the slope that stands for "endless"
EARLY = 10  # steps
RESULT_FILE = "calibration_ways.csv"


def build_parser():
    parser = Parser(
        __doc__, "python benchmarks/detectors/calibration.py --model_dir MagicTime/detectors"
    )
    add_recordings(parser, "--config")
    add_model_dir(parser)
    add_eval_dir(parser)
    parser.add_argument(
        "--every", type=int, default=5, help="leave-one-out for every so many steps (default: 5)"
    )
    add_result_flags(parser, RESULT_FILE)
    return parser


# ---- the ways: functions of raw probabilities [N] and labels [N] that return a map of raw
# probabilities to ones that hold for balanced classes


def temperature(raw, labels):
    """One number, by likelihood, both classes weighted alike."""
    z, sign, weights = log_odds(raw), 2 * labels - 1, balanced_weights(labels)

    def loss(slope):
        return -(weights * log_expit(sign * slope * z)).sum()

    slope = minimize_scalar(loss, bounds=(0, LARGEST), method="bounded").x
    return lambda p: expit(slope * log_odds(p))


def likelihood(raw, labels):
    """Platt's two numbers by (all but) likelihood alone; the classes' shares are taken out
    again."""
    regression = LogisticRegression(C=1e4, max_iter=1000).fit(log_odds(raw)[:, None], labels)
    slope = min(regression.coef_[0, 0], LARGEST)
    offset = regression.intercept_[0] - log_share(labels)
    return lambda p: expit(slope * log_odds(p) + offset)


def smoothed(raw, labels):
    """Platt's own remedy: targets (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) in place of 1 and 0."""
    z, unsafe, normal = log_odds(raw), labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (unsafe + 1) / (unsafe + 2), 1 / (normal + 2))

    def loss(parameters):
        v = parameters[0] * z + parameters[1]
        return -(target * log_expit(v) + (1 - target) * log_expit(-v)).sum()

    bounds = [(1e-6, LARGEST), (None, None)]
    slope, offset = minimize(loss, [0.5, 0.0], method="L-BFGS-B", bounds=bounds).x
    return lambda p: expit(slope * log_odds(p) + offset - log_share(labels))


def log_share(labels):
    """Log-odds of the share of unsafe clips."""
    return np.log(labels.sum() / (1 - labels).sum())


WAYS = {
    "raw": lambda raw, labels: IDENTITY,
    "temperature": temperature,
    "Platt, likelihood alone": likelihood,
    "Platt, smoothed targets": smoothed,
    "Platt with a prior (used)": fit_calibration,
}


# ---- scores


class Scores:
    """Raw probabilities of all detectors of a folder.

    Attributes:
        by_detector: {(group, step): (validation raw, labels, held-out raw, labels)}, [N] each.
        steps: sorted numbers.
    """

    def __init__(self, args):
        from MagicTime.utils.clip_sources import open_recordings

        self.source = open_recordings(args.config, "cpu")
        self.split = load_split(args.eval_dir)
        places = set()
        for path in args.model_dir.glob("[0-9]*/[0-9]*.pth"):
            places.add((int(path.parent.name), int(path.stem)))
        if not places:
            raise InputError(
                f"--model_dir {args.model_dir}: no detectors {{group}}/{{step}}.pth here; run "
                "train_mae.py"
            )
        self.steps = sorted({step for _, step in places})
        self.by_detector = {}
        for group, step in progress(sorted(places), "scores", unit="detector"):
            detector = load_detector(detector_path(args.model_dir, group, step))
            validation = self._validation(detector, step)
            self.by_detector[group, step] = *validation, *self._held_out(detector, group, step)

    def _validation(self, detector, step):
        """(raw probabilities, labels) of the clips that the training kept for validation."""
        rows, settings = detector.about["rows"], detector.about["settings"]
        labels = torch.tensor([1] * len(rows["unsafe"]) + [0] * len(rows["normal"]))
        kept = stratified(labels, settings["validation"], settings["seed"])[1]
        clips = self._read(rows["unsafe"], rows["normal"], step)
        return predict(detector, clips[kept]).numpy(), labels[kept].numpy()

    def _held_out(self, detector, group, step):
        """(raw probabilities, labels) of the category's held-out clips and the normal ones."""
        unsafe = [row for row in self.source.group_rows(group, step) if row in self.split.unsafe]
        normal = self.split.normal
        clips = self._read(unsafe, normal, step)
        labels = np.repeat([1, 0], [len(unsafe), len(normal)])
        return predict(detector, clips).numpy(), labels

    def _read(self, unsafe, normal, step):
        """Clips of a step, [N, C, F, H, W]: unsafe rows, then normal ones."""
        clips = [self.source.read("unsafe", unsafe, step)]
        clips.append(self.source.read("normal", normal, step))
        return torch.cat(clips)

    def of_steps(self, steps):
        """The entries of `by_detector` of these steps."""
        return [entry for (_, step), entry in self.by_detector.items() if step in steps]


def held_out(way, scores, steps):
    """Errors on held-out clips."""
    pairs = []
    for raw, labels, new_raw, new_labels in scores.of_steps(steps):
        pairs.append((way(raw, labels)(new_raw), new_labels))
    return errors(pairs)


def left_out(way, scores, steps):
    """Errors on validation clips, each left out of the fit in turn."""
    pairs = []
    for raw, labels, *_ in scores.of_steps(steps):
        probabilities = []
        for k in range(len(raw)):
            others = np.arange(len(raw)) != k
            probabilities.append(float(way(raw[others], labels[others])(raw[~others])[0]))
        pairs.append((np.array(probabilities), labels))
    return errors(pairs)


def errors(pairs):
    """Of (probabilities, labels) of several detectors, each and its classes weighted alike."""
    weights = np.concatenate([balanced_weights(labels) for _, labels in pairs]) / len(pairs)
    probabilities, labels = (np.concatenate(column) for column in zip(*pairs))
    return calibration_errors(probabilities[:, None], labels, weights[:, None])


def validation_clips(scores):
    """How many validation clips of each class a detector has, in words.

    Raises:
        InputError: when a detector has one of a class, which leaves none to fit to.
    """
    words = []
    for kind, label in (("unsafe", 1), ("normal", 0)):
        counts = [int((entry[1] == label).sum()) for entry in scores.by_detector.values()]
        if min(counts) < 2:
            raise InputError(
                "--model_dir: a detector has one validation clip of a class; two are needed to "
                "leave one out"
            )
        ends = sorted({min(counts), max(counts)})
        words.append(f"{'-'.join(map(str, ends))} {kind}")
    return " and ".join(words)


def work(args):
    need_positive(args, "every")
    read_recordings(args.config, "--config")
    need_path("--model_dir", args.model_dir, REPRODUCE)
    scores = Scores(args)
    title = f"Ways to calibrate {len(scores.by_detector)} detectors"
    report = Report(
        f"{title} on {validation_clips(scores)} validation clips each",
        results_path(args, RESULT_FILE),
    )
    weighted = "classes weighted alike"
    every = f"every {args.every}th step, {weighted}"
    parts = [
        ("held-out clips", weighted, held_out, scores.steps),
        ("held-out clips, first ten steps", weighted, held_out, scores.steps[:EARLY]),
        ("validation clips, each left out in turn", every, left_out, scores.steps[:: args.every]),
    ]
    for part, note, errors_of, steps in parts:
        rows = [(name, errors_of(way, scores, steps)) for name, way in progress(WAYS.items(), part)]
        report.add(part, note, rows)
    report.say_where()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
