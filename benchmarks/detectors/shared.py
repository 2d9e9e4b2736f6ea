"""The grid of detectors against one shared detector, and against that from pre-training (12
minutes).

Accuracy and AUROC by step, MB, seconds, operations. Everything is trained here, by the real
scripts, for each of several seeds (which change the validation rows too; the held-out rows stay).
Differences come with 95% intervals over the held-out videos, paired: both detectors judge the same
ones. What is finished in --work is not trained again. CPU seconds are those of the processes,
start-up included.

Needs bash reproduce.sh. Results: shared.csv, .txt and .png, and shared_by_step.csv.
"""

import sys
import time

import numpy as np
import pandas as pd
import torch

from benchmarks.common.figures import save_lines, title_of
from benchmarks.common.flags import add_eval_dir, add_recordings, add_size, add_work, chosen
from benchmarks.common.needs import read_recordings
from benchmarks.common.report import Report
from benchmarks.common.results import OUTPUTS, add_result_flags, results_path
from benchmarks.common.script_runs import claim_work, run_once
from benchmarks.common.seeds import by_step, mean_and_sd, parse_seeds
from lvd.data.split import load_split
from lvd.detectors.bank import detector_paths, load_bank
from lvd.evaluation.results import load_results
from lvd.evaluation.vote_report import balanced, counts, per_step, verdicts
from lvd.utils.cli import Parser, run_command
from lvd.utils.files import load_json, load_torch, save_csv
from lvd.utils.plots import drawn

CASES = {"grid": "the grid", "shared": "shared", "pretrained": "shared, pre-trained"}
POINTS = ((0.6, 3), (0.6, 5), (0.6, 20))  # (lambda, eta)
EARLY = 5  # steps
CLIPS = (1, 86)  # scored at once
PASSES = 15  # of which the fastest counts
DRAWS = 10_000  # of the held-out videos, for intervals
RESULT_FILE = "shared.csv"


def build_parser():
    parser = Parser(
        __doc__,
        "python benchmarks/detectors/shared.py --recordings build_x0.yaml --eval_dir "
        "MagicTime/eval.pth",
    )
    add_recordings(parser)
    add_eval_dir(parser)
    add_work(parser, OUTPUTS / "shared", "detectors and votes")
    add_result_flags(parser, RESULT_FILE)
    add_size(parser)
    parser.add_argument("--seeds", default="1,2,3", help="(default: 1,2,3)")
    parser.add_argument("--cases", default="all", help=f"some of {', '.join(CASES)} (default: all)")
    return parser


def work(args):
    seeds, cases = parse_seeds(args.seeds), chosen(args.cases, CASES, "--cases")
    settings = read_recordings(
        args.recordings, keys=("pred_x0", "normal_pred_x0", "label_file_dir")
    )
    claim_work(args.work, settings, args.eval_dir, size=args.size)
    title = "One detector for the whole grid against a detector for each category and step"
    report = Report(title, results_path(args, RESULT_FILE))
    runs = {case: [train(args, case, seed) for seed in seeds] for case in cases}
    report.add(
        "accuracy",
        f"held-out videos, mean and standard deviation over seeds {args.seeds}",
        [(CASES[case], accuracy_figures(runs[case])) for case in cases],
    )
    first, *others = cases
    if others:
        report.add(
            "difference in accuracy",
            f"to {CASES[first]}; from, to: a 95% interval over {DRAWS} draws of the held-out "
            "videos, the same for both, mean over the seeds",
            [(CASES[case], difference_figures(runs[first], runs[case])) for case in others],
        )
    report.add(
        "training",
        "CPU seconds of all processes, start-up included; files of all detectors",
        [(CASES[case], training_figures(runs[case])) for case in cases],
    )
    timed = [case for case in cases if case != "pretrained"]  # which has the shared one's network
    report.add(
        "inference",
        "one step, all categories; milliseconds are the least of several passes",
        [(CASES[case], inference_figures(runs[case][0]["folder"])) for case in timed],
    )
    split = load_split(args.eval_dir)
    detectors = f"{args.size} detectors"
    title = title_of(len(split.unsafe), len(split.normal), detectors, len(seeds))
    save_steps(report.out, runs, title)
    report.say_where()


def save_steps(out, runs, title):
    """{out}_by_step.csv, and the figure."""
    rows = []
    for case in runs:
        tables = [pd.DataFrame(run["per_step"]) for run in runs[case]]
        rows += [{"case": case, **row} for row in by_step(tables)]
    save_csv(rows, out.with_name(f"{out.stem}_by_step.csv"))
    names = {case: CASES[case] for case in runs}
    drawn(save_lines, rows, out.with_suffix(".png"), names, title)


# ---- training, by the scripts


def train(args, case, seed):
    """What came out for one case and seed; trained and scored unless that is done.

    Returns:
        {"folder": of the detectors, "videos": [(label, votes)], "times": {script: {"wall", "cpu"}},
        "per_step": rows of vote_report.per_step}.
    """
    folder = args.work / case / str(seed)
    detectors, results = folder / "detectors", folder / "results"
    common = ["--recordings", args.recordings, "--eval_dir", args.eval_dir, "--gpu_num", -1]
    own = ["--size", args.size, "--seed", seed]
    before = args.work / "pretraining" / str(seed)
    flags = [] if case == "grid" else ["--model", "shared"]
    if case == "pretrained":
        run_once(before, "pretrain_mae.py", *common, *own, "--save_dir", before)
        flags += ["--init", before / "pretrained.pth"]
    run_once(folder, "train_mae.py", *common, *own, *flags, "--save_dir", detectors)
    vote = ["--model_dir", detectors, "--save_dir", results, "--operating_point", "validation"]
    run_once(folder, "embed_model.py", *common, *vote)
    times = load_json(folder / "times.json")
    if case == "pretrained":
        times["pretrain_mae.py"] = load_json(before / "times.json")["pretrain_mae.py"]
    votes, steps = load_results(results)
    videos = balanced(votes)
    scores = load_torch(results / "scores.pth")
    rows = per_step(videos, steps, scores).to_dict("records")
    return {"folder": detectors, "videos": videos, "times": times, "per_step": rows}


# ---- figures


def accuracy_figures(runs):
    """Accuracy of verdicts and of steps' votes, and AUROC, over the seeds."""
    figures = {}
    for lambda_, eta in POINTS:
        values = [counts(*verdicts(run["videos"], lambda_, eta))["accuracy"] for run in runs]
        figures |= mean_and_sd(f"accuracy ({lambda_}, {eta})", values)
    early = f"0-{EARLY - 1}"
    figures |= mean_and_sd(f"step vote, {early}", mean_of_steps(runs, "accuracy", EARLY))
    figures |= mean_and_sd("all steps", mean_of_steps(runs, "accuracy"))
    return figures | mean_and_sd(f"AUROC, {early}", mean_of_steps(runs, "auroc any", EARLY))


def mean_of_steps(runs, quantity, first=None):
    """For each run the mean of a quantity over the first steps, None: all."""
    return [np.mean([row[quantity] for row in run["per_step"][:first]]) for run in runs]


def difference_figures(reference, runs):
    """Mean difference in accuracy at POINTS, and its interval. Unsafe and normal videos are drawn
    apart, as many as there are of each."""
    rng = np.random.default_rng(2024)
    labels = np.array([label for label, _ in reference[0]["videos"]])
    drawn = []
    for label in (0, 1):
        places = np.flatnonzero(labels == label)
        drawn.append(rng.choice(places, (DRAWS, len(places))))
    drawn = np.concatenate(drawn, 1)  # [DRAWS, N]
    figures = {}
    for point in POINTS:
        after = np.mean([right(run["videos"], *point) for run in runs], 0)
        before = np.mean([right(run["videos"], *point) for run in reference], 0)
        low, high = np.quantile((after - before)[drawn].mean(1), (0.025, 0.975))
        figures[f"{point}"] = float(np.mean(after - before))
        figures[f"{point} from"] = float(low)
        figures[f"{point} to"] = float(high)
    return figures


def right(videos, lambda_, eta):
    """Which videos get the right verdict, in their order: [N] of 0 and 1."""
    truth, said = verdicts(videos, lambda_, eta)
    return (np.array(truth) == np.array(said)).astype(float)


def training_figures(runs):
    """Mean CPU seconds of each script over the seeds, and the detectors' size on disk."""
    figures = {}
    for name in ("train", "pretrain", "embed"):
        script = "embed_model.py" if name == "embed" else f"{name}_mae.py"
        seconds = [run["times"].get(script, {}).get("cpu", 0.0) for run in runs]
        figures[f"{name} CPU s"] = float(np.mean(seconds))
    folder = runs[0]["folder"]
    paths = list(detector_paths(folder).values()) or [folder / "shared.pth"]
    figures["files"] = len(paths)
    figures["MB"] = sum(path.stat().st_size for path in paths) / 1e6
    return figures


def inference_figures(folder):
    """Weights, operations and milliseconds of the detectors in a folder."""
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(1)
    bank = load_bank(folder)
    config = bank.input_config(0)
    shape = (config.num_channels, config.num_frames, *config.image_size)
    files = {member.path for member in bank.members.values()}
    weights = load_torch(next(iter(bank.members.values())).path)["state_dict"]
    numbers = sum(value.numel() for value in weights.values())
    figures = {"weights in all": len(files) * numbers}
    with FlopCounterMode(display=False) as counter:
        bank.score(0, torch.zeros(CLIPS[-1], *shape))
    figures["MFLOP a clip"] = counter.get_total_flops() / CLIPS[-1] / 1e6
    for count in CLIPS:
        seconds = min(seconds_to_score(bank, torch.randn(count, *shape)) for _ in range(PASSES))
        figures[f"ms, {count} clip{'s' * (count > 1)}"] = 1e3 * seconds
    return figures


def seconds_to_score(bank, clips):
    began = time.perf_counter()
    bank.score(0, clips)
    return time.perf_counter() - began


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
