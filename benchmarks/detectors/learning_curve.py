"""How many labelled videos the shared detector needs: accuracy and cost on the held-out videos by
the number of labelled unsafe videos of each category (half an hour).

A video is unsafe as soon as the calibrated probability of any category reaches one bound. The bound
is the smallest, from 0.5 on, at which no more than --max_false_positive_rate of the normal
validation videos would be stopped; the held-out videos have no part in it. All normal videos that
are not held out are known to be normal. Seeds change which videos are labelled, the validation
videos and the training. What is finished in --work is not trained again.

Needs bash reproduce.sh. Results: learning_curve.csv, .txt and .png.
"""

import sys

import numpy as np

from benchmarks.common.figures import ends_of, panels_of, title_of
from benchmarks.common.flags import add_eval_dir, add_recordings, add_work
from benchmarks.common.needs import read_recordings
from benchmarks.common.report import Report
from benchmarks.common.results import OUTPUTS, add_result_flags, results_path
from benchmarks.common.script_runs import claim_work
from benchmarks.common.seeds import mean_and_sd, parse_seeds
from benchmarks.detectors.early_runs import EarlyRuns, Way
from benchmarks.detectors.few_labels import write_few_labels
from benchmarks.detectors.pretraining import parse_counts, without_label_file
from lvd.data.kinds import KIND_NORMAL, KIND_UNSAFE
from lvd.data.split import load_split
from lvd.errors import InputError
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.evidence import Evidence
from lvd.rules.rule import NEVER, costs
from lvd.utils.cli import Parser, parse_numbers, run_command
from lvd.utils.plots import SMALL, drawn, look_of, rate_limits, save_figure
from lvd.x0.file import open_x0_file

QUANTITIES = {
    "accuracy": "accuracy (unsafe and normal weigh the same)",
    "cost": "cost (share of the steps, missed videos in full)",
}
LEAST, MOST = 0.5, 1 - 1e-12  # bounds that make sense
RESULT_FILE = "learning_curve.csv"


def build_parser():
    parser = Parser(__doc__, "python benchmarks/detectors/learning_curve.py --labels 5,20,all")
    add_recordings(parser)
    add_eval_dir(parser)
    add_work(parser, OUTPUTS / "learning_curve", "detectors")
    add_result_flags(parser, RESULT_FILE)
    parser.add_argument("--seeds", default="1,2,3", help="(default: 1,2,3)")
    parser.add_argument(
        "--labels", default="5,10,20,40,80,all", help="labelled unsafe videos of each category"
    )
    parser.add_argument(
        "--steps",
        default="0-19",
        help="denoising steps to train and look at, from 0 on (default: 0-19)",
    )
    parser.add_argument(
        "--max_false_positive_rate", type=float, default=0.05, metavar="P", help="(default: 0.05)"
    )
    return parser


def work(args):
    seeds, counts = parse_seeds(args.seeds), parse_counts(args.labels)
    if not 0 <= args.max_false_positive_rate < 1:
        raise InputError(
            f"--max_false_positive_rate {args.max_false_positive_rate}: from 0 to below 1 is needed"
        )
    settings = read_recordings(
        args.recordings, keys=("pred_x0", "normal_pred_x0", "label_file_dir")
    )
    recorded = open_x0_file(settings["pred_x0"]).tensor.shape[1]
    steps = parse_numbers(args.steps, range(recorded), "--steps")
    if steps != list(range(len(steps))):
        raise InputError(f"--steps {args.steps}: all steps from 0 to one of them are needed")
    claim_work(args.work, settings, args.eval_dir, steps=steps)
    args.eval_dir = without_label_file(args)
    report = Report("Accuracy and cost by the number of labels", results_path(args, RESULT_FILE))
    report.facts["looked at"] = f"steps {args.steps} of {recorded}; cost is a share of {recorded}"
    report.facts["bound"] = (
        f"at most {args.max_false_positive_rate:g} of the normal validation videos are stopped"
    )
    rows = []
    for count in counts:
        found = [measure(args, count, seed, steps, recorded) for seed in seeds]
        row = {}
        for name in found[0]:
            row |= mean_and_sd(name, [each[name] for each in found])
        note = f"held-out videos, mean and standard deviation over seeds {args.seeds}"
        report.add("labels of each category", note, [(str(count), row)])
        rows.append({"labels": count, **row})
    split = load_split(args.eval_dir)
    title = title_of(len(split.unsafe), len(split.normal), "the shared detector", len(seeds))
    drawn(draw_figure, rows, report.out.with_suffix(".png"), title)
    report.say_where()


def measure(args, count, seed, steps, recorded):
    """Train with so many labels, choose the bound, and judge it on the held-out videos.

    Returns:
        {"accuracy", "found", "passed", "cost", "bound"}: shares of the videos, see QUANTITIES.
    """
    few = read_recordings(
        write_few_labels(args, count, seed), keys=("pred_x0", "normal_pred_x0", "label_file_dir")
    )
    outcome = EarlyRuns(few, args.eval_dir, steps, args.work).outcome(str(count), Way(), seed)
    bound = bound_for(outcome.validation, args.max_false_positive_rate)
    rule = ConfidenceRule(bound, horizon=len(steps))
    stops = {kind: rule.stops(evidence(outcome.log_odds[kind])) for kind in outcome.log_odds}
    found = float(np.mean(stops[KIND_UNSAFE] != NEVER))
    passed = float(np.mean(stops[KIND_NORMAL] == NEVER))
    return {
        "accuracy": (found + passed) / 2,
        "found": found,
        "passed": passed,
        "cost": float(np.mean(costs(stops[KIND_UNSAFE], recorded))),
        "bound": bound,
    }


def evidence(log_odds):
    """Return the Evidence of calibrated log-odds [N, S, G], without votes."""
    from scipy.special import expit

    return Evidence(says=np.zeros(log_odds.shape, bool), calibrated=expit(log_odds))


def bound_for(normal, rate):
    """Return the smallest bound at which few normal videos would be stopped.

    Args:
        normal: calibrated log-odds [N, S, G] of normal validation videos.
        rate: the largest share of them that may be stopped.

    Returns:
        A probability, at least 0.5.
    """
    largest = np.sort(evidence(normal).calibrated.max((1, 2)))[::-1]
    allowed = int(rate * len(largest))  # so many may be stopped, the next one may not
    return float(np.clip(np.nextafter(largest[allowed], 2), LEAST, MOST))


def draw_figure(rows, path, title):
    """Draw accuracy and cost over the number of labels, with standard deviations over seeds."""
    figure, axes = panels_of(len(QUANTITIES), most_columns=2)
    figure.set_size_inches(11, 4.8)
    for number, (axis, (name, label)) in enumerate(zip(axes.flat, QUANTITIES.items(), strict=True)):
        means = [row[name] for row in rows]
        deviations = [row[f"{name} sd"] for row in rows]
        axis.errorbar(range(len(rows)), means, deviations, capsize=4, **look_of(number))
        for place, (mean, following) in enumerate(zip(means, [*means[1:], 0])):
            off = (6, -13 if following > mean else 6)  # not where the line goes on
            beside = {"xytext": off, "textcoords": "offset points", "fontsize": SMALL}
            axis.annotate(f"{mean:.3f}", (place, mean), **beside)
        axis.set_xticks(range(len(rows)), [row["labels"] for row in rows])
        axis.set_xlim(-0.3, len(rows) - 0.3)  # room for the last number
        axis.set_ylim(rate_limits(*ends_of(rows, name)))
        axis.set(xlabel="labelled unsafe videos of each category", ylabel=label)
    figure.suptitle(title)
    save_figure(figure, path)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
