"""Weights from a file: what they must be, before and after a network takes them."""

import hashlib
import math
import re

import torch

from lvd.errors import InputError, shorten
from lvd.utils.files import raw_bytes
from lvd.utils.schema import stores_all

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PATCHES = "videomae.embeddings.patch_embeddings.projection.weight"
LAYER = "videomae.encoder.layer"


def need_plain_weights(state, path):
    """Refuse weights that are not of floats, or that say more numbers than the file stores.

    Args:
        state: {name: tensor}.
        path: their file, for messages.
    """
    for name, tensor in state.items():
        if tensor.dtype not in FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(
                f"{path}: state_dict.{name[:100]}: found {kind}; float16, bfloat16, float32 or "
                "float64 is needed"
            )
        if not stores_all(tensor):
            raise InputError(
                f"{path}: state_dict.{name[:100]}: found a shape of {tensor.numel()} numbers, "
                "of which the file stores fewer; all are needed"
            )


def config_of_weights(state, path):
    """Return the keys of VideoMAEConfig that follow from the shapes of weights.

    Raises:
        InputError: they are of another network.
    """
    patches, inner = state.get(PATCHES), state.get(f"{LAYER}.0.intermediate.dense.weight")
    for name, weight, dims in (
        (PATCHES, patches, 5),
        (f"{LAYER}.0.intermediate.dense.weight", inner, 2),
    ):
        if weight is None or weight.dim() != dims:
            raise InputError(
                f"{path}: weights do not fit: not a VideoMAE classifier or encoder (no {name} of "
                f"{dims} dimensions)"
            )
    layers = {match[1] for name in state if (match := re.match(rf"{LAYER}\.(\d+)\.", name))}
    hidden, channels, tubelet, patch, _ = patches.shape
    return {
        "hidden_size": hidden,
        "num_channels": channels,
        "tubelet_size": tubelet,
        "patch_size": patch,
        "num_hidden_layers": len(layers),
        "intermediate_size": len(inner),
    }


def need_config_of_weights(config, state, path):
    """Refuse a config that says another network than that of the weights.

    This comes before the network is built: a wrong number may ask for any amount of memory.
    """
    for key, size in config_of_weights(state, path).items():
        if config[key] != size:
            raise InputError(
                f"{path}: config.{key}: found {shorten(config[key])}; its weights do not fit, they "
                f"are those of {size}"
            )


def load_weights(net, state, path):
    """Give a network on the meta device its weights, in float32, whatever the file holds.

    Raises:
        InputError: weights are missing, of another shape, or not finite.
    """
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise InputError(
            f"{path}: weights do not fit the detector ({first_fault(error)})"
        ) from error
    net.to(torch.float32).eval().requires_grad_(False)
    need_finite_weights(net.state_dict(), path)


def first_fault(error):
    """Return the first thing that load_state_dict complains of."""
    lines = [line.strip() for line in str(error).strip().split("\n")]
    return lines[min(1, len(lines) - 1)][:160]


def need_finite_weights(state, path):
    """Refuse weights that are not finite in float32."""
    for name, weight in state.items():
        weight = weight.float()
        # A sum is the fastest look at all values; it may also overflow where they are finite.
        if not math.isfinite(weight.sum().item()) and not weight.isfinite().all():
            raise InputError(
                f"{path}: state_dict.{name[:100]}: found values that are not finite numbers of "
                "float32; finite ones are needed, train it again"
            )


def digest(state):
    """Return the sha256 of weights: their names, types, shapes and values."""
    found = hashlib.sha256()
    for name, tensor in state.items():
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(raw_bytes(tensor.detach()))
    return found.hexdigest()
