"""The processes of one `accelerate launch`: who this one is, which part of the work is its, where
all wait for each other.

They share no tensors: each works on items of its own and writes its own files or rows, so that
results do not depend on how many there are. Started as plain `python script.py` there is one
process and nothing is set up.
"""

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from lvd.errors import InputError

CONNECT = timedelta(minutes=10)  # for all processes to start
PATIENCE = timedelta(days=7)  # at a barrier; the shares of a long run end hours apart


def pick_device(gpu_num, asked_by="--gpu_num"):
    """torch.device of `--gpu_num`: that CUDA device, or the CPU with one line that says so."""
    import torch

    if gpu_num < 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        print(f"{asked_by} {gpu_num}: no CUDA device here, using the CPU", file=sys.stderr)
        return torch.device("cpu")
    if gpu_num >= torch.cuda.device_count():
        raise InputError(
            f"{asked_by} {gpu_num}: this machine has {torch.cuda.device_count()} CUDA device(s), "
            "from 0"
        )
    return torch.device("cuda", gpu_num)


@dataclass(frozen=True)
class Processes:
    """rank: this process, from 0; count: how many there are; local_rank: rank on this machine,
    which picks its GPU."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_main(self):
        return self.rank == 0

    def share(self, items):
        """This process's items of a list that all have alike: every count-th one."""
        return items[self.rank :: self.count]

    def device(self, gpu_num):
        """torch.device of `--gpu_num`: the device itself for one process, else the one of this rank
        (-1: the CPU)."""
        if self.count == 1 or gpu_num < 0:
            return pick_device(gpu_num)
        if gpu_num > 0:
            raise InputError(
                f"--gpu_num {gpu_num}: each of the {self.count} processes has a GPU of its own; "
                "accelerate launch --gpu_ids chooses them"
            )
        return pick_device(self.local_rank, "--num_processes: process")

    def barrier(self):
        """Wait until all processes are here. InputError when one of them ended instead."""
        if self.count > 1:
            from torch import distributed

            _state()
            try:
                distributed.monitored_barrier(timeout=PATIENCE)
            except RuntimeError as error:  # gloo's connection breaks
                raise InputError(
                    f"process {self.rank}: another process of this run has ended (see its "
                    "message); the same command goes on from what is finished"
                ) from error

    @contextmanager
    def main_first(self):
        """Checks: by the main process, so that bad input is reported once, then by the others. None
        leaves the block before all are through it, so that all have seen the same."""
        if not self.is_main:
            try:
                self.barrier()
            except InputError:  # the main process has said what is wrong
                raise SystemExit(2) from None
        yield
        if self.is_main:
            self.barrier()
        self.barrier()


def processes():
    """Processes of the launcher's environment variables (accelerate launch, torchrun); a single one
    without them."""
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= set(
        os.environ
    ):  # a stray one is no launcher's
        return Processes()
    found = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        if not os.environ[name].isdecimal():
            raise InputError(
                f"environment variable {name}={os.environ[name]!r}: a whole number is needed, as "
                "accelerate launch sets it"
            )
        found[name] = int(os.environ[name])
    if found["WORLD_SIZE"] <= 1:
        return Processes()
    try:
        _state()
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"process {found['RANK']} of {found['WORLD_SIZE']}: no connection to the others at "
            f"{os.environ['MASTER_ADDR']} ({' '.join(str(error).split())[:120]})"
        ) from error
    return Processes(found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"])


def _state():
    """accelerate's state of this process, made once. Nothing but barriers is exchanged, so the
    CPU's back end will do."""
    from accelerate import PartialState

    return PartialState(cpu=True, timeout=CONNECT)


@contextmanager
def one_thread(wanted=True):
    """Torch computes with one thread in the block: small networks gain nothing by more and lose
    much on a busy machine, and so their results do not depend on the number of cores."""
    import torch

    before = torch.get_num_threads()
    if not wanted or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
