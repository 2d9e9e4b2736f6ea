"""Filling a recording of thousands of videos, of which some are written and all are entered."""

import math
import statistics
import time

import torch

from benchmarks.common.memory import AnonymousPeak, status
from benchmarks.recording.alone import PROMPT
from lvd.errors import InputError
from lvd.utils.progress import progress
from lvd.x0.file import create_x0_file, open_x0_file
from lvd.x0.sidecar import Journal

TINY = (4, 8, 8, 8)  # latents of one of Tiny's videos: channels, frames, height, width
META = {"made_by": "benchmark"}


def full_latents(args):
    """(C, F, h, w) of one video at full size."""
    return 4, args.frames, args.size, args.size


def shape_of(part, args):
    """[N, S, C, F, h, w] of the recording of a part."""
    latents = TINY if part == "fill_tiny" else full_latents(args)
    return args.rows, args.steps, *latents


def fill_tiny(args, folder):
    """Eight rows at a time, as the sampler writes Tiny's batches."""
    return fill(folder, shape_of("fill_tiny", args), batch=8, stride=1)


def fill_full(args, folder):
    """As many rows as the disk may hold, spread evenly."""
    shape = shape_of("fill_full", args)
    bytes_of_a_row = math.prod(shape[1:]) * torch.float16.itemsize
    affordable = int(args.disk_gb * 1e9 / bytes_of_a_row)
    if affordable < 1:
        raise InputError(f"--disk_gb {args.disk_gb:g}: not one row fits")
    return fill(folder, shape, batch=1, stride=math.ceil(args.rows / affordable))


PARTS = {"fill_tiny": fill_tiny, "fill_full": fill_full}


def fill(folder, shape, batch, stride):
    """Fill a float16 recording.

    Args:
        folder: where it is written.
        shape: (N, S, C, F, h, w).
        batch: rows a write.
        stride: of so many batches one is written; the others are entered in the journal of a second
            process.

    Returns:
        [(rows whole, figures)] at four points, and those of closing and opening.
    """
    path = folder / "pred_x0.pth"
    values = [seeded(shape[1:], row) for row in range(batch)]
    rows = []
    other = Journal(path, 1)
    with AnonymousPeak() as anonymous:
        meta = {"dtype": torch.float16, "meta": META, "check_space": False}
        with create_x0_file(path, shape[0], shape[1], shape[2:], **meta) as writer:
            for whole, seconds in fill_rows(writer, other, shape, values, stride):
                rows.append((f"{whole} rows", {**spread_of_rows(seconds), **memory(anonymous)}))
            other.close()
            began = time.perf_counter()
        closing = time.perf_counter() - began
        began = time.perf_counter()
        x0 = open_x0_file(path)
        opening = time.perf_counter() - began
        last_written = -1 - (shape[0] - 1) % (batch * stride)
        if x0.rows != list(range(shape[0])) or not x0.tensor[last_written].equal(values[0]):
            raise InputError(f"{path}: not what was written")
    ends = {"seconds_to_close": closing, "seconds_to_open": opening}
    return [*rows, ("close, open", {**ends, **memory(anonymous)})]


def fill_rows(writer, other, shape, values, stride):
    """Fill all rows; yields (rows whole, [seconds of each row written since]) at a twentieth, a
    quarter, half and all of them."""
    info = {"prompt": PROMPT, "seed": 2024}
    info["timesteps"] = list(range(999, -1, -1000 // shape[1]))[: shape[1]]
    points = {max(1, shape[0] * part // 20) for part in (1, 5, 10, 20)}
    batch, seconds, whole = len(values), [], 0
    starts = range(0, shape[0], batch)
    for number, start in enumerate(progress(starts, "fill")):
        rows = list(range(start, min(start + batch, shape[0])))
        if number % stride:
            other.append(rows, [info] * len(rows))
        else:
            began = time.perf_counter()
            writer.write_rows(rows, values[: len(rows)], [info] * len(rows))
            seconds.append((time.perf_counter() - began) / len(rows))
        passed = any(whole < point <= rows[-1] + 1 for point in points)
        whole = rows[-1] + 1
        if passed:
            yield whole, seconds
            seconds = []


def seeded(shape, seed):
    """float16 noise of a seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).half()


def spread_of_rows(seconds):
    return {
        "ms_per_row_median": statistics.median(seconds) * 1e3,
        "ms_per_row_max": max(seconds) * 1e3,
        "writes": len(seconds),
    }


def memory(anonymous):
    """Peaks of this process, in MiB; anonymous: AnonymousPeak."""
    return {"peak_rss_mib": status("VmHWM"), "peak_anonymous_mib": anonymous.mib}
