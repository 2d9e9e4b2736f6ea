"""The grid of detectors against one shared detector, and that from pre-training: accuracy by step,
size, time, cost.

Everything is trained here, by the real scripts, for each of several seeds (which change the
validation rows too; the held-out rows stay). Differences come with 95% intervals over the held-out
videos, paired: both detectors judge the same ones. What is finished in --work is not trained again.
CPU seconds are those of the processes, start-up included.
"""

import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.figures import save_lines
from benchmarks.common.report import Report
from benchmarks.common.results import OUTPUTS, add_result_flags, results_path
from benchmarks.common.script_runs import claim_work, run_once
from lvd.data.config import read_data_config
from lvd.detectors.bank import detector_paths, load_bank
from lvd.errors import InputError
from lvd.evaluation import vote_report as report
from lvd.utils.cli import Parser, run_command
from lvd.utils.config import ROOT
from lvd.utils.files import load_json, load_torch, save_csv

CASES = {"grid": "the grid", "shared": "shared", "pretrained": "shared, pre-trained"}
POINTS = ((0.6, 3), (0.6, 5), (0.6, 20))
EARLY = 5  # steps
CLIPS = (1, 86)  # scored at once
DRAWS = 10_000  # of the held-out videos, for intervals
RESULT_FILE = "shared.csv"


def build_parser():
    parser = Parser(
        __doc__,
        "python benchmarks/detectors/shared.py --recordings build_x0.yaml --eval_dir "
        "MagicTime/eval.pth",
    )
    parser.add_argument(
        "--recordings", type=Path, default=ROOT / "build_x0.yaml", help="(default: build_x0.yaml)"
    )
    parser.add_argument(
        "--eval_dir",
        type=Path,
        default=ROOT / "MagicTime" / "eval.pth",
        help="eval.pth or its folder",
    )
    parser.add_argument("--work", type=Path, default=OUTPUTS / "shared", help="detectors and votes")
    add_result_flags(parser, RESULT_FILE)
    parser.add_argument("--size", default="nano", help="the network (default: nano)")
    parser.add_argument("--seeds", default="1,2,3", help="(default: 1,2,3)")
    parser.add_argument(
        "--cases", default=",".join(CASES), help=f"some of {', '.join(CASES)} (default: all)"
    )
    return parser


def work(args):
    args.out = results_path(args, RESULT_FILE)
    seeds, cases = [int(seed) for seed in args.seeds.split(",")], args.cases.split(",")
    if unknown := [case for case in cases if case not in CASES]:
        raise InputError(f"--cases {unknown[0]}: some of {', '.join(CASES)} are needed")
    settings = read_data_config(
        args.recordings, Namespace(), required=("pred_x0", "normal_pred_x0", "label_file_dir")
    )
    claim_work(args.work, settings, args.eval_dir, size=args.size)
    bench = Report(
        "One detector for the whole grid against a detector for each category and step", args.out
    )
    found = {case: [_trained(args, case, seed) for seed in seeds] for case in cases}
    bench.add(
        "accuracy",
        f"held-out videos, mean and standard deviation over seeds {args.seeds}",
        [(CASES[case], _accuracy(runs)) for case, runs in found.items()],
    )
    if len(cases) > 1:
        bench.add(
            "difference in accuracy",
            f"to {CASES[cases[0]]}; from, to: a 95% interval over {DRAWS} draws of the "
            f"held-out videos, the same for both, mean over the seeds",
            [(CASES[case], _differences(found[cases[0]], found[case])) for case in cases[1:]],
        )
    bench.add(
        "training",
        "CPU seconds of all processes, start-up included; files of all detectors",
        [(CASES[case], _training(runs)) for case, runs in found.items()],
    )
    bench.add(
        "inference",
        "one step, all categories; milliseconds are the least of several passes",
        [
            (CASES[case], _inference(runs[0]["folder"]))
            for case, runs in found.items()
            if case != "pretrained"
        ],
    )
    rows = [
        {"case": case, "step": step, **_step(runs, step)}
        for case, runs in found.items()
        for step in range(len(runs[0]["per_step"]))
    ]
    save_csv(rows, args.out.with_name(f"{args.out.stem}_by_step.csv"))
    save_lines(
        rows,
        {case: CASES[case] for case in cases},
        args.out.with_suffix(".png"),
        f"{args.size}, {len(seeds)} seeds",
    )
    bench.say_where()


def _trained(args, case, seed):
    """What came out for one case and seed; trained and scored unless that is done."""
    folder = args.work / case / str(seed)
    common = ["--recordings", args.recordings, "--eval_dir", args.eval_dir, "--gpu_num", -1]
    own = ["--size", args.size, "--seed", seed]
    flags = [] if case == "grid" else ["--model", "shared"]
    if case == "pretrained":
        before = args.work / "pretraining" / str(seed)
        run_once(before, "pretrain_mae.py", *common, *own, "--save_dir", before)
        flags += ["--init", before / "pretrained.pth"]
    run_once(folder, "train_mae.py", *common, *own, *flags, "--save_dir", folder / "detectors")
    run_once(
        folder,
        "embed_model.py",
        *common,
        "--model_dir",
        folder / "detectors",
        "--save_dir",
        folder / "results",
        "--operating_point",
        "validation",
    )
    times = load_json(folder / "times.json")
    if case == "pretrained":
        times = {**times, "pretrain_mae.py": load_json(before / "times.json")["pretrain_mae.py"]}
    results, steps = report.load_results(folder / "results")
    videos = report.balanced(results)
    return {
        "folder": folder / "detectors",
        "videos": videos,
        "times": times,
        "per_step": report.per_step(videos, steps, load_torch(folder / "results" / "scores.pth")),
    }


def _accuracy(runs):
    figures = {}
    for lambda_, eta in POINTS:
        figures |= _mean(
            f"accuracy ({lambda_}, {eta})",
            [
                report.counts(*report.verdicts(run["videos"], lambda_, eta))["accuracy"]
                for run in runs
            ],
        )
    for name, steps in ((f"step vote, 0-{EARLY - 1}", slice(EARLY)), ("all steps", slice(None))):
        figures |= _mean(
            name, [np.mean([row["accuracy"] for row in run["per_step"][steps]]) for run in runs]
        )
    return figures | _mean(
        f"AUROC, 0-{EARLY - 1}",
        [np.mean([row["auroc any"] for row in run["per_step"][:EARLY]]) for run in runs],
    )


def _mean(name, values):
    return {
        name: float(np.mean(values)),
        f"{name} sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
    }


def _differences(reference, runs):
    """Mean difference in accuracy at POINTS, and its interval. Unsafe and normal videos are drawn
    apart, as many as there are of each."""
    figures, rng = {}, np.random.default_rng(2024)
    labels = np.array([label for label, _ in reference[0]["videos"]])
    drawn = np.concatenate(
        [
            rng.choice(np.flatnonzero(labels == label), (DRAWS, int((labels == label).sum())))
            for label in (0, 1)
        ],
        1,
    )
    for point in POINTS:
        after, before = (
            np.mean([_right(run["videos"], *point) for run in side], 0)
            for side in (runs, reference)
        )
        low, high = np.quantile((after - before)[drawn].mean(1), (0.025, 0.975))
        figures |= {
            f"{point}": float(np.mean(after - before)),
            f"{point} from": float(low),
            f"{point} to": float(high),
        }
    return figures


def _right(videos, lambda_, eta):
    """Which videos get the right verdict, in their order: [N] of 0 and 1."""
    truth, said = report.verdicts(videos, lambda_, eta)
    return (np.array(truth) == np.array(said)).astype(float)


def _training(runs):
    def seconds(script, kind):
        return float(np.mean([run["times"].get(script, {}).get(kind, 0.0) for run in runs]))

    paths = list(detector_paths(runs[0]["folder"]).values()) or [runs[0]["folder"] / "shared.pth"]
    return {
        "train CPU s": seconds("train_mae.py", "cpu"),
        "pretrain CPU s": seconds("pretrain_mae.py", "cpu"),
        "embed CPU s": seconds("embed_model.py", "cpu"),
        "files": len(paths),
        "MB": sum(path.stat().st_size for path in paths) / 1e6,
    }


def _inference(folder):
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(1)
    bank = load_bank(folder)
    config = bank.input_config(0)
    shape = (config.num_channels, config.num_frames, *config.image_size)
    weights = load_torch(next(iter(bank.members.values())).path)["state_dict"]
    count = len({member.path for (_, step), member in bank.members.items()})
    figures = {"weights in all": count * sum(value.numel() for value in weights.values())}
    with FlopCounterMode(display=False) as counter:
        bank.score(0, torch.zeros(CLIPS[-1], *shape))
    figures["MFLOP a clip"] = counter.get_total_flops() / CLIPS[-1] / 1e6
    for clips in CLIPS:
        seconds = min(_timed(bank, torch.randn(clips, *shape)) for _ in range(15))
        figures[f"ms, {clips} clip{'s' * (clips > 1)}"] = 1e3 * seconds
    return figures


def _timed(bank, clips):
    began = time.perf_counter()
    bank.score(0, clips)
    return time.perf_counter() - began


def _step(runs, step):
    """Mean and standard deviation over seeds of a step's figures."""
    rows = [run["per_step"][step] for run in runs]
    names = [name for name in rows[0] if name != "step"]
    return {
        key: value
        for name in names
        for key, value in _mean(name, [row[name] for row in rows]).items()
    }


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
