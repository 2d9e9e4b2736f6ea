"""What the x0 file costs in time and memory, without a sampler: thousands of videos, and a file
larger than the memory.

1. Dry run: a recording filled to --rows videos, at Tiny's size (every row written) and at full size
(as many rows written as
   fit --disk_gb, spread evenly; the rows between are entered by a second process's journal).
2. A float32 recording of --rows videos at full size (105 GB for 2,000), planned as a sparse file;
--written rows are
   written from its first to its last and read back by row and by step.
Each part is a process of its own. Everything written is deleted at the end.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.common.memory import AnonymousPeak, status
from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command
from lvd.x0.file import create_x0_file, open_x0_file
from lvd.x0.sidecar import Journal

TINY = (4, 8, 8, 8)  # latents of one of Tiny's videos: channels, frames, height, width
META = {"made_by": "benchmark"}
RESULT_FILE = "recording_files.csv"


def build_parser():
    parser = Parser(__doc__, "python benchmarks/recording/files.py --rows 2000")
    parser.add_argument(
        "--rows", type=int, default=2000, help="videos of a recording (default: 2000)"
    )
    parser.add_argument(
        "--steps", type=int, default=50, help="denoising steps recorded (default: 50)"
    )
    parser.add_argument("--frames", type=int, default=16, help="frames at full size (default: 16)")
    parser.add_argument(
        "--size",
        type=int,
        default=64,
        help="height and width of latents at full size (default: 64)",
    )
    parser.add_argument(
        "--written",
        type=int,
        default=20,
        help="rows written of the float32 recording (default: 20)",
    )
    parser.add_argument(
        "--disk_gb",
        type=float,
        default=5.0,
        help="disk that the full-size dry run may fill (default: 5)",
    )
    parser.add_argument(
        "--dir", help="folder to write in, on the disk to measure (default: a temporary one)"
    )
    add_result_flags(parser, RESULT_FILE)
    parser.add_argument(
        "--part", choices=PARTS, help="run one part in this process and print its figures as JSON"
    )
    return parser


# ---- 1. the dry run


def fill_tiny(args, folder):
    """Eight rows at a time, as the sampler writes Tiny's batches."""
    return fill(folder, (args.rows, args.steps, *TINY), 8, 1)


def fill_full(args, folder):
    shape = (args.rows, args.steps, *full(args))
    affordable = int(args.disk_gb * 1e9 / (math.prod(shape[1:]) * torch.float16.itemsize))
    if affordable < 1:
        raise InputError(f"--disk_gb {args.disk_gb:g}: not one row fits")
    return fill(folder, shape, 1, math.ceil(args.rows / affordable))


def full(args):
    return 4, args.frames, args.size, args.size


def fill(folder, shape, batch, stride):
    """Fill a float16 recording of `shape`, `batch` rows a write; of `stride` batches one is
    written, the others are entered in the journal of a second process. Returns [(rows whole,
    figures)] at four points."""
    path = folder / "pred_x0.pth"
    values = [
        torch.randn(shape[1:], generator=torch.Generator().manual_seed(i)).half()
        for i in range(batch)
    ]
    info = {
        "prompt": "a prompt of about sixty letters, as long as people write them",
        "seed": 2024,
        "timesteps": list(range(999, -1, -1000 // shape[1]))[: shape[1]],
    }
    points = {max(1, shape[0] * part // 20) for part in (1, 5, 10, 20)}
    figures, seconds, whole = [], [], 0
    other = Journal(path, 1)
    with AnonymousPeak() as anonymous:
        with create_x0_file(
            path, shape[0], shape[1], shape[2:], torch.float16, META, check_space=False
        ) as writer:
            for number, start in enumerate(
                tqdm(range(0, shape[0], batch), desc="fill", mininterval=1)
            ):
                rows = list(range(start, min(start + batch, shape[0])))
                if number % stride:
                    other.append(rows, [info] * len(rows))
                else:
                    began = time.perf_counter()
                    writer.write_rows(rows, values[: len(rows)], [info] * len(rows))
                    seconds.append((time.perf_counter() - began) / len(rows))
                passed = {p for p in points if whole < p <= rows[-1] + 1}
                whole = rows[-1] + 1
                if passed:
                    figures.append((f"{whole} rows", {**_spread(seconds), **_memory(anonymous)}))
                    seconds = []
            other.close()
            began = time.perf_counter()
        closing = time.perf_counter() - began
        began = time.perf_counter()
        found = open_x0_file(path)
        opening = time.perf_counter() - began
        if found.rows != list(range(shape[0])) or not found.tensor[
            -1 - (shape[0] - 1) % (batch * stride)
        ].equal(values[0]):
            raise InputError(f"{path}: not what was written")
    return [
        *figures,
        (
            "close, open",
            {"seconds_to_close": closing, "seconds_to_open": opening, **_memory(anonymous)},
        ),
    ]


def _spread(seconds):
    return {
        "ms_per_row_median": statistics.median(seconds) * 1e3,
        "ms_per_row_max": max(seconds) * 1e3,
        "writes": len(seconds),
    }


def _memory(anonymous):
    return {"peak_rss_mib": status("VmHWM"), "peak_anonymous_mib": anonymous.mib}


# ---- 2. a recording larger than the memory


def plan(args, folder):
    began = time.perf_counter()
    with AnonymousPeak() as anonymous, _large(args, folder):
        pass
    return [_large_figures(args, folder, "plan", time.perf_counter() - began, anonymous)]


def write(args, folder):
    began = time.perf_counter()
    with AnonymousPeak() as anonymous, _large(args, folder) as writer:
        for row in tqdm(_written(args), desc="write"):
            writer.write_row(
                row,
                torch.stack([_values(args, row, step) for step in range(args.steps)]),
                {"seed": row},
            )
    return [_large_figures(args, folder, "write", time.perf_counter() - began, anonymous)]


def read_rows(args, folder):
    """All steps of a row at a time, the file opened for each row, so that no touched page outlives
    its use."""
    return _read(
        args,
        folder,
        "read by row",
        [[(row, step) for step in range(args.steps)] for row in _written(args)],
    )


def read_steps(args, folder):
    """One step of all written rows at a time, as detectors of a step read it."""
    return _read(
        args,
        folder,
        "read by step",
        [[(row, step) for row in _written(args)] for step in range(args.steps)],
    )


def read_mapped(args, folder):
    """Everything with the file opened once."""
    places = [(row, step) for row in _written(args) for step in range(args.steps)]
    return _read(args, folder, "read, one mapping", [places])


def _read(args, folder, name, slices):
    """Compare [[(row, step)]] with the seeded values; the file is opened once for every inner list."""
    began = time.perf_counter()
    with AnonymousPeak() as anonymous:
        for places in tqdm(slices, desc=name):
            found = open_x0_file(folder / "large" / "pred_x0.pth")
            found.need_rows(row for row, _ in places)
            for row, step in places:
                if not found.tensor[row, step].equal(_values(args, row, step)):
                    raise InputError(
                        f"{found.path}: row {row}, step {step} is not what was written"
                    )
            del found
    return [_large_figures(args, folder, name, time.perf_counter() - began, anonymous)]


def _large(args, folder):
    return create_x0_file(
        folder / "large" / "pred_x0.pth",
        args.rows,
        args.steps,
        full(args),
        torch.float32,
        META,
        check_space=False,
    )  # the point is that the disk holds only what is written


def _written(args):
    """Row numbers from the first to the last, evenly spaced."""
    return sorted(
        {round(i * (args.rows - 1) / max(1, args.written - 1)) for i in range(args.written)}
    )


def _values(args, row, step):
    """Seeded x0 of one row and step: what is read can be checked without keeping what was written."""
    return torch.randn(full(args), generator=torch.Generator().manual_seed(row * args.steps + step))


def _large_figures(args, folder, name, seconds, anonymous):
    there = (folder / "large" / "pred_x0.pth").stat()
    return name, {
        "seconds": seconds,
        "file_gb": there.st_size / 1e9,
        "on_disk_gb": there.st_blocks * 512 / 1e9,
        "peak_rss_mib": status("VmHWM"),
        "peak_anonymous_mib": anonymous.mib,
    }


# ---- the command

PARTS = {
    "fill_tiny": fill_tiny,
    "fill_full": fill_full,
    "plan": plan,
    "write": write,
    "read_rows": read_rows,
    "read_steps": read_steps,
    "read_mapped": read_mapped,
}
MEMORY = (
    "peak_rss counts the pages of mapped files that were touched, peak_anonymous is the "
    "process's own memory"
)
LARGE = ("plan", "write", "read_rows", "read_steps", "read_mapped")


def part_elsewhere(name, args, folder):
    """The figures of one part, from a process of its own."""
    flags = [
        f"--{key}={getattr(args, key)}"
        for key in ("rows", "steps", "frames", "size", "written", "disk_gb")
    ]
    command = [sys.executable, __file__, "--part", name, "--dir", str(folder), *flags]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        raise InputError(f"--part {name}: failed, see above")
    return [(case, figures) for case, figures in json.loads(ended.stdout.splitlines()[-1])]


def work(args):
    args.out = results_path(args, RESULT_FILE)
    for flag in ("rows", "steps", "frames", "size", "written"):
        if getattr(args, flag) < 1:
            raise InputError(f"--{flag} {getattr(args, flag)}: at least 1 is needed")
    if args.part:
        print(json.dumps(PARTS[args.part](args, Path(args.dir))))
        return
    if args.dir:
        Path(args.dir).mkdir(parents=True, exist_ok=True)
    report = Report("The x0 file: seconds and memory", args.out)
    for name, shape in (("fill_tiny", TINY), ("fill_full", full(args))):
        note = (
            f"dry run of [{args.rows}, {args.steps}, {', '.join(map(str, shape))}] float16; "
            f"{MEMORY}"
        )
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            report.add(name, note, part_elsewhere(name, args, Path(folder)))
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        shape = ", ".join(map(str, (args.rows, args.steps, *full(args))))
        note = (
            f"[{shape}] float32, {len(_written(args))} rows written and found equal to their "
            f"seeded values; {MEMORY}"
        )
        report.add(
            "large",
            note,
            [row for name in LARGE for row in part_elsewhere(name, args, Path(folder))],
        )
    report.say_where()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
