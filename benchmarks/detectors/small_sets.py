"""What to expect of a small data set: accuracy of the grid and of the shared detector by the number
of videos of each category (half an hour).

A set of N videos a category is drawn from the recordings, with as many normal videos as it has
unsafe ones. As gen_eval_set.py would, a fifth of it (at least one video a category) is left out,
and the detectors are trained on the rest. They are judged by the rule lambda 0.6 on all held-out
videos of the recordings, which are many more than a small set could hold out. Seeds change the
drawn videos, the validation videos and the training. What is finished in --work is not trained
again.

Needs bash reproduce.sh --scale full. Results: small_sets.csv and .txt.
"""

import sys

import numpy as np

from benchmarks.common.flags import add_eval_dir, add_recordings, add_work, chosen
from benchmarks.common.needs import read_recordings
from benchmarks.common.report import Report
from benchmarks.common.results import OUTPUTS, add_result_flags, results_path
from benchmarks.common.script_runs import claim_work, run_once
from benchmarks.common.seeds import mean_and_sd, parse_seeds
from benchmarks.detectors.pretraining import parse_counts
from lvd.data.labels import read_recorded_labels
from lvd.data.split import Split, load_split, save_split
from lvd.errors import InputError
from lvd.evaluation.results import load_results
from lvd.evaluation.vote_report import balanced, counts, verdicts
from lvd.utils.cli import Parser, run_command
from lvd.x0.file import open_x0_file

MODELS = {"grid": "the grid", "shared": "shared"}
LEAST = 3  # videos of a category: one is held out, one trained on, one for validation
POINTS = ((0.6, 5), (0.6, 20))  # (lambda, eta)
RESULT_FILE = "small_sets.csv"


def build_parser():
    parser = Parser(__doc__, "python benchmarks/detectors/small_sets.py --labels 3,10 --seeds 1")
    add_recordings(parser)
    add_eval_dir(parser)
    add_work(parser, OUTPUTS / "small_sets", "detectors and votes")
    add_result_flags(parser, RESULT_FILE)
    parser.add_argument("--seeds", default="1,2,3", help="(default: 1,2,3)")
    parser.add_argument(
        "--labels", default="3,5,10,20,40", help="videos of each category (default: 3,5,10,20,40)"
    )
    parser.add_argument("--models", default="all", help="grid, shared or all (default: all)")
    return parser


def work(args):
    seeds, sizes = parse_seeds(args.seeds), parse_counts(args.labels)
    models = chosen(args.models, MODELS, "--models")
    settings = read_recordings(
        args.recordings, keys=("pred_x0", "normal_pred_x0", "label_file_dir")
    )
    claim_work(args.work, settings, args.eval_dir)
    report = Report("What to expect of a small data set", results_path(args, RESULT_FILE))
    split = load_split(args.eval_dir, need_normal=True)
    report.facts["judged on"] = f"{len(split.unsafe)} unsafe and {len(split.normal)} normal videos"
    for size in sizes:
        sets = [write_set(args, settings, split, size, seed) for seed in seeds]
        for model in models:
            runs = [measure(args, model, size, seed) for seed in seeds]
            figures = {"trained on": sets[0]}
            for name in runs[0]:
                figures |= mean_and_sd(name, [run[name] for run in runs])
            note = f"held-out videos, mean and standard deviation over seeds {args.seeds}"
            report.add(f"{MODELS[model]}, videos of each category", note, [(str(size), figures)])
    report.say_where()


def write_set(args, settings, split, size, seed):
    """Write an eval.pth that holds out all videos but those that a small set trains on.

    Returns:
        How many videos of each category are trained on.
    """
    labels = read_recorded_labels(settings["label_file_dir"], settings["pred_x0"])
    kept = size if size == "all" else size - max(1, size // 5)
    if kept != "all" and size < LEAST:
        raise InputError(f"--labels {size}: {LEAST} videos of each category or more are needed")
    unsafe = set()
    for group, column in enumerate(labels.columns):
        free = sorted(set(column) - set(split.unsafe))
        drawn = np.random.default_rng([seed, group]).permutation(free).tolist()
        unsafe |= set(drawn if kept == "all" else drawn[:kept])
    free = sorted(set(open_x0_file(settings["normal_pred_x0"]).rows) - set(split.normal))
    normal = np.random.default_rng([seed]).permutation(free).tolist()[: len(unsafe)]
    small = Split(
        unsafe=[row for row in labels.rows() if row not in unsafe],
        normal=[*sorted(set(free) - set(normal)), *split.normal],
        seed=seed,
        label_sha256=split.label_sha256,
    )
    path = args.work / f"{size}-{seed}" / "eval.pth"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_split(small, path)
    return kept


def measure(args, model, size, seed):
    """Train on a small set, and judge the held-out videos of the recordings.

    Returns:
        {quantity: number}: accuracy, and the shares of unsafe and normal videos that are stopped.
    """
    folder = args.work / f"{size}-{seed}" / model
    detectors, results = folder / "detectors", folder / "results"
    common = ["--recordings", args.recordings, "--gpu_num", -1]
    small = ["--eval_dir", folder.parent / "eval.pth", "--seed", seed, "--model", model]
    run_once(folder, "train_mae.py", *common, *small, "--save_dir", detectors)
    vote = ["--eval_dir", args.eval_dir, "--model_dir", detectors, "--save_dir", results]
    # the same videos were held out of the training, and more of them
    run_once(folder, "embed_model.py", *common, *vote, "--allow_other_eval")
    videos = balanced(load_results(results)[0])
    figures = {}
    for lambda_, eta in POINTS:
        found = counts(*verdicts(videos, lambda_, eta))
        figures[f"accuracy, eta {eta}"] = found["accuracy"]
        figures[f"found, eta {eta}"] = found["tpr"]
        figures[f"stopped, eta {eta}"] = 1 - found["tnr"]
    return figures


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
