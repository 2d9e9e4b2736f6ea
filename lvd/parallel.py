"""The processes of one `accelerate launch`: who this one is, which part of the work is its, where all wait for each other.

They share no tensors: each works on items of its own and writes its own files or rows, so that results do not
depend on how many there are. Started as plain `python script.py` there is one process and nothing is set up.
"""

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from lvd.command import pick_device
from lvd.errors import InputError

PATIENCE = timedelta(days=7)  # at a barrier; the shares of a long run end hours apart


@dataclass(frozen=True)
class Processes:
    """rank: this process, from 0; count: how many there are; local_rank: rank on this machine, which picks its GPU."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_main(self):
        return self.rank == 0

    def share(self, items):
        """This process's items of a list that all have alike: every count-th one."""
        return items[self.rank::self.count]

    def device(self, gpu_num):
        """torch.device of `--gpu_num`: the device itself for one process, else the one of this rank (-1: the CPU)."""
        return pick_device(gpu_num if self.count == 1 or gpu_num < 0 else self.local_rank)

    def barrier(self):
        """Wait until all processes are here. InputError when one of them ended instead."""
        if self.count > 1:
            try:
                _state().wait_for_everyone()
            except RuntimeError as error:  # gloo's connection breaks
                raise InputError(f"process {self.rank}: another process of this run has ended (see its message); the same "
                                 f"command goes on from what is finished") from error

    @contextmanager
    def main_first(self):
        """Checks: by the main process, so that bad input is reported once, then by the others. None leaves the block before
        all are through it, so that all have seen the same."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()
        self.barrier()


def processes():
    """Processes of the launcher's environment variables (accelerate launch, torchrun); a single one without them."""
    if int(os.environ.get("WORLD_SIZE", 1)) <= 1:
        return Processes()
    state = _state()
    return Processes(state.process_index, state.num_processes, state.local_process_index)


def _state():
    """accelerate's state of this process, made once. Nothing but barriers is exchanged, so the CPU's back end will do."""
    from accelerate import PartialState

    return PartialState(cpu=True, timeout=PATIENCE)
