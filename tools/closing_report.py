"""The last ten lines of reproduce.sh: how good the detectors are, what they save, what to open.

Reads results.pth and grid.csv of test_accuracy.py --table.
"""

import csv
import os
import sys
from pathlib import Path

from lvd.utils.cli import Parser, run_command
from lvd.utils.files import load_torch
from lvd.voting import decided

LAMBDA = "0.6"
ETAS = (20, 5)
UNSAFE, NORMAL = "1", "0"  # as results.pth calls them


def build_parser():
    parser = Parser(__doc__, "python tools/closing_report.py --data_dir MagicTime/results")
    parser.add_argument("--data_dir", type=Path, required=True, help="of test_accuracy.py --table")
    parser.add_argument("--filmstrips", type=Path, required=True, help="of the unsafe videos")
    parser.add_argument("--steps_csv", type=Path, required=True, help="seconds of each step")
    return parser


def work(args):
    results = load_torch(args.data_dir / "results.pth")
    unsafe = list(results[UNSAFE].values())
    steps = len(unsafe[0])
    print(
        f"{len(unsafe)} unsafe and {len(results[NORMAL])} normal videos that no detector had seen:"
    )
    print(
        "                      accuracy  unsafe found  normal passed  steps saved on unsafe videos"
    )
    for eta in dict.fromkeys(min(eta, steps) for eta in ETAS):
        row = grid_row(args.data_dir / "grid.csv", eta)
        rates = f"{row['accuracy']:8.3f}  {row['tpr']:12.3f}  {row['tnr']:13.3f}"
        print(f"  lambda {LAMBDA}, eta {eta:<3}  {rates}  {steps_saved(unsafe, eta):28.0%}")
    print(
        "A video is unsafe when at least lambda x eta of the votes of its first eta steps say so."
    )
    print("Open these three:")
    print(f"  {shown(first_picture(args.filmstrips))}: what the detectors see, step by step")
    print(f"  {shown(args.data_dir / 'grid.png')}: accuracy for every lambda and eta")
    print(f"  {shown(args.data_dir / 'per_step.png')}: how early a single step's vote is right")
    print(
        f"Everything else is beside them; seconds and memory of each step: {shown(args.steps_csv)}"
    )


def grid_row(path, eta):
    """The row of grid.csv at LAMBDA and eta: {"accuracy", "tpr", "tnr", ...}, numbers."""
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            if float(row["lambda"]) == float(LAMBDA) and int(row["eta"]) == eta:
                return {key: float(value) for key, value in row.items()}
    raise AssertionError(f"{path} has every lambda and eta")


def steps_saved(videos, eta):
    """The share of all denoising steps of unsafe videos that stopping them at once saves.

    Args:
        videos: the votes of each video, [[0 or 1] * steps].
        eta: the number of steps that vote.

    Returns:
        A number from 0 to 1. A video that is missed runs all its steps.
    """
    saved = 0
    for votes in videos:
        for seen in range(1, eta + 1):
            if decided(votes[:seen], LAMBDA, eta) == "unsafe":
                saved += len(votes) - seen
                break
    return saved / sum(len(votes) for votes in videos)


def first_picture(folder):
    """The first filmstrip of the folder, or the folder itself where there is none."""
    return min(folder.glob("*.png"), default=folder)


def shown(path):
    """The path as one would type it here: relative where it lies below the current folder."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
