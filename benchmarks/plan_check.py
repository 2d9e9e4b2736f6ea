"""Planned against measured, at the size of Stable Diffusion 1.5, on a GPU (7 minutes).

Random weights are written in the real file layouts, plan.py plans a small study of them, and the
real scripts make it: two samplings with recorded x0, latent and video clips, one VideoMAE-base on
video clips, one shared small detector on latents, votes. For each step: seconds, bytes on the disk
and the most memory, planned and measured, with their ratio. --smoke does it at tiny size on a CPU.
Results are written after each step: plan_check.txt and .csv.
"""

import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common.results import add_result_flags, results_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command

RESULT_FILE = "plan_check.txt"
LEAST = 5  # seconds that must be left for a step to begin


def build_parser():
    parser = Parser(__doc__, "python benchmarks/plan_check.py --gpu_num 0 --seconds 400")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--gpu_num", type=int, default=0, help="CUDA device (default: 0)")
    parser.add_argument(
        "--seconds", type=float, default=400, help="for everything together (default: 400)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        default="float16",
        help="of the sampler (default: float16)",
    )
    parser.add_argument(
        "--work_dir", type=Path, help="where the weights go, 15 GB (default: a temporary folder)"
    )
    add_result_flags(parser, RESULT_FILE, "text of the figures, with a .csv beside it")
    return parser


def work(args):
    """Check the plan; returns [steps that failed]."""
    if not args.seconds > 0:
        raise InputError(f"--seconds {args.seconds:g}: a number above 0 is needed")
    deadline = time.monotonic() + args.seconds
    from lvd.utils.processes import pick_device

    device = pick_device(-1 if args.smoke else args.gpu_num)
    if device.type == "cpu" and not args.smoke:
        raise InputError("--gpu_num: a CUDA device is needed; --smoke runs on a CPU")
    with tempfile.TemporaryDirectory(dir=args.work_dir, prefix="plan_check-") as folder:
        return _check(args, device, Path(folder), deadline)


def _check(args, device, folder, deadline):
    from benchmarks.gpu.model import FULL, SMOKE
    from benchmarks.plan.checked import CheckedPlan
    from benchmarks.plan.measured import Scripts
    from benchmarks.plan.steps import steps_of
    from benchmarks.plan.world import make_world

    sizes = SMOKE if args.smoke else FULL
    dtype = "float32" if args.smoke else args.dtype
    checked = CheckedPlan(device, results_path(args, RESULT_FILE), starts=not args.smoke)
    began = time.monotonic()
    world = make_world(folder, sizes, device, dtype)
    if device.type == "cuda":
        _empty_cache()
    checked.say(f"weights written in {time.monotonic() - began:.0f} s")
    checked.calibrate(world, "latent", "shared", world.small)
    checked.measure_float32(world)
    if device.type == "cuda":
        _empty_cache()
    checked.say(f"measured in this process until {time.monotonic() - began:.0f} s")
    scripts = Scripts(device, here=args.smoke)
    gpu = -1 if device.type == "cpu" else device.index
    for step in steps_of(world, gpu):
        left = deadline - time.monotonic()
        if left < LEAST:
            checked.say(f"{step.name}: skipped, no time left")
            continue
        measured = scripts.run(step.script, step.flags, left)
        checked.add(step, measured)
        if step.after and not measured.failed:
            step.after(checked)
    for line in checked.failed:
        print(f"failed: {line}")
    print(f"wrote {checked.path} and {checked.table}")
    return checked.failed


def _empty_cache():
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


def main(argv=None):
    failed = []
    status = run_command(build_parser(), lambda args: failed.extend(work(args)), argv)
    return status or (1 if failed else 0)


if __name__ == "__main__":
    sys.exit(main())
