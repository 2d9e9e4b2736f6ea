"""What the x0 file costs in time and memory, without a sampler (5 minutes): thousands of videos,
and a file larger than the memory.

1. Dry run: a recording filled to --rows videos, at Tiny's size (every row written) against full
   size (as many rows written as fit --disk_gb, spread evenly; the rows between are entered by a
   second process's journal). Milliseconds a row, MiB of memory.
2. A float32 recording of --rows videos at full size (105 GB for 2,000), planned as a sparse file;
   --written rows are written from its first to its last, and read back by row against by step.
   Seconds, GB on disk, MiB of memory.

With --sharded alone the third: a float16 recording of --sharded_rows videos at full size, whose
shards are planned, written and read in the same way, and to which a tenth more rows are added.
Results: recording_shards.csv and .txt.

Each part is a process of its own. Everything written is deleted at the end.
Results: recording_files.csv and .txt.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common.flags import need_positive
from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.recording import dry_run, large_file
from benchmarks.recording.shards import shards
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command

PARTS = {
    **dry_run.PARTS,
    **large_file.PARTS,
    "shards": shards,
}  # name → function of (args, folder) to rows
SIZES = ("rows", "steps", "frames", "size", "written", "sharded_rows")
MEMORY = (
    "peak_rss counts the pages of mapped files that were touched, peak_anonymous is the "
    "process's own memory"
)
RESULT_FILE, SHARDS_FILE = "recording_files.csv", "recording_shards.csv"


def build_parser():
    parser = Parser(__doc__, "python benchmarks/recording/files.py --rows 2000")
    numbers = {
        "rows": (2000, "videos of a recording"),
        "steps": (50, "denoising steps recorded"),
        "frames": (16, "frames at full size"),
        "size": (64, "height and width of latents at full size"),
        "written": (20, "rows written of the float32 recording"),
        "sharded_rows": (100_000, "videos of the recording in shards"),
    }
    for name, (default, what) in numbers.items():
        shown = f"{what} (default: {default})"
        parser.add_argument(f"--{name}", type=int, default=default, help=shown)
    parser.add_argument(
        "--disk_gb",
        type=float,
        default=5.0,
        help="disk that the full-size dry run may fill (default: 5)",
    )
    parser.add_argument("--sharded", action="store_true", help="the recording in shards, alone")
    parser.add_argument(
        "--dir", help="folder to write in, on the disk to measure (default: a temporary one)"
    )
    add_result_flags(parser, RESULT_FILE)
    parser.add_argument(
        "--part", choices=PARTS, help="run one part in this process and print its figures as JSON"
    )
    return parser


def part_elsewhere(name, args, folder):
    """The figures of one part, from a process of its own."""
    flags = [f"--{key}={getattr(args, key)}" for key in (*SIZES, "disk_gb")]
    command = [sys.executable, __file__, "--part", name, "--dir", str(folder), *flags]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        raise InputError(f"--part {name}: failed, see above")
    return [(case, figures) for case, figures in json.loads(ended.stdout.splitlines()[-1])]


def work(args):
    need_positive(args, *SIZES)
    if args.part:
        print(json.dumps(PARTS[args.part](args, Path(args.dir))))
        return
    if args.dir:
        Path(args.dir).mkdir(parents=True, exist_ok=True)
    if args.sharded:
        report_shards(args)
        return
    report = Report("The x0 file: seconds and memory", results_path(args, RESULT_FILE))
    for name in dry_run.PARTS:
        shape = list(dry_run.shape_of(name, args))
        note = f"dry run of {shape} float16; {MEMORY}"
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            report.add(name, note, part_elsewhere(name, args, Path(folder)))
    shape = [args.rows, args.steps, *dry_run.full_latents(args)]
    note = (
        f"{shape} float32, {len(large_file.written_rows(args))} rows written and found equal to "
        f"their seeded values; {MEMORY}"
    )
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        rows = []
        for name in large_file.PARTS:
            rows += part_elsewhere(name, args, Path(folder))
        report.add("large", note, rows)
    report.say_where()


def report_shards(args):
    shape = [args.sharded_rows, args.steps, *dry_run.full_latents(args)]
    report = Report("The x0 file in shards", results_path(args, SHARDS_FILE))
    note = (
        f"{shape} float16; the first and last row of each shard and about {args.written} between "
        f"are written and found equal to their seeded values, the others are entered; {MEMORY}"
    )
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        report.add("shards", note, part_elsewhere("shards", args, Path(folder)))
    report.say_where()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
