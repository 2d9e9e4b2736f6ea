"""How detectors compute, whatever the process has chosen for its other networks."""

from contextlib import contextmanager

import torch


@contextmanager
def own_precision(device):
    """Let the block compute with the types of its tensors, without autocast and gradients.

    Args:
        device: torch.device of the networks.
    """
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        yield
