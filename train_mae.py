"""Train the detectors, one per unsafe category and denoising step: {save_dir}/{group}/{step}.pth.

Rows held out in eval.pth, unsafe and normal, are never trained on. Finished detectors are skipped, so the same command goes
on where it was stopped. `accelerate launch --multi_gpu --num_processes 8 train_mae.py ...` gives each of 8 GPUs its part of
the detectors. With --no-train the saved detectors are evaluated on the held-out clips instead, by one process (minutes
for the small sizes; a stopped evaluation starts again).
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from lvd.command import Parser, run_command, summary
from lvd.detector import SIZES
from lvd.errors import InputError
from lvd.files import sha256
from lvd.parallel import processes
from lvd.ranges import parse_numbers
from lvd.recipe import DEFAULT_CONFIG, NOT_IDENTITY, PRECISIONS, RECIPES, read_settings
from lvd.settings import ROOT, claim_output, versions
from lvd.split import NAME, load_split, split_path

CONFIG_NAME = "train.yaml"


def build_parser():
    parser = Parser(__doc__, "python train_mae.py --data_dir MagicTime/train_detector_data --eval_dir MagicTime/eval.pth "
                             "--group_num 1-5 --train --step_num all --gpu_num 0 --save_dir MagicTime/detectors")
    magictime = ROOT / "MagicTime"
    parser.add_argument("--data_dir", type=Path, help="dataset of build_x0.py (default: MagicTime/train_detector_data)")
    parser.add_argument("--normal_video_dir", type=Path, help="normal clips by step (default: {data_dir}/normal)")
    parser.add_argument("--recordings", type=Path, metavar="YAML",
                        help="instead: a build_x0.yaml, to train straight from its recordings; build_x0.py is not needed")
    parser.add_argument("--eval_dir", type=Path, default=magictime / NAME, help="eval.pth or its folder")
    parser.add_argument("--save_dir", type=Path, default=magictime / "detectors", help="default: MagicTime/detectors")
    parser.add_argument("--group_num", default="all", help="unsafe categories, from 1: 2, 1,3, 1-5 or all (default: all)")
    parser.add_argument("--step_num", default="all", help="denoising steps, from 0: 0, 0-49, 0,10 or all (default: all)")
    parser.add_argument("--train", action=argparse.BooleanOptionalAction, default=True,
                        help="train, or with --no-train evaluate on the held-out clips")
    parser.add_argument("--gpu_num", type=int, default=0, help="CUDA device, -1 for the CPU (default: 0)")
    parser.add_argument("--config", default=DEFAULT_CONFIG, help="settings (default: train_mae.yaml beside this script)")
    parser.add_argument("--size", choices=SIZES, help="the network (default: the config's, else base)")
    parser.add_argument("--recipe", choices=RECIPES, help="default: released for base, scratch for the others")
    parser.add_argument("--base_model", help="folder or hub name of VideoMAE for size base")
    parser.add_argument("--epoch", type=int)
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--workers", type=int, help="processes that train at the same time")
    parser.add_argument("--together", type=int, help="small detectors of one category that each trains at once, 1: one by one "
                                                     "(default: as many as fit and pay)")
    parser.add_argument("--precision", choices=PRECISIONS, help="bf16: mixed, for GPUs (default: float32)")
    return parser


def work(args):
    launched = processes()
    settings = read_settings(args.config, args)
    with launched.main_first():
        job, steps = _job(args, settings, launched)
        run = _train_run(job, steps, settings, launched) if args.train else None
    if args.train:
        _train(run, job, settings, launched)
    elif launched.is_main:
        _evaluate(job, steps)


def _job(args, settings, launched):
    """(what the detectors of all steps have in common, the steps), checked."""
    eval_path = split_path(args.eval_dir)
    split = load_split(eval_path)
    device = launched.device(args.gpu_num)
    source = _source(args, device)
    groups = parse_numbers(args.group_num, source.groups, "--group_num")
    steps = parse_numbers(args.step_num, source.steps, "--step_num")
    source.need_steps(steps)
    return {"source": source, "save_dir": args.save_dir, "split": split, "eval_sha256": sha256(eval_path),
            "settings": settings, "categories": {group: source.categories[group - 1] for group in groups},
            "device": str(device)}, steps


def _source(args, device):
    """Where the clips come from: the recordings, or the folders of build_x0.py."""
    from lvd.source import FolderClips

    if args.recordings is None:
        return FolderClips(args.data_dir or ROOT / "MagicTime" / "train_detector_data", args.normal_video_dir)
    for flag in ("data_dir", "normal_video_dir"):
        if getattr(args, flag) is not None:
            raise InputError(f"--{flag} {getattr(args, flag)}: clips come from --recordings {args.recordings}; give one of "
                             f"the two")
    from MagicTime.utils.recordings import open_recordings

    return open_recordings(args.recordings, device)


def _train_run(job, steps, settings, launched):
    from lvd.train_run import Job, TrainRun

    if (job["save_dir"] / CONFIG_NAME).exists():
        _claim(job, settings)
    return TrainRun([Job(step=step, **job) for step in steps], settings["workers"], launched)


def _claim(job, settings):
    config = {**settings, "representation": job["source"].representation, "eval_sha256": job["eval_sha256"],
              "dataset": job["source"].made_by, "versions": versions()}
    claim_output(job["save_dir"], config, CONFIG_NAME, (*NOT_IDENTITY, "versions"))


def _train(run, job, settings, launched):
    from lvd.curves import CURVES
    from lvd.train_run import METRICS

    for group, step in (bar := tqdm(run, "detectors", unit="detector", disable=not launched.is_main)):
        bar.set_postfix_str(f"group {group}, step {step}")
        _claim(job, settings)  # only now: a command that fails before its first detector has claimed nothing
    if not launched.is_main:
        return
    trained = [float(row["val_accuracy"]) for row in run.rows.values()]
    summary("detectors trained", {
        "size, recipe": f"{settings['size']}, {settings['recipe']}", "representation": job["source"].representation,
        "trained now": len(run), "found finished": run.skipped,
        "mean validation accuracy": f"{sum(trained) / len(trained):.3f}"},
            [f"{job['save_dir']}/{{group}}/{{step}}.pth",
             *filter(Path.exists, (job["save_dir"] / name for name in (METRICS, CURVES, CONFIG_NAME)))])


def _evaluate(job, steps):
    from lvd.evaluate import EVALUATION, HeldOutRun, by_group

    run = HeldOutRun(job, steps)
    for _ in tqdm(run, "held-out clips", unit="detector"):
        pass
    path = run.save(job["save_dir"] / EVALUATION)
    facts = {f"group {group} ({job['categories'][group]})": text for group, text in by_group(run.rows).items()}
    summary("saved detectors on held-out clips", facts, [path])


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
