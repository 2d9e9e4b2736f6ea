"""Fitting the sampler to the machine: precision, offloading, the VAE's slices and tiles, attention kernels, compilation.

None of it changes a video beyond rounding, but for dtype and for vae_tiling, whose tiles are blended at their edges.
"""

from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lvd.errors import InputError

ATTENTION = {"auto": None, "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION,
             "cudnn": SDPBackend.CUDNN_ATTENTION, "math": SDPBackend.MATH}
DEFAULTS = {"attention": "auto", "cpu_offload": False, "vae_slicing": False, "vae_tiling": False, "compile": False}
SWITCHES = tuple(key for key, value in DEFAULTS.items() if value is False)
HARMLESS = tuple(key for key in DEFAULTS if key != "vae_tiling")  # change no video beyond rounding


def fit(model, device, settings):
    """Put the MagicTime `model` on `device` as `settings` say (dtype and the keys of DEFAULTS). Returns `model`."""
    dtype = getattr(torch, settings["dtype"])
    offload = settings["cpu_offload"] and device.type != "cpu"
    model.to(torch.device("cpu") if offload else device, dtype)
    if offload:
        _offload(model, device)
    if settings["vae_slicing"]:
        model.vae.enable_slicing()
    if settings["vae_tiling"]:
        model.vae.enable_tiling()
    if settings["compile"]:
        model.unet.compile()
    return model


def _offload(model, device):
    """Each part comes to `device` when it is called and goes back when the next one is."""
    from accelerate import cpu_offload_with_hook

    before = None
    for part in (model.text_encoder, model.unet, model.vae):
        _, before = cpu_offload_with_hook(part, device, before)
    model.run_on = device


@contextmanager
def attention_kernels(name):
    """Restrict torch's scaled_dot_product_attention to the kernel `name` of ATTENTION; InputError if it cannot run here."""
    if ATTENTION[name] is None:
        yield
        return
    try:
        with sdpa_kernel(ATTENTION[name]):
            yield
    except RuntimeError as error:
        if not any(said in str(error) for said in ("No available kernel", "No viable backend")):  # CUDA; the CPU
            raise
        raise InputError(f"attention={name}: torch has no such kernel for this device and dtype; auto picks one that runs "
                         f"(also there: {', '.join(k for k in ATTENTION if k not in ('auto', name))})") from error
