"""What the guard costs and saves: sampling with a guard against sampling without one.

On Tiny (5 minutes), with the grid of detectors and with the shared one, all in one run. Memory:
MiB that the detectors add. Step: milliseconds of the sampler, and of reading its x0. Videos:
seconds of unsafe and normal prompts with and without guard, in turns. CPU seconds hardly feel what
else the machine does; seconds do. With --full (5 minutes on a CPU): a step at the size of Stable
Diffusion 1.5, with random weights, several on a GPU, one on a CPU.

Needs a grid (bash reproduce.sh) or a shared detector (train_mae.py --model shared), except with
--full. Results: guard_cost.csv and .txt; with --full guard_cost_full.csv and .txt.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.common import full_size
from benchmarks.common.flags import (
    add_gpu,
    add_rule_or_file,
    add_sampling_config,
    need_positive,
    settle_rule,
)
from benchmarks.common.needs import REPRODUCE, need_path, shared_detector
from benchmarks.common.results import add_result_flags
from benchmarks.common.timing import spread
from benchmarks.guard.step_cost import full_rows
from benchmarks.guard.tiny_cost import Tiny
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command
from lvd.utils.processes import pick_device

RESULT_FILE, FULL_RESULT_FILE = "guard_cost.csv", "guard_cost_full.csv"


def build_parser():
    parser = Parser(
        __doc__,
        "python benchmarks/guard/cost.py --grid MagicTime/detectors --shared MagicTime/shared",
    )
    add_sampling_config(parser)
    parser.add_argument("--grid", type=Path, help="folder of {group}/{step}.pth")
    parser.add_argument("--shared", type=Path, help="folder of shared.pth, or itself")
    add_rule_or_file(parser)
    parser.add_argument("--videos", type=int, default=8, help="prompts of each kind (default: 8)")
    parser.add_argument("--batch_size", type=int, default=8, help="(default: 8)")
    parser.add_argument("--repeats", type=int, default=2, help="of every whole run (default: 2)")
    full_size.add_full_flags(parser)
    add_gpu(parser)
    add_result_flags(parser, f"{RESULT_FILE} or {FULL_RESULT_FILE}")
    return parser


def measure_tiny(args, report):
    tiny = Tiny(args)
    report.add(
        "memory",
        f"of this process, when the detectors of the first {args.horizon} steps were loaded and "
        "used",
        tiny.memory,
    )
    rows = [row for batch in sorted({1, args.batch_size}) for row in tiny.step_rows(batch)]
    report.add(
        "step",
        f"of {args.config}: one guided denoising step, and reading its x0, medians of steps 0 to "
        f"{tiny.timed_steps - 1}",
        rows,
    )
    with tempfile.TemporaryDirectory() as folder:
        report.add(
            "videos",
            f"{args.videos} prompts of each kind in batches of {args.batch_size}, "
            f"{args.rule_in_words}, decoded and written; {args.repeats} run(s) of each, median",
            tiny.video_rows(Path(folder)),
        )


def measure_full(args, report):
    device = pick_device(args.gpu_num)
    seconds, note = full_size.measure_steps(device, args.dtype, 5)
    report.add("UNet step", note, [("seconds", spread(seconds))])
    step_seconds = statistics.median(seconds)
    report.add(
        "guarded step",
        "reading x0 at one step by random detectors of five categories in float32; percent of that "
        "step",
        full_rows(device, step_seconds, full_size.LATENTS, 5 * args.repeats),
    )


def need_detectors(args):
    """InputError, before anything is loaded, for detectors that are not there."""
    if not (args.grid or args.shared):
        raise InputError("--grid or --shared: detectors are needed")
    if args.grid:
        need_path("--grid", args.grid, REPRODUCE)
    if args.shared:
        need_path("--shared", args.shared, shared_detector(args.shared))


def work(args):
    need_positive(args, "repeats", "videos", "batch_size")
    args.horizon, args.rule_in_words = settle_rule(args)
    if not args.full:
        need_detectors(args)
    what = "what it adds and what it saves"
    tiny = f"The guard on Tiny: {what}", RESULT_FILE, measure_tiny
    full = f"The guard at full size: {what}", FULL_RESULT_FILE, measure_full
    full_size.measure_either(args, tiny, full)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
