"""What recording x0 does by itself: copies to the CPU, and rows written to the file."""

import statistics
import time

import torch

from benchmarks.common.timing import spread, wait
from lvd.x0.file import create_x0_file

PROMPT = "a prompt of about sixty letters, as long as people write them"


def recording_alone(folder, batch, steps, latent_shape, dtype, device, repeats):
    """Time the parts of recording one batch, as MagicTime's Run does them.

    Args:
        folder: where the file is written.
        batch: videos.
        steps: denoising steps.
        latent_shape: (C, F, h, w) of one video.
        dtype: torch.dtype of the file.
        device: torch.device of the x0.
        repeats: batches.

    Returns:
        (seconds of the copies of all steps from the device to the CPU, seconds of writing the rows,
        their fsyncs included), a list each, one number a batch.
    """
    on_gpu = device.type == "cuda"
    x0 = torch.randn(batch, *latent_shape, device=device)
    info = {"prompt": PROMPT, "seed": 2024, "timesteps": list(range(1, 1000, 1000 // steps))}
    info["timesteps"] = info["timesteps"][:steps]
    meta = {"made_by": "benchmark"}
    path = folder / "alone.pth"
    copies, writes = [], []
    with create_x0_file(path, batch * repeats, steps, latent_shape, dtype, meta) as writer:
        for first in range(0, batch * repeats, batch):
            wait(device)
            began = time.perf_counter()
            kept = torch.empty((steps, batch, *latent_shape), dtype=dtype, pin_memory=on_gpu)
            for step in range(steps):
                kept[step].copy_(x0[list(range(batch))].to(dtype), non_blocking=on_gpu)
            wait(device)
            copied = time.perf_counter()
            rows = list(range(first, first + batch))
            writer.write_rows(rows, kept.unbind(1), [info] * batch)
            copies.append(copied - began)
            writes.append(time.perf_counter() - copied)
    return copies, writes


def shares(copies, writes, batch_seconds):
    """Recording's parts in milliseconds a batch, and in percent of a batch without recording."""
    both = [copy + write for copy, write in zip(copies, writes)]
    parts = {"copies to the CPU": copies, "write and fsync": writes, "both": both}
    rows = []
    for part, seconds in parts.items():
        figures = {}
        for kind in ("min", "median", "max"):
            figures[f"{kind}_ms"] = spread(seconds)[kind] * 1e3
        figures["median_percent"] = statistics.median(seconds) / batch_seconds * 100
        rows.append((part, figures))
    return rows
