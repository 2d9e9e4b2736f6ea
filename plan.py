"""Tell what a study will take before it is paid for: disk, memory, and hours on one GPU and on
several.

For every step of reproduce.sh: what it makes, what is there already and would be skipped, disk,
memory, hours. Nothing is sampled and no weights are loaded. Hours come from exact counts of
operations and from rates: --calibrate measures them on this machine in about a minute and keeps
them beside the results, --card takes those of a card's data sheet. With --check only what makes the
run impossible is looked for, in seconds. docs/plan.md says what is counted, and how sure it is.
"""

import sys
from pathlib import Path

from lvd.data.config import DEFAULT_CONFIG
from lvd.errors import InputError
from lvd.training.recipes import DEFAULT_CONFIG as TRAIN_CONFIG
from lvd.utils.cli import Parser, run_command

MOST_VIDEOS, MOST_GPUS = 10_000_000, 10_000


def build_parser():
    parser = Parser(
        __doc__,
        "python plan.py --config my.yaml --prompts unsafe.txt --normal_prompts normal.txt "
        "--card H100 --gpus 8",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        help="a file like build_x0.yaml (default: build_x0.yaml beside this script)",
    )
    parser.add_argument("--prompts", type=Path, help="unsafe prompts, one a line")
    parser.add_argument("--normal_prompts", type=Path, help="normal prompts, one a line")
    parser.add_argument(
        "--videos", type=int, metavar="N", help="instead of --prompts: how many unsafe ones"
    )
    parser.add_argument(
        "--normal_videos", type=int, metavar="N", help="instead of --normal_prompts: how many"
    )
    parser.add_argument(
        "--train_config",
        type=Path,
        default=TRAIN_CONFIG,
        help="a file like train_mae.yaml (default: train_mae.yaml beside this script)",
    )
    parser.add_argument(
        "--model",
        choices=("grid", "shared", "both"),
        default="both",
        help="which detectors reproduce.sh trains (default: both)",
    )
    parser.add_argument(
        "--folds",
        action="store_true",
        help="the folds of the grid, too, as reproduce.sh --scale full trains them",
    )
    parser.add_argument(
        "--check", action="store_true", help="only look for what makes the run impossible"
    )
    _add_rates(parser)
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="also write the plan: .csv, .md or .txt"
    )
    return parser


def _add_rates(parser):
    from lvd_plan.rates import card_names

    rates = parser.add_argument_group("how fast the machine is")
    rates.add_argument(
        "--calibrate", action="store_true", help="measure this machine, in about a minute"
    )
    rates.add_argument(
        "--card",
        metavar="NAME",
        help=f"a card's data sheet: {', '.join(card_names())} (lvd_plan/cards.yaml)",
    )
    rates.add_argument(
        "--rates", type=Path, metavar="FILE", help="a plan_rates.json of another machine"
    )
    rates.add_argument(
        "--gpu_num", type=int, default=0, help="CUDA device, -1 for the CPU (default: 0)"
    )
    rates.add_argument("--gpus", type=int, default=1, help="how many GPUs share work (default: 1)")


def work(args):
    from lvd_plan.check import check
    from lvd_plan.inputs import read_inputs

    _need_fit(args)
    inputs = read_inputs(args, need_weights=args.videos is None)
    if args.check:
        for line in check(inputs, args.model):
            print(line)
        return
    _plan(args, inputs)


def _plan(args, inputs):
    from lvd_plan.counts import count
    from lvd_plan.disk import need_disk
    from lvd_plan.study_plan import StudyPlan
    from lvd_plan.table import as_cells, as_notes, as_text, save, short

    rates = _rates(args, inputs)
    plan = StudyPlan(inputs, count(inputs), args.model)
    if args.calibrate:
        rates = _measured(args, inputs, plan)
    title = f"plan of {short(args.config)}, sampled by {short(inputs.sampling.path)}"
    rows, notes = plan.rows(rates, args.gpus), plan.notes(rates, args.gpus)
    print(f"{title}\n\n{as_text(*as_cells(rows, args.gpus))}\n\n{as_notes(notes)}")
    if args.save:
        save(args.save, title, rows, args.gpus, notes)
        print(f"  wrote {args.save}")
    if inputs.prompts is not None:
        need_disk(plan.pieces)


def _rates(args, inputs):
    """Return the Rates that the flags name, or those at hand; None where there are none."""
    from lvd.utils.processes import pick_device
    from lvd_plan.inputs import is_many_lanes
    from lvd_plan.rates import (
        NAME,
        card_of_device,
        load_rates,
        rates_named,
        rates_of_card,
        rates_of_cpu,
    )

    if args.card:
        return rates_named(args.card)
    kept = args.rates or inputs.home / NAME
    if args.rates or (kept.exists() and not args.calibrate):
        return load_rates(kept)
    import torch

    if args.gpu_num < 0 or not torch.cuda.is_available():
        return rates_of_cpu() if is_many_lanes(inputs) else None
    card = card_of_device(torch.cuda.get_device_name(pick_device(args.gpu_num)))
    return rates_of_card(card) if card else None


def _measured(args, inputs, plan):
    """Measure Rates on this machine, and keep them beside the results."""
    from lvd.utils.processes import pick_device
    from lvd_plan.calibrate import Calibration
    from lvd_plan.rates import NAME

    device = pick_device(args.gpu_num)
    calibration = Calibration(inputs, plan.workload, device, args.model, inputs.home)
    return calibration.run(inputs.home / NAME)


def _need_fit(args):
    """Refuse flags that do not go together."""
    from lvd_plan.table import need_suffix

    numbers = {"--videos": args.videos, "--normal_videos": args.normal_videos}
    given = [flag for flag, value in numbers.items() if value is not None]
    if args.folds and args.model == "shared":
        raise InputError("--folds: those of the grid; it does not go with --model shared")
    for flag in given:
        if not 1 <= numbers[flag] <= MOST_VIDEOS:
            raise InputError(f"{flag} {numbers[flag]}: a number from 1 to {MOST_VIDEOS} is needed")
    if len(given) == 1:
        raise InputError(f"{given[0]}: --videos and --normal_videos are needed together")
    if given and (args.prompts or args.normal_prompts):
        raise InputError("--videos: stands in place of --prompts and --normal_prompts")
    if not 1 <= args.gpus <= MOST_GPUS:
        raise InputError(f"--gpus {args.gpus}: a number from 1 to {MOST_GPUS} is needed")
    ways = {"--calibrate": args.calibrate, "--card": args.card, "--rates": args.rates}
    chosen = [flag for flag, value in ways.items() if value]
    if len(chosen) > 1:
        raise InputError(f"{chosen[0]} and {chosen[1]}: one of the two is needed")
    if args.check and (chosen or args.save):
        raise InputError(f"--check: makes no table, {(chosen or ['--save'])[0]} changes nothing")
    if args.save:
        need_suffix(args.save)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
