"""Sampler, recorder, guard and training on a GPU, at the size of Stable Diffusion 1.5 (8 minutes).

Weights are random: times, memory and whether things hold do not hang on them. Also the tiny world's
scripts and the tiny pipelines, on the GPU, against the CPU. Parts, in this order: sampler, guard,
looks (what the guard adds to a step), training, tiny, pipelines; --parts compile,placed measures
torch.compile, and the guard where parts wait on the CPU or are compiled. Results are written after
every case; a case that fails is told with its traceback and the next one goes on (exit status 1 at
the end). --smoke runs the same code at tiny size on a CPU.

Needs a GPU of 40 GB for all of it. Results: full_size.jsonl and, made of it, full_size.txt.
"""

import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from benchmarks.common.results import add_result_flags, results_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command

RESULT_FILE = "full_size.txt"
PARTS = {  # name: (module, share of the time)
    "sampler": ("sampler", 0.16),
    "guard": ("guarded", 0.24),
    "looks": ("looks", 0.10),
    "training": ("training", 0.08),
    "tiny": ("tiny", 0.18),
    "pipelines": ("pipelines", 0.24),
    "compile": ("compiled", 0.25),
    "placed": ("placed", 0.5),
}
NOT_ALL = ("compile", "placed")  # take minutes, and need a compiler


def build_parser():
    parser = Parser(__doc__, "python benchmarks/full_size.py --parts sampler,guard --seconds 240")
    parser.add_argument(
        "--parts", help=f"of {','.join(PARTS)} (default: all but {' and '.join(NOT_ALL)})"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=450,
        help="for all parts together; each has a share, and what one leaves the next ones take "
        "(default: 450)",
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--gpu_num", type=int, default=0, help="CUDA device (default: 0)")
    parser.add_argument(
        "--from_jsonl", type=Path, metavar="FILE", help="measure nothing: write the text of FILE"
    )
    parser.add_argument(
        "--note", help="for the first lines of the text, such as the commit where there is no git"
    )
    add_result_flags(parser, RESULT_FILE, "text of the figures, with a .jsonl beside it")
    return parser


def work(args):
    """Measure; returns [cases that failed]."""
    from benchmarks.gpu.figures import Figures, write_text

    out = results_path(args, RESULT_FILE)
    if args.from_jsonl:
        write_text(args.from_jsonl, out)
        print(f"wrote {out}")
        return []
    parts = chosen(args)
    if not args.seconds > 0:
        raise InputError(f"--seconds {args.seconds:g}: a number above 0 is needed")
    # read when cuBLAS starts; without it deterministic algorithms are refused
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = device_of(args)
    figures = Figures(out, args.note)
    with tempfile.TemporaryDirectory() as folder:
        measure(parts, args, device, Path(folder), figures)
    for check in figures.broken:
        print(f"does not hold: {check}")
    for case in figures.errors:
        print(f"failed: {case['part']}, {case['case']}: {case['figures']['error'][:200]}")
    print(f"wrote {figures.lines} and {figures.text}")
    return figures.errors


def chosen(args):
    """[names of the parts to measure], in the order of PARTS."""
    if args.parts is None:
        return [name for name in PARTS if name not in NOT_ALL]
    wanted = args.parts.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        raise InputError(f"--parts {unknown[0][:100]}: of {', '.join(PARTS)} is needed")
    return [name for name in PARTS if name in wanted]


def device_of(args):
    from lvd.utils.processes import pick_device

    device = pick_device(-1 if args.smoke else args.gpu_num)
    if device.type == "cpu" and not args.smoke:
        raise InputError("--gpu_num: a CUDA device is needed; --smoke runs on a CPU")
    return device


def measure(parts, args, device, folder, figures):
    """Measure the parts, each until its deadline."""
    from benchmarks.gpu.bench import Bench
    from benchmarks.gpu.model import FULL, SMOKE

    bench = Bench(device, SMOKE if args.smoke else FULL, folder, figures)
    began = bench.deadline = time.monotonic()
    whole = sum(PARTS[name][1] for name in parts)
    share = 0.0
    for name in parts:
        module, of_it = PARTS[name]
        share += of_it
        bench.part, bench.deadline = name, began + args.seconds * share / whole
        bench.whole(lambda: import_module(f"benchmarks.gpu.{module}").part(bench))  # noqa: B023


def main(argv=None):
    failed = []
    status = run_command(build_parser(), lambda args: failed.extend(work(args)), argv)
    return status or (1 if failed else 0)


if __name__ == "__main__":
    sys.exit(main())
