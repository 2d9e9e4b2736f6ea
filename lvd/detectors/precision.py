"""How detectors compute, whatever the process has chosen for its other networks."""

from contextlib import contextmanager

import torch

from lvd.utils.object_locks import lock_of
from lvd.utils.processes import one_thread

SMALL = 2_000_000  # weights of a network that is computed by one thread on a CPU, and stacked


@contextmanager
def own_precision(network):
    """Let a block compute without autocast and gradients, with products that are not rounded.

    A process may let products of float32 be rounded to TF32 or bfloat16, which moves scores by up
    to a thousandth. That is a setting of the whole process, so it is left alone. The network
    computes in float64 then, unless it is a large one on a GPU: many GPUs are slow in float64, and
    scores that move by a thousandth are the lesser harm.

    On a CPU a small network computes with one thread, which is faster.

    Of several Python threads, one at a time computes with a network.

    Args:
        network: nn.Module of float32 weights. It is given the type that the block computes in.

    Yields:
        torch.dtype that the inputs of the network must have.
    """
    first = next(network.parameters())
    device = first.device.type
    small = is_small(network)
    exact = device == "cpu" or (device == "cuda" and small)
    dtype = torch.float64 if exact and _rounds_products() else torch.float32
    with (
        torch.inference_mode(),
        torch.autocast(device, enabled=False),
        one_thread(device == "cpu" and small),
        lock_of(network),
    ):
        if next(network.parameters()).dtype != dtype:
            network.to(dtype)  # float64 and back leaves float32 weights as they are
        yield dtype


def is_small(network):
    """Tell whether a network has no more than SMALL weights."""
    return sum(weight.numel() for weight in network.parameters()) <= SMALL


def _rounds_products():
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # newer settings have been used, which it cannot tell
        return True
