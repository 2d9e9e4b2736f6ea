"""Devices, threads, and the processes of one `accelerate launch`, on one machine or several.

The processes share no tensors. Each works on items of its own and writes its own files or rows, so
results do not depend on how many there are. A script started as plain `python script.py` is one
process, and nothing is set up.
"""

import os
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from lvd.errors import InputError, words_of
from lvd.utils.exchange import exchanged, need_no_failure
from lvd.utils.sockets import break_when_silent

LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # variables of accelerate launch and torchrun
OTHER_LAUNCHERS = (  # variables that tell how many processes MPI or Slurm has started
    "WORLD_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "SLURM_STEP_NUM_TASKS",
)
CONNECT = timedelta(minutes=10)  # until all processes have started
_narrowing = threading.RLock()  # held in `one_thread`
KEEP_ALIVE = (120, 60, 8)  # seconds, seconds, times: a machine that vanished is told in 10 minutes
PATIENCE = timedelta(days=7)  # at a barrier: the shares of a long run end hours apart


def pick_device(gpu_num, asked_by="--gpu_num"):
    """Return the torch.device that a flag names.

    Args:
        gpu_num: number of a CUDA device; -1: the CPU. Without any CUDA device it is the CPU, too,
            and one line on stderr says so.
        asked_by: what a message calls the flag.

    Raises:
        InputError: below -1, or the machine has CUDA devices, but not this one.
    """
    import torch

    if gpu_num < -1:
        raise InputError(
            f"{asked_by} {gpu_num}: a CUDA device from 0, or -1 for the CPU, is needed"
        )
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
    """This process among those of its run."""

    rank: int = 0  # number of this process
    count: int = 1  # how many there are
    local_rank: int = 0  # number of this process on this machine, which is that of its GPU

    @property
    def is_main(self):
        """Whether this is process 0, which prints and writes what all have in common."""
        return self.rank == 0

    def share(self, items):
        """Return every count-th item: this process's share of a list that all processes have."""
        return items[self.rank :: self.count]

    def device(self, gpu_num):
        """Return the torch.device of `--gpu_num`: of several processes, each has its own GPU.

        Raises:
            InputError: the device does not exist, or one GPU is named for several processes.
        """
        if self.count == 1 or gpu_num < 0:
            return pick_device(gpu_num)
        if gpu_num > 0:
            raise InputError(
                f"--gpu_num {gpu_num}: each of the {self.count} processes has a GPU of its own; "
                "accelerate launch --gpu_ids chooses them"
            )
        return pick_device(self.local_rank, "--num_processes: process")

    def barrier(self):
        """Wait until all processes are here.

        Raises:
            InputError: one of them has ended.
        """
        if self.count > 1:
            from torch import distributed

            with self._while_all_live():
                distributed.monitored_barrier(timeout=PATIENCE)

    def gather(self, value):
        """Wait until all processes are here, and tell each of them what all have to say.

        Args:
            value: what JSON can hold.

        Returns:
            [value of process 0, value of process 1, ...].

        Raises:
            InputError: one of them has ended.
        """
        if self.count == 1:
            return [value]
        self.barrier()  # the exchange itself has less patience
        with self._while_all_live():
            return exchanged(value, self.count)

    @contextmanager
    def _while_all_live(self):
        """Say in one line that another process has ended where the block hears nothing of it."""
        _state()
        try:
            yield
        except RuntimeError as error:  # the connection is broken
            raise InputError(
                f"process {self.rank}: another process of this run has ended (see its message) or "
                "is out of reach; the same command goes on from what is finished"
            ) from error

    @contextmanager
    def main_first(self):
        """Run a block of checks in the main process first, then in the others.

        No process leaves the block before all have finished it, so all of them have seen the same
        files. What one of them refuses ends all, and each machine says it once.
        """
        if self.count == 1:
            yield
            return
        if not self.is_main:
            need_no_failure(self)
        failure = None
        try:
            yield
        except Exception as error:  # raised again below
            failure = error
        if self.is_main:
            need_no_failure(self, failure)
        need_no_failure(self, failure)


def processes():
    """Return the Processes that the launcher's environment variables describe.

    accelerate launch and torchrun set all four of them. Otherwise there is a single process; where
    the environment looks as if there should be more, a line on stderr says so.

    Raises:
        InputError: a variable is no number or contradicts another, or the other processes cannot
            be reached.
    """
    if not {*LAUNCHER, "MASTER_ADDR"} <= set(os.environ):
        _warn_alone()
        return Processes()
    numbers = {}
    for name in LAUNCHER:
        if not os.environ[name].isdecimal():
            raise InputError(
                f"environment variable {name}={os.environ[name]!r}: a whole number is needed, as "
                "accelerate launch sets it"
            )
        numbers[name] = int(os.environ[name])
    launched = Processes(numbers["RANK"], numbers["WORLD_SIZE"], numbers["LOCAL_RANK"])
    local_fits = launched.local_rank <= launched.rank or launched.count == 1
    if not local_fits or launched.rank >= launched.count:
        raise InputError(
            f"environment variables RANK={launched.rank}, LOCAL_RANK={launched.local_rank}, "
            f"WORLD_SIZE={launched.count}: ranks from 0 and below WORLD_SIZE are needed, as "
            "accelerate launch sets them"
        )
    if launched.count == 1:
        _warn_alone()
        return Processes()
    try:
        _state()
        break_when_silent(*KEEP_ALIVE)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"process {launched.rank} of {launched.count}: no connection to the others at "
            f"{os.environ['MASTER_ADDR']} ({words_of(error)})"
        ) from error
    return launched


def need_one_process(script):
    """Refuse a launch of several processes, which would all do the same work in one folder.

    Args:
        script: its name, for the message.

    Raises:
        InputError: this is the first of several on its machine. The others end without a word.
    """
    launched = processes()
    if launched.count > 1 and launched.local_rank > 0:
        raise SystemExit(2)
    if launched.count > 1:
        raise InputError(
            f"{script}: started as {launched.count} processes, one is needed; leave accelerate "
            "launch out"
        )


def _warn_alone():
    """Say on stderr that this process works alone although several seem to be wanted."""
    wanted = [name for name in OTHER_LAUNCHERS if os.environ.get(name, "1") not in ("", "0", "1")]
    by_accelerate = any(name.startswith("ACCELERATE_") for name in os.environ)
    if by_accelerate and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        found = "accelerate launch was asked for several processes and started one"
    elif wanted:
        found = f"{wanted[0]}={os.environ[wanted[0]][:20]}, but no launcher that this script knows"
    else:
        return
    print(
        f"{found}: this process works alone, on all of the work; for several, accelerate launch "
        "--multi_gpu --num_processes N is needed",
        file=sys.stderr,
    )


def _state():
    """accelerate's state of this process, which exists once.

    Only barriers are exchanged, so the back end of the CPU is enough.
    """
    from accelerate import PartialState

    return PartialState(cpu=True, timeout=CONNECT)


@contextmanager
def one_thread(wanted=True):
    """Let torch compute with one thread while the block runs.

    Small networks gain nothing from more threads, and lose much on a busy machine. Besides, their
    results do not depend on the number of cores then.

    The setting is one of the process, in part: of several Python threads that want it, one
    computes at a time.

    Args:
        wanted: False changes nothing.
    """
    import torch

    if not wanted or torch.get_num_threads() == 1:
        yield
        return
    with _narrowing:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def settle_threads():
    """Give a Python thread that is new the number of threads that torch has in this process.

    Torch gives it at the thread's first computation. One that began while another thread is in
    `one_thread` would compute with one thread ever after.
    """
    import torch

    with _narrowing:
        torch.get_num_threads()
