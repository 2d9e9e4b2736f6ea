"""Train the detectors, one per unsafe category and denoising step: {save_dir}/{group}/{step}.pth.

With --model shared a single one is trained in their place, which is told the step and answers for
all categories: {save_dir}/shared.pth. With --names a network is trained besides that tells the
categories from each other: {save_dir}/names.pth. With --init they start from an encoder of
pretrain_mae.py.

With --folds K every training video is also scored by detectors that never saw it, as rules are
chosen on: {save_dir}/folds.pth. It takes K trainings more.

Rows held out in eval.pth, unsafe and normal, are never trained on. Finished detectors are skipped,
so the same command goes on where it was stopped. `accelerate launch --multi_gpu --num_processes 8
train_mae.py ...` gives each of 8 GPUs its part of the detectors. With --no-train the saved
detectors are evaluated on the held-out clips instead, by one process (minutes for the small sizes;
a stopped evaluation starts again): evaluation.csv, and classification_{group}.txt as in the paper.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from lvd.data.identity import need_same_labels
from lvd.data.split import load_split, split_path
from lvd.detectors.bank import SHARED
from lvd.detectors.pretrained import load_pretrained
from lvd.detectors.step_inputs import STEP_INPUTS
from lvd.errors import InputError, plural
from lvd.evaluation.held_out import EVALUATION, HeldOutRun, by_group
from lvd.training.curves import CURVES
from lvd.training.flags import MAGICTIME, add_common_flags
from lvd.training.folds import Folds
from lvd.training.given import need_effect, need_trained_so
from lvd.training.grid_run import TrainRun
from lvd.training.job import METRICS, Job
from lvd.training.machines import need_one_run
from lvd.training.names import names_run, train_names
from lvd.training.recipes import NO_EFFECT_ON_WEIGHTS, RECIPES, read_settings
from lvd.training.resumable import ResumableRun
from lvd.training.shared import SharedTask
from lvd.training.told import validation_facts
from lvd.utils.cli import Parser, parse_numbers, run_command, summary
from lvd.utils.config import claim_output, versions
from lvd.utils.files import load_yaml, sha256
from lvd.utils.processes import processes
from lvd.utils.progress import progress
from MagicTime.utils.clip_sources import training_clips

CONFIG_NAME = "train.yaml"


def build_parser():
    parser = Parser(
        __doc__,
        "python train_mae.py --data_dir MagicTime/train_detector_data --eval_dir "
        "MagicTime/eval.pth --group_num all --train --step_num all --gpu_num 0 --save_dir "
        "MagicTime/detectors",
    )
    add_common_flags(parser, MAGICTIME / "detectors")
    parser.add_argument(
        "--group_num",
        default="all",
        help="unsafe categories, from 1: 2, 1,3, 1-5 or all (default: all)",
    )
    parser.add_argument(
        "--train",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="train, or with --no-train evaluate on the held-out clips",
    )
    parser.add_argument(
        "--model",
        choices=("grid", "shared"),
        help="grid: a detector per category and step, as in the paper; shared: one for all (by "
        "one process); default: grid, with --no-train what --save_dir holds",
    )
    parser.add_argument(
        "--step_input",
        choices=STEP_INPUTS,
        help="of --model shared: it is told the step by a table of numbers, or by its noise "
        "level, which also lies between steps (default: table)",
    )
    parser.add_argument(
        "--init", type=Path, metavar="FILE", help="pretrained.pth of pretrain_mae.py to start from"
    )
    parser.add_argument(
        "--names",
        action="store_true",
        help="also train names.pth, which says of what category an unsafe video is (by one "
        "process); the detectors stay as they are",
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="of the grid; default: released for base, scratch for the others",
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="also draw the training videos into K parts, and score each by detectors that are "
        "trained on the others: {save_dir}/folds.pth, for choose_rule.py (K times the training)",
    )
    parser.add_argument("--workers", type=int, help="processes that train at the same time")
    parser.add_argument(
        "--together",
        type=int,
        help="small detectors of one category that each trains at once, 1: one by one "
        "(default: as many as fit and pay)",
    )
    return parser


def work(args):
    launched = processes()
    model = _model(args)
    if args.names and not args.train:
        raise InputError("--names: --no-train trains nothing; leave it out")
    settings = read_settings(args.config, args, model)
    need_effect(args, settings, model)
    if args.folds is not None and not args.train:
        raise InputError("--folds: --no-train trains nothing; leave one of the two out")
    with launched.main_first():
        job = _job(args, settings, launched)
        run = None
        folds = Folds(job, args.folds, model, launched) if args.folds is not None else None
        if args.train and model == "grid":
            run = _grid_run(job, launched)
        elif args.train:
            run = _shared_run(job, launched)
        names = names_run(job, args, launched) if args.names else None
    need_one_run(job, args, model, run, launched)
    if not args.train:
        if launched.is_main:
            _evaluate(job, args, model)
    elif model == "grid":
        _train_grid(run, job, launched)
    else:
        if launched.is_main:
            _train_shared(run, job, launched)
        launched.barrier()
    if names is not None:  # a finished run has the length 0
        if launched.is_main:
            train_names(names)
        launched.barrier()
    if folds:
        _train_folds(folds, launched)


def _model(args):
    """Return "grid" or "shared": which of the two is trained, or evaluated."""
    if args.train:
        return args.model or "grid"
    there = (args.save_dir / SHARED).exists()
    if args.model == "grid" and there:
        raise InputError(
            f"--model grid: {args.save_dir} holds {SHARED}, which --no-train evaluates; leave "
            "--model out, or name another folder"
        )
    if args.model == "shared" and not there:
        raise InputError(
            f"--model shared: {args.save_dir} holds no {SHARED} to evaluate; train it, or leave "
            "--model out"
        )
    return "shared" if there else "grid"


def _job(args, settings, launched):
    """Return the checked Job of these flags and settings."""
    job = open_job(args, settings, launched.device(args.gpu_num), need_normal=not args.train)
    groups = parse_numbers(args.group_num, job.source.groups, "--group_num")
    init = None
    if args.init is not None:
        init = load_pretrained(args.init)
        init.check(job.source.representation, job.eval_sha256, job.split, job.source.made_by)
    categories = {group: job.source.categories[group - 1] for group in groups}
    return replace(job, categories=categories, init=init)


def open_job(args, settings, device, labelled=True, need_normal=False):
    """Return the Job of these flags, without categories.

    Args:
        args: the flags of `add_common_flags`.
        settings: of `read_settings`.
        device: torch.device.
        labelled: False also takes recorded rows that no label names.
        need_normal: whether eval.pth must hold out normal rows.

    Raises:
        InputError: clips, labels and eval.pth do not belong together, or there are no such steps.
    """
    eval_path = split_path(args.eval_dir)
    split = load_split(eval_path, need_normal=need_normal)
    source = training_clips(args, device, labelled)
    need_same_labels(eval_path, split, source)
    steps = parse_numbers(args.step_num, source.steps, "--step_num")
    source.need_steps(steps)
    return Job(
        source=source,
        save_dir=args.save_dir,
        steps=steps,
        categories={},
        split=split,
        eval_sha256=sha256(eval_path),
        settings=settings,
        device=str(device),
    )


def _grid_run(job, launched):
    config = job.save_dir / CONFIG_NAME
    before = load_yaml(config) if config.exists() else {}
    claimed_by_shared = isinstance(before, dict) and before.get("model") == "shared"
    if claimed_by_shared or (job.save_dir / SHARED).exists():
        raise InputError(
            f"--save_dir {job.save_dir}: holds a shared detector; give another folder for the "
            "grid, or --model shared"
        )
    if config.exists():
        _claim(job, job.settings.as_dict())
    return TrainRun(job, launched)


def _shared_run(job, launched):
    missing = [group for group in job.source.groups if group not in job.categories]
    if missing:
        raise InputError(
            "--group_num: --model shared is trained for all categories at once, group "
            f"{missing[0]} is missing"
        )
    if (job.save_dir / CONFIG_NAME).exists():
        _claim(job, {"model": "shared", **job.settings.as_dict()})
    if not launched.is_main:
        job = replace(job, device="cpu")
    return ResumableRun(job, SharedTask(job))


def _claim(job, settings):
    """Write train.yaml, or check that the one in the folder says the same."""
    config = {
        **settings,
        "representation": job.source.representation,
        "eval_sha256": job.eval_sha256,
        "dataset": job.source.made_by,
        "init": job.init_sha256,
        "versions": versions(),
    }
    claim_output(job.save_dir, config, CONFIG_NAME, (*NO_EFFECT_ON_WEIGHTS, "versions"))


def _train_grid(run, job, launched):
    bar = progress(run, "detectors", unit="detector", disable=not launched.is_main)
    for group, step in bar:
        bar.set_postfix_str(f"group {group}, step {step}")
        # only now: a command that fails before its first detector claims no folder
        _claim(job, job.settings.as_dict())
    if not launched.is_main:
        return
    summary(
        "detectors trained",
        {
            "size, recipe": f"{job.settings.size}, {job.settings.recipe}",
            "representation": job.source.representation,
            "trained now": len(run),
            "found finished": run.skipped,
            "processes": _at_work(launched, job.settings.workers),
            **validation_facts(run.rows.values()),
        },
        [f"{job.save_dir}/{{group}}/{{step}}.pth", *_written(job, METRICS, CURVES, CONFIG_NAME)],
    )


def _train_shared(run, job, launched):
    bar = progress(run, "shared detector", unit="batch", total=run.total, initial=run.done)
    for loss in bar:
        bar.set_postfix_str(f"loss {loss:.3f}")
        # only now: a command that fails at once claims no folder
        if not (job.save_dir / CONFIG_NAME).exists():
            _claim(job, {"model": "shared", **job.settings.as_dict()})
    last = run.curve[-1]
    summary(
        "shared detector trained",
        {
            "size": job.settings.size,
            "representation": job.source.representation,
            "clips": f"{len(run.task.rows.videos)} videos x {len(job.steps)} steps, none held out",
            "validation": f"loss {last['val_loss']:.3f}, mean AUROC {last['val_auroc']:.3f}",
            "processes": _at_work(launched),
            **validation_facts(run.about["metrics"]),
        },
        [*run.written, *_written(job, METRICS, CONFIG_NAME)],
    )


def _train_folds(folds, launched):
    """Train and score fold after fold, and write folds.pth."""
    quiet = not launched.is_main
    for fold in folds.left:
        name = f"fold {fold.number} of {folds.count}"
        if folds.model == "grid":
            run = folds.training(fold)
            for _ in progress(run, f"{name}, detectors", unit="detector", disable=quiet):
                pass
        elif launched.is_main:
            run = folds.training(fold)
            for _ in progress(run, name, unit="batch", total=run.total, initial=run.done):
                pass
        if launched.is_main:
            for _ in progress(folds.scoring(fold), f"{name}, scores", unit="step"):
                pass
        launched.barrier()
    if not launched.is_main:
        return
    content = folds.save()
    title = "folds found finished" if folds.finished else "folds scored"
    written = [] if folds.finished else [folds.path, folds.config]
    summary(title, folds.facts(content), written)


def _written(job, *names):
    """Return the paths of those files that the folder holds."""
    paths = [job.save_dir / name for name in names]
    return [path for path in paths if path.exists()]


def _at_work(launched, workers=None):
    """Say how many processes trained: `workers` in each of the launched ones, or the main one."""
    if workers:
        return f"{launched.count} launched, up to {plural(workers, 'worker')} in each"
    others = f" (of {launched.count} launched)" if launched.count > 1 else ""
    return f"1{others}"


def _evaluate(job, args, model):
    run = HeldOutRun(job)
    need_trained_so(args, job.settings, model, job.init_sha256, run.bank.members.values())
    for _ in progress(run, "held-out clips", unit="step"):
        pass
    path = run.save(job.save_dir / EVALUATION)
    means = by_group(run.table())
    facts = {f"group {group} ({job.categories[group]})": means[group] for group in means}
    summary("saved detectors on held-out clips", facts, [path, *run.save_reports(job.save_dir)])


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
