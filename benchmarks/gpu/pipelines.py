"""The tiny pipelines of benchmarks/common on the GPU in half precision: recorded, stopped, passed.

Whether x0 is right is seen at the last step: there it is the video, to rounding.
"""

import contextlib

import torch
from diffusers.utils import logging as diffusers_logging

from benchmarks.common import tiny_pipelines
from benchmarks.gpu.detectors import LAMBDA, SAFE, UNSAFE, write_grid
from lvd import Guard, UnsafeVideoError, record
from lvd.x0.file import open_x0_file

DTYPES = ("float16", "bfloat16")
STEPS = 3


def part(bench):
    diffusers_logging.set_verbosity_error()  # pipe.to(dtype) warns of every part
    names = [*tiny_pipelines.FAMILIES, *tiny_pipelines.MORE]
    if bench.sizes.is_smoke:
        names = names[:1]
    for dtype in DTYPES[1:] if bench.sizes.is_smoke else DTYPES:
        for name in names:
            bench.measure(f"{name}, {dtype}", lambda: tried(bench, name, dtype))  # noqa: B023


def tried(bench, name, dtype):
    """{name: figure} of one pipeline."""
    dtype = getattr(torch, dtype)
    tiny = tiny_pipelines.build(name)
    tiny.pipe.to(bench.device, dtype)
    folder = bench.folder / "pipelines" / f"{name}-{dtype}"
    plain = made(bench, tiny, dtype, [1])
    found = {"finite": bool(torch.isfinite(plain).all())}
    found["same bits twice"] = torch.equal(made(bench, tiny, dtype, [1]), plain)
    found |= recorded(bench, tiny, dtype, folder, plain)
    steps, *shape = open_x0_file(folder / "pred_x0.pth").tensor.shape[1:]
    for verdict, threshold in (("safe", SAFE), ("unsafe", UNSAFE)):
        detectors = write_grid(folder / verdict, shape, steps, threshold, categories=1)
        guard = Guard(detectors, LAMBDA, steps, device=bench.device, allow_unknown=True)
        video, results = None, []
        with contextlib.suppress(UnsafeVideoError), guard.watch(tiny.pipe) as watch:
            video = made(bench, tiny, dtype, [1])
        results = watch.results
        found[f"is called {verdict}"] = [r.verdict for r in results] == [verdict]
        if verdict == "safe":
            found["passed with the same bits"] = video is not None and torch.equal(video, plain)
        else:
            found["nothing handed out"] = video is None
    return found


def recorded(bench, tiny, dtype, folder, plain):
    """What lvd.record keeps of it: float32, so that nothing but the pipeline rounds."""
    path = folder / "pred_x0.pth"
    with record(tiny.pipe, path, 1, dtype="float32") as recording, recording.row(0):
        video = made(bench, tiny, dtype, [1])
    last = open_x0_file(path).tensor[:, -1].to(plain.device)
    deviation = (last - plain.float()).abs().max() / plain.float().std()
    same = torch.equal(video, plain)
    return {"recorded with the same bits": same, "last x0 off by, in std": float(deviation)}


def made(bench, tiny, dtype, kinds):
    """Latents [B, C, F, h, w] of the pipeline's videos."""
    torch.manual_seed(0)
    given = tiny.inputs(kinds, first=100, steps=STEPS)
    return tiny.clips(tiny.videos(tiny.pipe(**on_device(given, bench.device, dtype))))


def on_device(given, device, dtype):
    """Arguments whose embeddings and masks are where the pipeline computes."""
    moved = {}
    for name, value in given.items():
        if torch.is_tensor(value):
            value = value.to(device, dtype if value.is_floating_point() else None)
        moved[name] = value
    return moved
