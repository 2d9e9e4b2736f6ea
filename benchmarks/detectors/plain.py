"""The project's way to train and use the whole grid of detectors against the plain way
(plain_way.py), in one run (10 minutes).

The plain way trains and embeds the detectors of all categories at some steps, which is multiplied
to the whole grid: it does the same for each detector. The project's ways run whole, by the commands
that a user types, their start included. All hold out the same videos. Figures: seconds, CPU
seconds, MB on disk, accuracy, and how many times less each of the project's ways takes.

Needs bash reproduce.sh. Results: plain.csv and .txt.
"""

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.flags import add_gpu, add_recordings, chosen, need_positive
from benchmarks.common.needs import read_recordings
from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.detectors.ways import Setup, run_plain, run_project
from lvd.data.labels import read_recorded_labels
from lvd.data.split import load_split
from lvd.detectors.videomae import SIZES
from lvd.evaluation.vote_report import counts, verdicts
from lvd.training.recipes import DEFAULT_CONFIG as TRAIN_CONFIG
from lvd.training.recipes import read_settings
from lvd.utils.cli import Parser, parse_numbers, run_command
from lvd.x0.file import open_x0_file

WAYS = {  # what is trained from what: (from clip files?, flags of train_mae.py)
    "grid, clip files": (True, []),
    "grid, recordings": (False, []),
    "shared, recordings": (False, ["--model", "shared"]),
}
PLAIN = "plain"
# Learning rates: the released one; the best of 1e-5, 3e-4, 1e-3 and 3e-3 for nano.
RATES = {"base": 1e-5, "small": 3e-4, "tiny": 3e-4, "nano": 3e-4}
LAMBDA, ETAS = "0.6", (1, 5, 20)
GOAL = {"train": 10, "embed": 10, "disk": 10, "accuracy": 0}
RESULT_FILE = "plain.csv"


def build_parser():
    parser = Parser(__doc__, "python benchmarks/detectors/plain.py")
    add_recordings(parser, "--config")
    parser.add_argument(
        "--train_config",
        type=Path,
        default=TRAIN_CONFIG,
        help="of the project's way (train_mae.yaml)",
    )
    parser.add_argument(
        "--steps", default="0-4,19,49", help="of the plain way, all or some (default: 0-4,19,49)"
    )
    parser.add_argument("--epoch", type=int, default=10, help="of the plain way (default: 10)")
    parser.add_argument(
        "--lr", type=float, help="of the plain way (default: 1e-5 for base, 3e-4 for the others)"
    )
    parser.add_argument(
        "--size", choices=SIZES, help="the network, of both (default: the train_config's)"
    )
    parser.add_argument(
        "--ways", default="all", help=f"the project's: all, none, or some of: {'; '.join(WAYS)}"
    )
    add_gpu(parser)
    parser.add_argument("--dir", help="folder to write in (default: a temporary one)")
    add_result_flags(parser, RESULT_FILE)
    return parser


def work(args):
    keys = ("sample_config", "pred_x0", "normal_pred_x0", "label_file_dir")
    settings = read_recordings(args.config, "--config", keys)
    x0 = open_x0_file(settings["pred_x0"])
    args.size = args.size or read_settings(args.train_config, Namespace()).size
    ways = [] if args.ways == "none" else chosen(args.ways, WAYS, "--ways", ";")
    need_positive(args, "epoch")
    all_steps = x0.tensor.shape[1]
    steps = parse_numbers(args.steps, range(all_steps), "--steps")
    labels = read_recorded_labels(settings["label_file_dir"], settings["pred_x0"])
    groups = len(labels.columns)
    if args.size != "base":
        # Small networks gain nothing by more threads, and lose much on a busy machine.
        torch.set_num_threads(1)
    model = settings["sample_config"]
    of_model = f" of {model.stem}" if isinstance(model, Path) else ""
    title = f"The project's way against the plain way: {args.size} detectors of recordings"
    report = Report(f"{title}{of_model}", results_path(args, RESULT_FILE))
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        setup = Setup(args, settings, Path(folder), steps, all_steps, groups)
        unused = setup.config("latent", "unused")
        setup.script("gen_eval_set.py", "--save_path", setup.eval_path, config=unused)
        setup.split = load_split(setup.eval_path)
        figures = {PLAIN: figures_of_plain(setup, report)}
        for way in ways:
            outcome = run_project(setup, way, *WAYS[way])
            figures[way] = figures_of(setup, outcome)
    add_tables(report, setup, figures)
    report.say_where()


# ---- figures


def figures_of_plain(setup, report):
    """The plain way's figures in proportion to the whole grid; what was measured is reported."""
    lr = setup.args.lr or RATES[setup.args.size]
    outcome = run_plain(setup, lr)
    measured = figures_of(setup, outcome)
    measured["MB"].pop("together")
    report.add(
        "plain way as measured",
        f"{some_detectors(setup)} at steps {setup.args.steps}, {setup.args.epoch} epochs, "
        f"learning rate {lr:g}, one process of {torch.get_num_threads()} thread(s)",
        [(unit, measured[unit]) for unit in ("seconds", "CPU seconds", "MB")],
    )
    return figures_of(setup, outcome.scaled(setup.all_steps / len(setup.steps)))


def some_detectors(setup):
    """How many detectors the plain way makes, in words."""
    return f"{setup.groups * len(setup.steps)} of {setup.groups * setup.all_steps} detectors"


def figures_of(setup, outcome):
    """{part of the report: {quantity: number}} of one way."""
    megabytes = {part: size / 1e6 for part, size in outcome.disk.items()}
    accuracy = {"mean of steps": mean_accuracy(setup, outcome.votes, outcome.steps)}
    videos = [(int(label), votes) for label in "10" for votes in outcome.votes[label].values()]
    for eta in ETAS:
        if outcome.steps[:eta] == list(range(eta)):  # all of the first steps voted
            right = counts(*verdicts(videos, LAMBDA, eta))["accuracy"]
            accuracy[f"lambda {LAMBDA}, eta {eta}"] = right
    if outcome.argmax:
        mean = mean_accuracy(setup, outcome.argmax, outcome.steps)
        accuracy["argmax, mean of steps"] = mean
    return {
        "seconds": {part: float(value[0]) for part, value in outcome.spent.items()},
        "CPU seconds": {part: float(value[1]) for part, value in outcome.spent.items()},
        "MB": {**megabytes, "together": sum(megabytes.values())},
        "accuracy": accuracy,
    }


def mean_accuracy(setup, votes, steps):
    """Mean accuracy of the votes of the plain way's steps, each alone."""
    at = [steps.index(step) for step in setup.steps]
    unsafe, normal = (np.array(list(votes[label].values()))[:, at] for label in "10")
    return float(np.mean(np.concatenate([unsafe, 1 - normal])))


def add_tables(report, setup, figures):
    """The ways side by side, and each of the project's against the plain one."""
    known = read_settings(setup.args.train_config, Namespace())
    notes = {
        "seconds": f"the plain way's from {some_detectors(setup)}, in proportion; embed: votes of "
        f"all on {len(setup.split.unsafe)} unsafe and {len(setup.split.normal)} normal videos; "
        f"the project's trained by {known.workers} processes",
        "CPU seconds": "the same, of all processes together",
        "MB": "on the disk beside the recordings; the plain way's clips and detectors in "
        "proportion",
        "accuracy": f"mean of steps: of the vote of each of the steps {setup.args.steps} alone; "
        f"lambda {LAMBDA}: of the verdict; the plain way reads by argmax, the project's by "
        f"{known.operating_point} but where it says argmax",
    }
    for part, note in notes.items():
        report.add(part, note, [(way, by_part[part]) for way, by_part in figures.items()])
    rows = [(way, against(figures[PLAIN], figures[way])) for way in figures if way != PLAIN]
    if rows:
        report.add(
            "against the plain way",
            "how many times faster, and smaller on the disk; accuracy: the difference of the "
            "means of steps",
            [("goal, at least", GOAL), *rows],
        )


def against(plain, way):
    """How many times less a way takes than the plain one."""
    seconds, whole = way["seconds"], plain["seconds"]
    cpu, cpu_whole = way["CPU seconds"], plain["CPU seconds"]
    return {
        "train": whole["train"] / seconds["train"],
        "embed": whole["embed"] / seconds["embed"],
        "clips, train and embed": sum(whole.values()) / sum(seconds.values()),
        "train, CPU": cpu_whole["train"] / cpu["train"],
        "embed, CPU": cpu_whole["embed"] / cpu["embed"],
        "disk": plain["MB"]["together"] / way["MB"]["together"],
        "accuracy": way["accuracy"]["mean of steps"] - plain["accuracy"]["mean of steps"],
    }


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
