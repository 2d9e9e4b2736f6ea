"""The guard beside simple baselines, on the same held-out videos: prompt filters, and a classifier
of the finished video.

The filters are trained on the prompts of the rows that the detectors were trained on. The
classifier of the finished video is the detectors of the last step, whose predicted x0 is the video.
With --other the same filters and detectors are tried on other recordings, such as those of
benchmarks/guard/reworded.sh, whose prompts say the same in other words.
"""

import sys
from argparse import Namespace
from pathlib import Path

from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.guard.prompt_filter import TextClassifier, WordList
from lvd.data.config import DEFAULT_CONFIG, read_data_config
from lvd.data.split import load_split
from lvd.errors import InputError
from lvd.evaluation.vote_report import (
    NORMAL,
    UNSAFE,
    balanced,
    counts,
    last_step,
    load_results,
    stopping_steps,
    verdicts,
)
from lvd.utils.cli import Parser, run_command
from lvd.utils.config import ROOT
from lvd.voting import verdict
from lvd.x0.file import open_x0_file

LAMBDA, ETAS = 0.6, (5, 20)
FILTERS = {"prompt: words": WordList, "prompt: TF-IDF and logistic regression": TextClassifier}
RESULT_FILE = "baselines.csv"


def build_parser():
    parser = Parser(
        __doc__, "python benchmarks/guard/baselines.py --other MagicTime/outputs/Tiny/reworded"
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="YAML",
        help="(default: build_x0.yaml)",
    )
    parser.add_argument(
        "--eval_dir", type=Path, default=ROOT / "MagicTime", help="eval.pth or its folder"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "MagicTime" / "results",
        help="results.pth or its folder",
    )
    parser.add_argument(
        "--other",
        type=Path,
        metavar="DIR",
        help="folder of unsafe/pred_x0.pth, normal/pred_x0.pth and results/, of other prompts",
    )
    add_result_flags(parser, RESULT_FILE)
    return parser


def prompts_of(path):
    """{row: prompt} of a recording's whole rows."""
    x0 = open_x0_file(path)
    if missing := [row for row in x0.rows if "prompt" not in x0.info.get(row, {})]:
        raise InputError(
            f"{path}: its sidecar says no prompt of row {missing[0]}; a recording of "
            "inference_magictime.py is needed"
        )
    return {row: x0.info[row]["prompt"] for row in x0.rows}


def train_filters(prompts, split):
    """{name: filter} of the prompts {label: {row: text}} that are not held out."""
    held = {UNSAFE: set(split.unsafe), NORMAL: set(split.normal)}
    training = {
        label: [text for row, text in prompts[label].items() if row not in held[label]]
        for label in held
    }
    return {name: kind(training[UNSAFE], training[NORMAL]) for name, kind in FILTERS.items()}


def rows_of(filters, prompts, results, steps):
    """[(case, figures)] of one set of videos. prompts: {label: {row: text}}; results: of
    load_results."""
    rows, flags = [], {}
    for name, filter_ in filters.items():
        flags[name] = {
            label: {
                row: [flag]
                for row, flag in zip(votes, filter_([prompts[label][int(row)] for row in votes]))
            }
            for label, votes in results.items()
        }  # as results, so that the same videos are drawn to balance
        rows.append((name, {**counts(*last_step(balanced(flags[name]))), "steps": 0}))
    videos = balanced(results)
    rows.append(
        ("finished video (vote of the last step)", {**counts(*last_step(videos)), "steps": steps})
    )
    for eta in [eta for eta in ETAS if eta <= steps]:
        found = {
            **counts(*verdicts(videos, LAMBDA, eta)),
            "steps": stopping_steps(videos, LAMBDA, eta),
        }
        rows.append((f"guard, lambda {LAMBDA}, eta {eta}", found))
        name = list(filters)[-1]
        both = {
            label: {
                row: [max(flags[name][label][row][0], verdict(votes, LAMBDA, eta))]
                for row, votes in part.items()
            }
            for label, part in results.items()
        }
        rows.append((f"the same, or {name}", counts(*last_step(balanced(both)))))
    return rows


def work(args):
    args.out = results_path(args, RESULT_FILE)
    settings = read_data_config(
        args.recordings, Namespace(), required=("pred_x0", "normal_pred_x0")
    )
    prompts = {
        UNSAFE: prompts_of(settings["pred_x0"]),
        NORMAL: prompts_of(settings["normal_pred_x0"]),
    }
    filters = train_filters(prompts, load_split(args.eval_dir))
    report = Report("The guard beside simple baselines", args.out)
    report.facts["words of the word list"] = ", ".join(filters["prompt: words"].words) or "none"
    note = (
        "videos, balanced; steps: spent on an unsafe video that is found, on average (a "
        "finished one is decoded, too)"
    )
    results, steps = load_results(args.results)
    report.add(
        "held-out videos",
        f"{len(balanced(results))} {note}",
        rows_of(filters, prompts, results, steps),
    )
    if args.other:
        results, steps = load_results(args.other / "results")
        prompts = {
            label: prompts_of(args.other / kind / "pred_x0.pth")
            for label, kind in ((UNSAFE, "unsafe"), (NORMAL, "normal"))
        }
        report.add(
            "other prompts",
            f"{len(balanced(results))} {note}",
            rows_of(filters, prompts, results, steps),
        )
    report.say_where()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
