"""The sampler on this machine: precision, offloading, VAE slices and tiles, kernels, compilation.

None of it changes a video beyond rounding, except dtype and vae_tiling, whose tiles are blended at
their edges.
"""

from contextlib import contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lvd.errors import InputError, words_of

FLASH, EFFICIENT, CUDNN, MATH = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
)
# Kernels in the order in which they are tried: not every one takes every layer (on CUDA flash stops
# at 256 numbers a head, the VAE has 512) or every dtype.
ATTENTION = {
    "auto": None,
    "flash": [FLASH, EFFICIENT, MATH],
    "efficient": [EFFICIENT, FLASH, MATH],
    "cudnn": [CUDNN, FLASH, EFFICIENT, MATH],
    "math": [MATH],
}
# Settings that change no video beyond rounding.
HARMLESS = ("attention", "cpu_offload", "vae_slicing", "compile")


def place_on_device(model, device, settings):
    """Put a model on a device as the settings say.

    Args:
        model: MagicTime.utils.weights.load.MagicTime.
        device: torch.device.
        settings: SamplingSettings; its dtype and hardware keys count.

    Returns:
        `model`.
    """
    dtype = getattr(torch, settings.dtype)
    offload = settings.cpu_offload and device.type != "cpu"
    model.to(torch.device("cpu") if offload else device, dtype)
    if offload:
        _offload(model, device)
    if settings.vae_slicing:
        model.vae.enable_slicing()
    if settings.vae_tiling:
        model.vae.enable_tiling()
    if settings.compile:
        model.unet.compile()
    return model


def _offload(model, device):
    """Let each part visit `device` while it is called, from one part's call to the next one's."""
    from accelerate import cpu_offload_with_hook

    first = last = None
    for part in (model.text_encoder, model.unet, model.vae):
        _, last = cpu_offload_with_hook(part, device, last)
        first = first or last
    first.hook.prev_module_hook = last
    model.run_on = device


@contextmanager
def kernels(settings):
    """Use the attention kernels of `settings` in a block that samples.

    Raises:
        InputError: torch.compile does not work on this machine.
    """
    from torch._dynamo.exc import TorchDynamoException

    wanted = ATTENTION[settings.attention]
    chosen = sdpa_kernel(wanted, set_priority=True) if wanted else nullcontext()
    try:
        with chosen:
            yield
    except TorchDynamoException as error:
        raise InputError(
            f"compile: torch.compile does not work here ({words_of(error, 160)}); "
            "it needs a C++ compiler, and triton on a GPU; leave it out"
        ) from error
