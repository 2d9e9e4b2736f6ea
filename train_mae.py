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

from lvd.clips import folder_representation
from lvd.command import Parser, run_command, summary
from lvd.dataset import dataset_groups, dataset_steps, group_name, need_built
from lvd.detector import SIZES
from lvd.errors import InputError
from lvd.files import load_yaml, sha256
from lvd.parallel import processes
from lvd.ranges import parse_numbers
from lvd.recipe import DEFAULT_CONFIG, NOT_IDENTITY, RECIPES, read_settings
from lvd.settings import ROOT, claim_output, versions
from lvd.split import NAME, load_split, split_path

CONFIG_NAME = "train.yaml"


def build_parser():
    parser = Parser(__doc__, "python train_mae.py --data_dir MagicTime/train_detector_data --eval_dir MagicTime/eval.pth "
                             "--group_num 1-5 --train --step_num all --gpu_num 0 --save_dir MagicTime/detectors")
    magictime = ROOT / "MagicTime"
    parser.add_argument("--data_dir", type=Path, default=magictime / "train_detector_data", help="dataset of build_x0.py")
    parser.add_argument("--normal_video_dir", type=Path, help="normal clips by step (default: {data_dir}/normal)")
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
    groups = parse_numbers(args.group_num, dataset_groups(args.data_dir), "--group_num")
    steps = parse_numbers(args.step_num, dataset_steps(args.data_dir), "--step_num")
    from lvd.train import normal_folder

    normal = normal_folder(args.data_dir, args.normal_video_dir)
    representation = folder_representation(args.data_dir)
    if folder_representation(normal) != representation:
        raise InputError(f"--normal_video_dir {normal}: {folder_representation(normal)} clips, {args.data_dir} holds "
                         f"{representation} ones")
    need_built(args.data_dir, steps)
    names = _categories(args.data_dir)
    return {"data_dir": args.data_dir, "normal_dir": normal, "save_dir": args.save_dir, "split": split,
            "eval_sha256": sha256(eval_path), "settings": settings, "representation": representation,
            "categories": {group: names[group - 1] for group in groups}, "all_categories": names,
            "made_by": _made_by(args.data_dir, normal), "device": str(launched.device(args.gpu_num))}, steps


def _train_run(job, steps, settings, launched):
    from lvd.train_run import Job, TrainRun

    if (job["save_dir"] / CONFIG_NAME).exists():
        _claim(job, settings)
    return TrainRun([Job(step=step, **job) for step in steps], settings["workers"], launched)


def _claim(job, settings):
    config = {**settings, "representation": job["representation"], "eval_sha256": job["eval_sha256"],
              "dataset": job["made_by"], "versions": versions()}
    claim_output(job["save_dir"], config, CONFIG_NAME, (*NOT_IDENTITY, "versions"))


def _train(run, job, settings, launched):
    from lvd.train_run import METRICS

    for group, step in (bar := tqdm(run, "detectors", unit="detector", disable=not launched.is_main)):
        bar.set_postfix_str(f"group {group}, step {step}")
        _claim(job, settings)  # only now: a command that fails before its first detector has claimed nothing
    if not launched.is_main:
        return
    trained = [float(row["val_accuracy"]) for row in run.rows.values()]
    summary("detectors trained", {
        "size, recipe": f"{settings['size']}, {settings['recipe']}", "representation": job["representation"],
        "trained now": len(run), "found finished": run.skipped,
        "mean validation accuracy": f"{sum(trained) / len(trained):.3f}"},
            [f"{job['save_dir']}/{{group}}/{{step}}.pth", job["save_dir"] / METRICS, job["save_dir"] / CONFIG_NAME])


def _evaluate(job, steps):
    from lvd.evaluate import EVALUATION, HeldOutRun, by_group

    run = HeldOutRun(job, steps)
    for _ in tqdm(run, "held-out clips", unit="detector"):
        pass
    path = run.save(job["save_dir"] / EVALUATION)
    facts = {f"group {group} ({job['categories'][group]})": text for group, text in by_group(run.rows).items()}
    summary("saved detectors on held-out clips", facts, [path])


def _categories(data_dir):
    """Display names of all categories of the dataset: the label file's header, as build_x0.py saved it; else the
    folders' names."""
    names = list(_dataset_config(data_dir).get("categories") or [])
    return names + [group_name(group) for group in range(len(names) + 1, dataset_groups(data_dir)[-1] + 1)]


def _made_by(data_dir, normal_dir):
    """What made the clips: as build_x0.py saved it beside them (None: not known)."""
    found, normal = _dataset_config(data_dir), _dataset_config(normal_dir.parent)
    return {"label_sha256": found.get("label_sha256"), "pred_x0_made_by": found.get("pred_x0_made_by"),
            "normal_pred_x0_made_by": normal.get("normal_pred_x0_made_by")}


def _dataset_config(data_dir):
    path = Path(data_dir) / "config.yaml"
    return load_yaml(path) if path.exists() else {}


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
