"""The guard where a model's parts wait on the CPU for their turn, and where the model is compiled.

What passes has the bits of an unguarded call that is placed in the same way; what is unsafe stops.
"""

from dataclasses import replace
from types import SimpleNamespace

import torch

from benchmarks.gpu.detectors import SAFE, UNSAFE, write_grid
from benchmarks.gpu.guarded import Runs
from benchmarks.gpu.model import make_magictime
from MagicTime.utils.hardware import place_on_device

STEPS = 8  # enough for a vote
ETA = 5


def part(bench):
    whole = bench.sizes
    bench.sizes = replace(whole, steps=min(STEPS, whole.steps))
    try:
        measure(bench)
    finally:
        bench.sizes = whole


def measure(bench):
    """Each way in turn. Offloading needs a GPU to come from."""
    sizes, folder = bench.sizes, bench.folder / "placed"
    eta = min(ETA, sizes.steps - 1)
    safe = write_grid(folder / "safe", sizes.latents, eta, SAFE)
    unsafe = write_grid(folder / "unsafe", sizes.latents, eta, UNSAFE)
    bench.measure("MagicTime's sampler, on the device", sampler(bench, eta, safe, unsafe))
    if bench.on_gpu:
        offloaded = sampler(bench, eta, safe, unsafe, cpu_offload=True)
        bench.measure("MagicTime's sampler, cpu_offload", offloaded)
    for name, place in WAYS.items():
        if bench.on_gpu or name in ON_A_CPU:
            bench.measure(f"AnimateDiffPipeline, {name}", pipeline(bench, eta, safe, unsafe, place))


def model_of(bench):
    dtype = torch.bfloat16 if bench.sizes.is_smoke else torch.float16
    return make_magictime(bench.sizes, bench.device, dtype)


def sampler(bench, eta, safe, unsafe, cpu_offload=False):
    """Function that samples with MagicTime's guard, placed by the sampling YAML's key."""

    def measured():
        model = model_of(bench)
        settings = SimpleNamespace(
            dtype=str(model.unet.dtype).removeprefix("torch."),
            cpu_offload=cpu_offload,
            vae_slicing=False,
            vae_tiling=False,
            compile=False,
        )
        runs = Runs(bench, place_on_device(model, bench.device, settings), eta)
        found = {f"unsafe: {key}": value for key, value in runs.magictime(unsafe).items()}
        return {**runs.magictime(safe), **found, **bench.peak_gib()}

    return measured


def pipeline(bench, eta, safe, unsafe, place):
    """Function that calls a pipeline twice without the guard, with one that passes, and with one
    that stops."""

    def measured():
        runs = Runs(bench, model_of(bench), eta)
        place(runs.pipe, bench.device)
        found = runs.plain()
        passed = runs.passed(safe)
        stopped = runs.stopped(unsafe)
        found |= {f"guarded: {key}": value for key, value in passed.items()}
        return found | {f"unsafe: {key}": value for key, value in stopped.items()}

    return measured


def on_the_device(pipe, device):
    pipe.to(device)


def model_offload(pipe, device):
    pipe.to("cpu")
    pipe.enable_model_cpu_offload(device=device)


def sequential_offload(pipe, device):
    pipe.to("cpu")
    pipe.enable_sequential_cpu_offload(device=device)


def group_offload(pipe, device):
    pipe.to(device)
    pipe.unet.enable_group_offload(
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=device.type == "cuda",
    )


def compiled(pipe, device):
    pipe.to(device)
    pipe.unet.compile()


WAYS = {
    "on the device": on_the_device,
    "model offload": model_offload,
    "sequential offload": sequential_offload,
    "group offload": group_offload,
    "compiled": compiled,
}
ON_A_CPU = ("on the device", "group offload")
