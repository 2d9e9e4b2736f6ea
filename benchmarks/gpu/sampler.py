"""Steps of the sampler by dtype and attention kernel, decoding, and what recording adds."""

import statistics
import time

import torch

from benchmarks.common.full_size import STEPS
from benchmarks.common.timing import wait
from benchmarks.gpu.bench import milliseconds, timed
from benchmarks.gpu.model import call, make_magictime, make_pipeline, sample_magictime
from benchmarks.recording.alone import recording_alone, shares
from lvd import record

WARM_UP = 2
CASES = (  # dtype, attention kernels, timed steps by MagicTime's sampler
    ("float16", ("auto", "flash", "efficient", "cudnn", "math")),
    ("bfloat16", ("auto", "flash", "efficient")),
    ("float32", ("auto",)),
)
DECODING = (  # name, frames at once (None: the sampler's choice), of the VAE
    ("two frames at once", None, ()),
    ("all frames at once", 16, ()),
    ("all at once, sliced", 16, ("slicing",)),
    ("all at once, tiled", 16, ("tiling",)),
)


def part(bench):
    for dtype, kernels in CASES:
        if bench.sizes.is_smoke and dtype != "bfloat16":
            continue
        model = make_magictime(bench.sizes, bench.device, getattr(torch, dtype))
        for attention in kernels[:2] if bench.sizes.is_smoke else kernels:
            bench.measure(
                f"step, {dtype}, attention {attention}", steps_of(bench, model, attention)
            )
            if attention == "auto" and dtype != "float32":
                rest(bench, model, dtype)
        del model


def rest(bench, model, dtype):
    """Decoding and recording."""
    for name, chunk, modes in DECODING[:: 2 if bench.sizes.is_smoke else 1]:
        bench.measure(f"decode, {dtype}, {name}", decoding(bench, model.vae, chunk, modes))
    if dtype == "float16" or bench.sizes.is_smoke:
        bench.measure(f"AnimateDiffPipeline, {dtype}, recorded", recording(bench, model))
        bench.measure("recording alone, float16", alone(bench))


def steps_of(bench, model, attention):
    """Function that times guided denoising steps of MagicTime's sampler."""

    def measured():
        seconds = step_seconds(bench, model, attention)
        return {**milliseconds(seconds, "ms a step"), **bench.peak_gib()}

    return measured


def step_seconds(bench, model, attention="auto"):
    """Seconds of each timed step."""
    ends = []

    def on_step(step, timestep, x0, latents):
        wait(bench.device)
        ends.append(time.perf_counter())
        return [] if len(ends) > WARM_UP + bench.sizes.timed else None

    sample_magictime(model, bench.sizes, STEPS, on_step, attention)
    return [after - before for before, after in zip(ends, ends[1:])][WARM_UP:]


def decoding(bench, vae, chunk, modes):
    """Function that times the decoding of one video."""
    from MagicTime.utils.pipeline import decode

    def measured():
        latents = torch.randn(bench.sizes.latents, device=bench.device, dtype=vae.dtype)
        for mode in modes:
            getattr(vae, f"enable_{mode}")()
        try:
            seconds = timed(bench.device, lambda: decode(vae, latents, chunk), 2, 1)
            pixels = decode(vae, latents, chunk)
        finally:
            for mode in modes:
                getattr(vae, f"disable_{mode}")()
        finite = bool(torch.isfinite(pixels).all())
        return {**milliseconds(seconds, "ms a video"), **bench.peak_gib(), "finite": finite}

    return measured


def recording(bench, model):
    """Function that times calls of a pipeline with lvd.record and without, in turns."""

    def measured():
        pipe, sizes, steps = make_pipeline(model), bench.sizes, min(10, bench.sizes.steps)
        call(pipe, sizes, 2)
        seconds = {True: [], False: []}
        videos = {}
        for k in range(1 if sizes.is_smoke else 3):
            for recorded in (False, True):
                path = bench.folder / f"recorded{k}" / "pred_x0.pth"
                wait(bench.device)
                began = time.perf_counter()
                if recorded:
                    with record(pipe, path, 1) as recording, recording.row(0):
                        videos[True] = call(pipe, sizes, steps)
                else:
                    videos[False] = call(pipe, sizes, steps)
                wait(bench.device)
                seconds[recorded].append((time.perf_counter() - began) / steps)
        plain, with_it = (statistics.median(seconds[kind]) for kind in (False, True))
        return {
            "ms a step": plain * 1e3,
            "recorded": with_it * 1e3,
            "added percent": (with_it / plain - 1) * 100,
            "same bits as unrecorded": torch.equal(videos[True], videos[False]),
        }

    return measured


def alone(bench):
    """Function that times what recording does by itself, for one whole video."""

    def measured():
        sizes, folder = bench.sizes, bench.folder / "alone"
        folder.mkdir()
        copies, writes = recording_alone(
            folder, 1, sizes.steps, sizes.latents, torch.float16, bench.device, 3
        )
        rows = dict(shares(copies, writes, 1.0))
        return {f"{name}, ms a video": rows[name]["median_ms"] for name in rows}

    return measured
