"""The processes that train the grid's chunks: this one, or several that it starts."""

import os
import signal
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process

import torch

from lvd.data.clip_cache import read_ahead
from lvd.errors import InputError
from lvd.training.chunks import load_readers, open_readers, train_chunk

LOOK_EVERY = 0.5  # seconds between looks at what the processes have finished
WAIT = 5  # seconds for a process of a broken pool to end


def train_here(chunks, launched):
    """Train chunk after chunk in this process.

    Args:
        chunks: of `chunks_of`.
        launched: processes of the launch on this machine.

    Yields:
        a row of metrics for each detector.
    """
    if not chunks:
        return
    before = torch.get_num_threads()
    if torch.device(chunks[0][0].device).type == "cuda":
        readers_of_chunks = read_ahead(load_readers, chunks)
    else:  # on the CPU reading ahead would take time from training
        readers_of_chunks = map(open_readers, chunks)
    try:
        for jobs, readers in zip(chunks, readers_of_chunks, strict=True):
            torch.set_num_threads(_threads(jobs[0].settings, launched))
            yield from train_chunk(jobs, readers)
    finally:
        torch.set_num_threads(before)


def train_in_processes(chunks, workers, launched):
    """Train chunks in processes of their own, several at once.

    Args:
        chunks: of `chunks_of`.
        workers: processes to start.
        launched: processes of the launch on this machine. Each of them starts `workers`.

    Yields:
        a row of metrics for each detector, and None now and then.

    Raises:
        InputError: a process has ended before its work, or what training itself refuses.
    """
    threads = _threads(chunks[0][0].settings, workers * launched)
    others = set(active_children())
    with ProcessPoolExecutor(
        min(workers, len(chunks)), get_context("spawn"), _start_worker, (threads,)
    ) as pool:
        with _no_interrupts(), _no_script():
            waiting = {pool.submit(_train_whole_chunk, jobs) for jobs in chunks}
        started = set(active_children()) - others
        try:
            while waiting:
                done, waiting = wait(waiting, LOOK_EVERY, FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
                yield None  # the caller may look at what is finished
        except BrokenProcessPool as error:
            raise InputError(
                f"--workers {workers}: a training process {_how_it_ended(started)}; finished "
                "detectors are kept, run again with fewer workers"
            ) from error
        except BaseException as error:
            # chunks that wait are dropped; those that train are finished, but not after Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
                for process in started:
                    process.terminate()
            raise


def _threads(settings, processes):
    """Threads of each of the processes that train at the same time.

    Small networks take one: more hardly help them, and so the detectors do not depend on how many
    processes or cores there are.
    """
    if settings.size != "base":
        return 1
    return max(1, (os.cpu_count() or 1) // processes)


@contextmanager
def _no_interrupts():
    """Processes started in the block ignore Ctrl-C and print no traceback: the parent ends them."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def _no_script():
    """Processes started in the block do not import the script that this process runs.

    They need nothing of it. A script that calls main() without `if __name__ == "__main__"` would
    begin anew in each of them, and one that came through stdin has no file to import.
    """
    script = sys.modules["__main__"]
    names = ("__spec__", "__file__")
    hidden = {name: vars(script)[name] for name in names if name in vars(script)}
    script.__spec__ = script.__file__ = None
    try:
        yield
    finally:
        for name in names:
            del vars(script)[name]
        vars(script).update(hidden)


def _how_it_ended(processes):
    """Say how the first of some processes ended: the pool ends all others by SIGTERM."""
    for process in processes:
        process.join(WAIT)
    codes = {process.exitcode for process in processes} - {None, 0}
    if -signal.SIGKILL in codes or not codes:
        return "was killed, as happens when memory runs out"
    failed = sorted(code for code in codes if code > 0)
    if failed:
        return f"failed with status {failed[0]} (its own message is above)"
    first, *_ = sorted(codes - {-signal.SIGTERM}) or [-signal.SIGTERM]
    return f"was ended by {signal.Signals(-first).name}"


def _start_worker(threads):
    """Let a worker end with the process that started it: else it would hold its GPU for ever."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    parent_process().join()
    os._exit(1)


def _train_whole_chunk(jobs):
    return list(train_chunk(jobs))
