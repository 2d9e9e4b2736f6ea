"""Train the detectors, one per unsafe category and denoising step: {save_dir}/{group}/{step}.pth.

With --model shared a single one is trained in their place, which is told the step and answers for
all categories: {save_dir}/shared.pth. With --init they start from an encoder of pretrain_mae.py.

Rows held out in eval.pth, unsafe and normal, are never trained on. Finished detectors are skipped,
so the same command goes on where it was stopped. `accelerate launch --multi_gpu --num_processes 8
train_mae.py ...` gives each of 8 GPUs its part of the detectors. With --no-train the saved
detectors are evaluated on the held-out clips instead, by one process (minutes for the small sizes;
a stopped evaluation starts again).
"""

import argparse
import sys
from pathlib import Path

from lvd.data.split import NAME, load_split, split_path
from lvd.detectors.bank import SHARED
from lvd.detectors.videomae import SIZES
from lvd.errors import InputError
from lvd.training.recipes import (
    DEFAULT_CONFIG,
    NOT_IDENTITY,
    PRECISIONS,
    RECIPES,
    read_settings,
    run_settings,
)
from lvd.utils.cli import Parser, parse_numbers, run_command, summary
from lvd.utils.config import ROOT, claim_output, versions
from lvd.utils.files import load_yaml, sha256
from lvd.utils.processes import processes
from lvd.utils.progress import progress

CONFIG_NAME = "train.yaml"


def build_parser():
    parser = Parser(
        __doc__,
        "python train_mae.py --data_dir MagicTime/train_detector_data --eval_dir "
        "MagicTime/eval.pth --group_num 1-5 --train --step_num all --gpu_num 0 --save_dir "
        "MagicTime/detectors",
    )
    magictime = ROOT / "MagicTime"
    parser.add_argument(
        "--data_dir",
        type=Path,
        help="dataset of build_x0.py (default: MagicTime/train_detector_data)",
    )
    parser.add_argument(
        "--normal_video_dir", type=Path, help="normal clips by step (default: {data_dir}/normal)"
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="YAML",
        help=(
            "instead: a build_x0.yaml, to train straight from its recordings; build_x0.py is "
            "not needed"
        ),
    )
    parser.add_argument(
        "--eval_dir",
        type=Path,
        default=magictime / NAME,
        help="eval.pth or its folder (default: MagicTime/eval.pth)",
    )
    parser.add_argument(
        "--save_dir",
        type=Path,
        default=magictime / "detectors",
        help="default: MagicTime/detectors",
    )
    parser.add_argument(
        "--group_num",
        default="all",
        help="unsafe categories, from 1: 2, 1,3, 1-5 or all (default: all)",
    )
    parser.add_argument(
        "--step_num",
        default="all",
        help="denoising steps, from 0: 0, 0-49, 0,10 or all (default: all)",
    )
    parser.add_argument(
        "--train",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="train, or with --no-train evaluate on the held-out clips",
    )
    parser.add_argument(
        "--gpu_num", type=int, default=0, help="CUDA device, -1 for the CPU (default: 0)"
    )
    parser.add_argument(
        "--config",
        default=DEFAULT_CONFIG,
        help="settings (default: train_mae.yaml beside this script)",
    )
    parser.add_argument(
        "--model",
        choices=("grid", "shared"),
        default="grid",
        help=(
            "grid: a detector per category and step, as in the paper; shared: one for all (by "
            "one process)"
        ),
    )
    parser.add_argument(
        "--init", type=Path, metavar="FILE", help="pretrained.pth of pretrain_mae.py to start from"
    )
    parser.add_argument(
        "--size", choices=SIZES, help="the network (default: the config's, else base)"
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="of the grid; default: released for base, scratch for the others",
    )
    parser.add_argument("--base_model", help="folder or hub name of VideoMAE for size base")
    parser.add_argument("--epoch", type=int)
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--workers", type=int, help="processes that train at the same time")
    parser.add_argument(
        "--together",
        type=int,
        help="small detectors of one category that each trains at once, 1: one by one "
        "(default: as many as fit and pay)",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="bf16: mixed, for GPUs (default: float32)"
    )
    return parser


def work(args):
    launched = processes()
    there = (args.save_dir / SHARED).exists()
    if args.model == "shared" and not args.train and not there:
        raise InputError(
            f"--model shared: {args.save_dir} holds no {SHARED} to evaluate; train it, or leave "
            "--model out"
        )
    shared = args.model == "shared" or not args.train and there
    settings = (
        run_settings("shared", args.config, args) if shared else read_settings(args.config, args)
    )
    with launched.main_first():
        job, steps = _job(args, settings, launched)
        run = (
            (_shared_run if shared else _train_run)(job, steps, settings, launched)
            if args.train
            else None
        )
    if args.train and shared:
        _train_shared(run, job, settings, launched)
    elif args.train:
        _train(run, job, settings, launched)
    elif launched.is_main:
        _evaluate(job, steps)


def _job(args, settings, launched):
    """(what the detectors of all steps have in common, the steps), checked."""
    from lvd.data.identity import need_same_labels

    eval_path = split_path(args.eval_dir)
    split = load_split(eval_path, need_normal=not args.train)
    device = launched.device(args.gpu_num)
    source = clip_source(args, device)
    need_same_labels(eval_path, split, source)
    groups = parse_numbers(args.group_num, source.groups, "--group_num")
    steps = parse_numbers(args.step_num, source.steps, "--step_num")
    source.need_steps(steps)
    return {
        "source": source,
        "save_dir": args.save_dir,
        "split": split,
        "eval_sha256": sha256(eval_path),
        "settings": settings,
        "categories": {group: source.categories[group - 1] for group in groups},
        "device": str(device),
        "init": _init(args.init, source, split, sha256(eval_path)),
    }, steps


def _init(path, source, split, eval_sha256):
    """The encoder to start from, checked; None: none is named."""
    if path is None:
        return None
    from lvd.detectors.pretrained import load_pretrained

    found = load_pretrained(path)
    found.check(source.representation, eval_sha256, split, source.made_by)
    return found


def clip_source(args, device, labelled=True):
    """Where the clips come from: the recordings (all rows, unless only labelled ones), or the
    folders of build_x0.py."""
    from lvd.data.sources import FolderClips

    if args.recordings is None:
        return FolderClips(
            args.data_dir or ROOT / "MagicTime" / "train_detector_data", args.normal_video_dir
        )
    for flag in ("data_dir", "normal_video_dir"):
        if getattr(args, flag) is not None:
            raise InputError(
                f"--{flag} {getattr(args, flag)}: clips come from --recordings {args.recordings}; "
                "give one of the two"
            )
    from MagicTime.utils.clip_sources import open_recordings

    return open_recordings(args.recordings, device, labelled)


def _train_run(job, steps, settings, launched):
    from lvd.training.grid_run import Job, TrainRun

    claimed = job["save_dir"] / CONFIG_NAME
    before = load_yaml(claimed) if claimed.exists() else {}
    if (
        (job["save_dir"] / SHARED).exists()
        or isinstance(before, dict)
        and before.get("model") == "shared"
    ):
        raise InputError(
            f"--save_dir {job['save_dir']}: holds a shared detector; give another folder for the "
            "grid, or --model shared"
        )
    if claimed.exists():
        _claim(job, settings)
    return TrainRun([Job(step=step, **job) for step in steps], settings["workers"], launched)


def _claim(job, settings):
    config = {
        **settings,
        "representation": job["source"].representation,
        "eval_sha256": job["eval_sha256"],
        "dataset": job["source"].made_by,
        "init": job["init"].sha256 if job["init"] else None,
        "versions": versions(),
    }
    claim_output(job["save_dir"], config, CONFIG_NAME, (*NOT_IDENTITY, "versions"))


def _train(run, job, settings, launched):
    from lvd.training.curves import CURVES
    from lvd.training.grid_run import METRICS

    for group, step in (
        bar := progress(run, "detectors", unit="detector", disable=not launched.is_main)
    ):
        bar.set_postfix_str(f"group {group}, step {step}")
        _claim(
            job, settings
        )  # only now: a command that fails before its first detector has claimed nothing
    if not launched.is_main:
        return
    trained = [float(row["val_accuracy"]) for row in run.rows.values()]
    summary(
        "detectors trained",
        {
            "size, recipe": f"{settings['size']}, {settings['recipe']}",
            "representation": job["source"].representation,
            "trained now": len(run),
            "found finished": run.skipped,
            "mean validation accuracy": f"{sum(trained) / len(trained):.3f}",
            **_over_aim(run.rows.values()),
        },
        [
            f"{job['save_dir']}/{{group}}/{{step}}.pth",
            *filter(
                Path.exists, (job["save_dir"] / name for name in (METRICS, CURVES, CONFIG_NAME))
            ),
        ],
    )


def _over_aim(rows):
    """A line for the summary where normal validation clips score so high that no threshold is high
    enough, else none."""
    over = [row for row in rows if row.get("val_false_positives_met") is False]
    if not over:
        return {}
    first = ", ".join(f"{row['group']}/{row['step']}" for row in over[:5]) + (
        ", ..." if len(over) > 5 else ""
    )
    return {
        "more false positives than aimed at": f"{len(over)} of {len(rows)} (group/step {first}): too many normal "
        f"validation clips score 1"
    }


def _shared_run(job, steps, settings, launched):
    from lvd.training.shared import SharedRun

    if missing := [group for group in job["source"].groups if group not in job["categories"]]:
        raise InputError(
            "--group_num: --model shared is trained for all categories at once, group "
            f"{missing[0]} is missing"
        )
    if (job["save_dir"] / CONFIG_NAME).exists():
        _claim(job, {"model": "shared", **settings})
    return SharedRun(
        job["source"],
        job["split"],
        settings,
        steps,
        job["eval_sha256"],
        job["save_dir"],
        job["device"] if launched.is_main else "cpu",
        job["init"],
    )


def _train_shared(run, job, settings, launched):
    """By the main process alone; the others only wait for it to end."""
    from lvd.training.grid_run import METRICS

    if launched.is_main:
        bar = progress(run, "shared detector", unit="batch", total=run.total, initial=run.done)
        for loss in bar:
            if not (job["save_dir"] / CONFIG_NAME).exists():
                _claim(
                    job, {"model": "shared", **settings}
                )  # only now: a command that fails at once has claimed nothing
            bar.set_postfix_str(f"loss {loss:.3f}")
        summary(
            "shared detector trained",
            {
                "size": settings["size"],
                "representation": job["source"].representation,
                "clips": f"{len(run.rows.videos)} videos x {len(run.steps)} steps, none held out",
                "validation": (
                    f"loss {run.final['val_loss']:.3f}, mean AUROC {run.final['val_auroc']:.3f}"
                ),
                **_over_aim(run.about["metrics"]),
            },
            [
                *run.written,
                *filter(Path.exists, (job["save_dir"] / name for name in (METRICS, CONFIG_NAME))),
            ],
        )
    launched.barrier()


def _evaluate(job, steps):
    from lvd.evaluation.held_out import EVALUATION, HeldOutRun, by_group

    run = HeldOutRun(job, steps)
    for _ in progress(run, "held-out clips", unit="step"):
        pass
    path = run.save(job["save_dir"] / EVALUATION)
    facts = {
        f"group {group} ({job['categories'][group]})": text
        for group, text in by_group(run.table()).items()
    }
    summary("saved detectors on held-out clips", facts, [path])


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
