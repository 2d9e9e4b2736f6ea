"""Tell what a study will take before it is paid for: disk, memory, and hours on one GPU and on
several.

For every step of reproduce.sh: what it makes, what is there already, disk, memory, hours. Nothing
is sampled, no weights are loaded. Hours come from exact counts of operations and from rates:
--calibrate measures them on this machine in about a minute, --card takes those of a card.
With --check only what makes the run impossible is looked for, in seconds. docs/plan.md says what
is counted, what is measured, and how sure it is.
"""

import sys
from pathlib import Path

from lvd.data.config import DEFAULT_CONFIG
from lvd.errors import InputError
from lvd.training.recipes import DEFAULT_CONFIG as TRAIN_CONFIG
from lvd.utils.cli import Parser, run_command


def build_parser():
    parser = Parser(
        __doc__,
        "python plan.py --config my.yaml --prompts unsafe.txt --normal_prompts normal.txt "
        "--card H100",
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
        "--check", action="store_true", help="only look for what makes the run impossible"
    )
    return parser


def work(args):
    from lvd_plan.check import check
    from lvd_plan.inputs import read_inputs

    _need_fit(args)
    inputs = read_inputs(args, need_weights=args.prompts is not None or args.videos is None)
    for line in check(inputs, args.model):
        print(line)


def _need_fit(args):
    """Refuse flags that do not go together."""
    numbers = {"--videos": args.videos, "--normal_videos": args.normal_videos}
    given = [flag for flag, value in numbers.items() if value is not None]
    for flag in given:
        if not 1 <= numbers[flag] <= 10_000_000:
            raise InputError(f"{flag} {numbers[flag]}: a number from 1 to 10000000 is needed")
    if len(given) == 1:
        raise InputError(f"{given[0]}: --videos and --normal_videos are needed together")
    if given and (args.prompts or args.normal_prompts):
        raise InputError("--videos: stands in place of --prompts and --normal_prompts")


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
