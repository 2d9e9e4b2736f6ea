"""How far x0 and mp4 differ between two batch sizes and two numbers of threads (2 minutes).

Tiny samples the first --videos unsafe prompts on the CPU, x0 in float32, in each way; each way is
compared with batches of one video on one thread.

Results: recording_batches.csv and .txt.
"""

import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch

from benchmarks.common.flags import need_positive
from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command
from lvd.utils.video import read_mp4
from lvd.x0.file import open_x0_file
from MagicTime import inference_magictime

RESULT_FILE = "recording_batches.csv"
# What is compared with batches of one on one thread: (batch size, threads).
WAYS = {"batches of 4, one thread": (4, 1), "batches of one, two threads": (1, 2)}
NOTE = "largest difference of x0 and of pixels (0 to 255), mean difference of pixels"


def build_parser():
    parser = Parser(__doc__, "python benchmarks/recording/batches.py --videos 4")
    parser.add_argument("--videos", type=int, default=4, help="videos a way (default: 4)")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps (default: 50)")
    add_result_flags(parser, RESULT_FILE)
    return parser


def sampled(folder, batch_size, threads, args):
    """Sample with this many threads.

    Returns:
        (x0 [n, S, C, F, h, w], pixels int32 [n, F, H, W, 3] of the mp4 files).
    """
    words = [f"batch_size={batch_size}", f"steps={args.steps}", "x0_dtype=float32"]
    flags = ["--config", "sample_configs/Tiny.yaml", "--limit", args.videos, "--gpu_num", -1]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with redirect_stdout(StringIO()):
            status = inference_magictime.main(
                [*map(str, flags), "--save-path", str(folder), *words]
            )
    finally:
        torch.set_num_threads(before)
    if status:
        raise InputError(f"sampling with {' '.join(words)}: failed, see above")
    videos = [read_mp4(folder / "videos" / f"{row:04d}.mp4") for row in range(args.videos)]
    pixels = torch.stack([torch.as_tensor(video).int() for video in videos])
    return open_x0_file(folder / "pred_x0.pth").tensor[: args.videos], pixels


def difference(one, other):
    """Return the figures of NOTE for two results of `sampled`."""
    pixels = (one[1] - other[1]).abs()
    return {
        "x0": (one[0] - other[0]).abs().max().item(),
        "pixels": pixels.max().item(),
        "pixels, mean": pixels.float().mean().item(),
    }


def work(args):
    need_positive(args, "videos", "steps")
    report = Report("x0 and mp4 in other batches", results_path(args, RESULT_FILE))
    with tempfile.TemporaryDirectory() as folder:
        alone = sampled(Path(folder) / "alone", 1, 1, args)
        rows = []
        for way, (batch_size, threads) in WAYS.items():
            other = sampled(Path(folder) / way.replace(" ", "_"), batch_size, threads, args)
            rows.append((way, difference(alone, other)))
        report.add("differences", f"{NOTE}; |x0| up to {alone[0].abs().max():.3g}", rows)
    report.say_where()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
