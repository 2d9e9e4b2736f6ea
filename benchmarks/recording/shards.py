"""A recording of 100,000 videos at full size: planned in shards, written in a few places, read."""

import math
import time

import torch

from benchmarks.common.memory import AnonymousPeak
from benchmarks.recording.alone import PROMPT
from benchmarks.recording.dry_run import META, full_latents, memory, seeded
from lvd.errors import InputError
from lvd.utils.progress import progress
from lvd.x0.file import create_x0_file, open_x0_file
from lvd.x0.growing import grow_x0_file
from lvd.x0.shards import CRC, checksum, plan_shards
from lvd.x0.sidecar import Journal

ENTERED = 1_000  # rows whose lines are written at once


def shards(args, folder):
    """Plan, write and read --sharded_rows videos, and add a tenth to them.

    Returns:
        [(case, figures)].
    """
    shape = (args.sharded_rows, args.steps, *full_latents(args))
    path, rows = folder / "pred_x0.pth", written_rows(shape, args.written)
    found = []
    with AnonymousPeak() as anonymous:
        for name, work in (
            ("plan", lambda: plan(path, shape)),
            ("write", lambda: write(path, shape, rows)),
            ("read by row", lambda: read(path, shape, rows)),
            ("read by step", lambda: read_steps(path, shape, rows)),
            ("grow", lambda: grow(path, shape)),
            ("read when grown", lambda: read(path, shape, rows)),
        ):
            began = time.perf_counter()
            work()
            seconds = {"seconds": time.perf_counter() - began}
            found.append((name, {**seconds, **sizes(path), **memory(anonymous)}))
    return found


def written_rows(shape, written):
    """The first and the last row of each shard, then as many as --written between them."""
    ends, rows = 0, set()
    for count in plan_shards(shape[0], math.prod(shape[1:]) * torch.float16.itemsize):
        rows |= {ends, ends + count - 1}
        ends += count
    return sorted(rows | {round(i * (shape[0] - 1) / written) for i in range(written)})


def values_of(shape, row):
    """float16 [S, C, F, h, w] of a row: noise of its number, times a number of each step."""
    of_steps = torch.arange(1, shape[1] + 1).view(-1, 1, 1, 1, 1) / shape[1]
    return (seeded(shape[2:], row) * of_steps.half()).half()


def plan(path, shape):
    create(path, shape).close()


def write(path, shape, rows):
    """Write `rows`; all others are entered by a second process's journal."""
    info = {"prompt": PROMPT, "seed": 2024}
    info["timesteps"] = list(range(999, -1, -1000 // shape[1]))[: shape[1]]
    other, written = Journal(path, 1), set(rows)
    of_zeros = {**info, CRC: checksum(torch.zeros(shape[1:], dtype=torch.float16))}
    with create(path, shape) as writer:
        for row in progress(rows, "write"):
            writer.write_row(row, values_of(shape, row), info)
        for first in progress(range(0, shape[0], ENTERED), "enter"):
            entered = sorted(set(range(first, min(first + ENTERED, shape[0]))) - written)
            other.append(entered, [of_zeros] * len(entered))
        other.close()


def read(path, shape, rows):
    x0 = open_x0_file(path)
    x0.need_rows(rows)
    for row in progress(rows, "read"):
        _need(x0, row, x0.tensor[row].equal(values_of(shape, row)))


def read_steps(path, shape, rows):
    """One step of all written rows at a time, as detectors of a step read it: the first and the
    last step."""
    x0 = open_x0_file(path)
    for step in (0, shape[1] - 1):
        for row in progress(rows, f"step {step}"):
            _need(x0, row, x0.tensor[row, step].equal(values_of(shape, row)[step]))


def grow(path, shape):
    grow_x0_file(path, shape[0] + shape[0] // 10, META, check_space=False)


def create(path, shape):
    """The X0Writer; the disk holds only what is written."""
    return create_x0_file(
        path, shape[0], shape[1], shape[2:], torch.float16, META, check_space=False
    )


def sizes(path):
    files = open_x0_file(path).files
    written = sum(file.stat().st_blocks * 512 for file in files)
    return {
        "shards": len(files),
        "recording_gb": sum(file.stat().st_size for file in files) / 1e9,
        "on_disk_gb": written / 1e9,
    }


def _need(x0, row, same):
    if not same:
        raise InputError(f"{x0.path}: row {row} is not what was written")
