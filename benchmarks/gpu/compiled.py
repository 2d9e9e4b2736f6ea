"""Steps of MagicTime's sampler with torch.compile; the first one compiles."""

import time

import torch

from benchmarks.gpu.bench import milliseconds
from benchmarks.gpu.model import make_magictime
from benchmarks.gpu.sampler import step_seconds


def part(bench):
    bench.measure("step, float16, compiled", lambda: compiled(bench))


def compiled(bench):
    dtype = torch.bfloat16 if bench.sizes.is_smoke else torch.float16
    model = make_magictime(bench.sizes, bench.device, dtype)
    model.unet.compile(**({"backend": "eager"} if bench.sizes.is_smoke else {}))
    began = time.perf_counter()
    seconds = step_seconds(bench, model)
    whole = time.perf_counter() - began
    return {**milliseconds(seconds, "ms a step"), "s with compiling": whole, **bench.peak_gib()}
