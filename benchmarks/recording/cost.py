"""What recording x0 adds to sampling: time and memory, with recording against without it.

On Tiny (10 minutes): seconds of whole runs in turns; what recording does alone, in percent of a
batch; MiB of memory after more and more videos. With --full (5 minutes on a CPU): what recording
does alone at the size of Stable Diffusion 1.5 (512 x 512 pixels, 16 frames), in percent of the
guided steps of a UNet with random weights, several on a GPU, one on a CPU.

Results: recording.csv and .txt; with --full recording_full.csv and .txt.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.common import full_size
from benchmarks.common.flags import add_gpu, add_sampling_config, need_positive
from benchmarks.common.memory import AnonymousPeak, status
from benchmarks.common.results import add_result_flags
from benchmarks.common.timing import Clock, spread
from benchmarks.recording.alone import recording_alone, shares
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command
from lvd.utils.processes import pick_device
from lvd.utils.progress import progress

RESULT_FILE, FULL_RESULT_FILE = "recording.csv", "recording_full.csv"
MIB = 2**20


def build_parser():
    parser = Parser(__doc__, "python benchmarks/recording/cost.py --repeats 5")
    add_sampling_config(parser)
    parser.add_argument("--steps", type=int, help="denoising steps (default: the YAML's)")
    parser.add_argument("--batch_size", type=int, help="videos per batch (default: the YAML's)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="pairs of runs (recording alone: more)"
    )
    parser.add_argument("--videos", type=int, default=8, help="videos per run (default: 8)")
    parser.add_argument(
        "--memory_videos",
        default="8,64,200",
        help="look at the memory after so many (default: 8,64,200)",
    )
    parser.add_argument(
        "--memory_steps", type=int, default=20, help="denoising steps of these (default: 20)"
    )
    full_size.add_full_flags(parser)
    add_gpu(parser)
    parser.add_argument(
        "--dir", help="folder to write in, on the disk to measure (default: a temporary one)"
    )
    add_result_flags(parser, f"{RESULT_FILE} or {FULL_RESULT_FILE}")
    parser.add_argument(
        "--memory_part",
        choices=("recorded", "not recorded"),
        help="measure memory in this process, print JSON",
    )
    return parser


# ---- whole runs


def make_run(args, folder, recorded, count, model=None, **changes):
    """A loaded Run of the config's first `count` prompts, in `folder`."""
    from MagicTime.utils.config import read_config
    from MagicTime.utils.prompts import read_source
    from MagicTime.utils.run import Run

    flags = {"batch_size": args.batch_size, "steps": args.steps, **changes}
    given = {key: value for key, value in flags.items() if value is not None}
    config = read_config(args.config, {"save_predx_0": recorded, **given})
    prompts = read_source(config.settings, config.path)[:count]
    run = Run(config, prompts, folder, pick_device(args.gpu_num), model=model)
    run.load()
    return run


def whole_runs(args, folder):
    """Time runs of `args.videos` videos, decoded and written, with and without recording in turns.

    Returns:
        ([(case, figures)], median seconds of a batch without recording, a finished Run).
    """
    first = make_run(args, folder / "warm", True, args.videos)
    first.sample()
    clocks = {True: [], False: []}
    for repeat in progress(range(args.repeats), "runs"):
        order = (True, False) if repeat % 2 else (False, True)  # neither always comes first
        for recorded in order:
            place = folder / f"{repeat}{recorded}"
            run = make_run(args, place, recorded, args.videos, first.model)
            with Clock(run.plan.device) as clock:
                run.sample()
            clocks[recorded].append(clock)
    rows = []
    for prefix, unit in (("", "seconds"), ("CPU seconds, ", "cpu")):
        with_it, without = ([getattr(c, unit) for c in clocks[kind]] for kind in (True, False))
        ratios = [a / b for a, b in zip(with_it, without)]
        rows += [
            (f"{prefix}not recorded", spread(without)),
            (f"{prefix}recorded", spread(with_it)),
            (f"{prefix}ratio of each pair", spread(ratios)),
            (f"{prefix}ratio of the fastest", {"min": min(with_it) / min(without)}),
        ]
    batches = -(-args.videos // first.plan.settings.batch_size)
    median = statistics.median(clock.seconds for clock in clocks[False])
    return rows, median / batches, first


# ---- memory of a sampling run


def memory_part(args):
    """Memory of this process after more and more videos of one run: [(case, figures)]."""
    counts = [int(text) for text in args.memory_videos.split(",")]
    recorded = args.memory_part == "recorded"
    changes = {"steps": args.memory_steps, "x0_dtype": "float32"}
    rows = []
    with tempfile.TemporaryDirectory(dir=args.dir) as folder, AnonymousPeak() as anonymous:
        run = make_run(args, Path(folder) / "out", recorded, max(counts), **changes)
        values = args.memory_steps * torch.Size(run.plan.latent_shape).numel()
        size = values * torch.float32.itemsize / MIB if recorded else 0.0  # of one video's x0
        for count in counts:
            run.sample(count)
            figures = {
                "recorded_mib": size * count,
                "held_mib": size * run.plan.settings.batch_size,
                "peak_rss_mib": status("VmHWM"),
                "peak_anonymous_mib": anonymous.mib,
                "anonymous_mib": status("RssAnon"),
            }
            rows.append((f"{args.memory_part}, {count} videos", figures))
    return rows


def memory_elsewhere(args, part):
    """`memory_part` in a process of its own."""
    keys = ("config", "memory_videos", "memory_steps", "gpu_num", "batch_size", "dir")
    flags = [f"--{key}={getattr(args, key)}" for key in keys if getattr(args, key) is not None]
    command = [sys.executable, __file__, "--memory_part", part, *flags]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        raise InputError(f"--memory_part '{part}': failed, see above")
    return [(case, figures) for case, figures in json.loads(ended.stdout.splitlines()[-1])]


# ---- the two benchmarks


def measure_full(args, report):
    device = pick_device(args.gpu_num)
    seconds, note = full_size.measure_steps(device, args.dtype, args.repeats)
    report.add("step", note, [("seconds", spread(seconds))])
    steps, latents = full_size.STEPS, full_size.LATENTS
    video = statistics.median(seconds) * steps
    for name in ("float16", "float32"):
        dtype = getattr(torch, name)
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            copies, writes = recording_alone(
                Path(folder), 1, steps, latents, dtype, device, args.repeats * 2
            )
        both = statistics.median(copy + write for copy, write in zip(copies, writes))
        report.add(
            f"recording alone, {name}",
            f"of one video, {steps} steps; percent of {steps} such UNet steps ({video:.1f} s); it "
            f"is 1% where a video takes {both * 100:.1f} s",
            shares(copies, writes, video),
        )


def measure_tiny(args, report):
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        rows, batch_seconds, run = whole_runs(args, Path(folder))
        s = run.plan.settings
        report.add(
            "whole runs",
            f"seconds of {args.videos} videos of {Path(args.config).name}, batches of "
            f"{s.batch_size}, {s.steps} steps, decoded and written as {s.format}",
            rows,
        )
        batch, dtype = min(s.batch_size, args.videos), getattr(torch, s.x0_dtype)
        latents, device = run.plan.latent_shape, run.plan.device
        copies, writes = recording_alone(
            Path(folder), batch, s.steps, latents, dtype, device, args.repeats * 4
        )
        report.add(
            "recording alone",
            f"of a batch of {batch} in {s.x0_dtype}; percent of a batch's "
            f"{batch_seconds:.2f} s without recording",
            shares(copies, writes, batch_seconds),
        )
    report.add(
        "memory",
        f"after more and more videos of one run, {args.memory_steps} steps, float32: recorded so "
        "far, held for the batch at work, resident",
        memory_elsewhere(args, "not recorded") + memory_elsewhere(args, "recorded"),
    )


def work(args):
    if args.memory_part:
        print(json.dumps(memory_part(args)))
        return
    need_positive(args, "repeats", "videos")
    if args.dir:
        Path(args.dir).mkdir(parents=True, exist_ok=True)
    tiny = "Recording x0 on Tiny: what it adds to sampling", RESULT_FILE, measure_tiny
    full = "Recording x0 at full size: what it adds to a step", FULL_RESULT_FILE, measure_full
    full_size.measure_either(args, tiny, full)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
