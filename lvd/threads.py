"""How many CPU threads compute."""

from contextlib import contextmanager

import torch


@contextmanager
def one_thread(wanted=True):
    """Torch computes with one thread in the block: small networks gain nothing by more and lose much on a busy machine, and
    so their results do not depend on the number of cores."""
    before = torch.get_num_threads()
    if not wanted or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
