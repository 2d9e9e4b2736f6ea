"""Calls of a protected pipeline, alone and in threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

from lvd import UnsafeVideoError
from tests.worlds.guarded_recordings import STEPS


def call(safe, tiny, kind=-1, seed=50, **changes):
    """Return (frames, None where it is refused; verdicts)."""
    try:
        output = safe(**tiny.inputs([kind], (seed,), first=100, steps=STEPS, **changes))
    except UnsafeVideoError as error:
        return None, [result.verdict for result in error.results]
    return output.frames, [result.verdict for result in output.lvd]


def at_once(function, jobs):
    """Run function(*job) for all jobs, each in a thread of its own; return the answers."""
    with ThreadPoolExecutor(len(jobs)) as threads:
        return list(threads.map(lambda job: function(*job), jobs))


def meeting(count):
    """Arguments of a call that waits, after its first step, until `count` calls are there."""
    barrier = threading.Barrier(count, timeout=60)

    def meet(pipe, step, timestep, kwargs):
        if step == 0:
            barrier.wait()
        return {}

    return dict(callback_on_step_end=meet)
