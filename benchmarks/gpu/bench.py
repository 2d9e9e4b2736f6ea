"""Cases of a benchmark under a time budget: each is measured, skipped for want of time, or failed,
and the next one goes on."""

import gc
import signal
import statistics
import time
import traceback
from contextlib import contextmanager

import torch

from benchmarks.common.timing import wait
from lvd.utils.disk import GIB

LEAST = 3  # seconds that must be left for a case to begin


class OutOfTime(BaseException):
    """A case took more than the time that was left. Nothing that is measured may catch it."""


class Bench:
    """What the parts measure with.

    Args:
        device: torch.device.
        sizes: benchmarks.gpu.model.Sizes.
        folder: where detectors and recordings are written.
        figures: Figures.

    Attributes:
        part: name of the part at work; deadline: when it must be over, in time.monotonic().
    """

    def __init__(self, device, sizes, folder, figures):
        self.device, self.sizes, self.folder, self.figures = device, sizes, folder, figures
        self.part, self.deadline = "", 0.0

    @property
    def on_gpu(self):
        return self.device.type == "cuda"

    def left(self):
        """Seconds that this part may still take."""
        return self.deadline - time.monotonic()

    def measure(self, case, function):
        """Call `function`, which returns {name: figure}, and keep what it found.

        Figures that are True or False are checks: they should be True.

        Returns:
            The figures, or None where there are none.
        """
        if self.left() < LEAST:
            self.figures.add(self.part, case, {"skipped": "no time left"}, 0)
            return None
        began = time.monotonic()
        found, has_figures = {}, False
        try:
            self._clear()
            with _alarm(self.left()):
                found = function()
                wait(self.device)
            has_figures = True
        except OutOfTime:
            found = {"stopped": "out of time"}
        except torch.OutOfMemoryError:
            found = {"stopped": "out of memory"}
        except Exception as error:  # whatever it is, the next case goes on
            found = failure(error)
        self.figures.add(self.part, case, found, time.monotonic() - began)
        return found if has_figures else None

    def whole(self, part):
        """Run a part. What fails between its cases ends it alone."""
        began = time.monotonic()
        try:
            with _alarm(self.left() + LEAST):
                part()
        except (OutOfTime, Exception) as error:
            self.figures.add(self.part, "the part", failure(error), time.monotonic() - began)

    def peak_gib(self):
        """The most memory of the GPU that tensors took since the case began; none on a CPU."""
        if not self.on_gpu:
            return {}
        return {"peak GiB": torch.cuda.max_memory_allocated(self.device) / GIB}

    def _clear(self):
        if self.on_gpu:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


def failure(error):
    """{name: figure} of a case that ended with an error."""
    trace = "".join(traceback.format_exception(error))
    return {"error": f"{type(error).__name__}: {str(error)[:300]}", "traceback": trace[-4000:]}


@contextmanager
def _alarm(seconds):
    """Raise OutOfTime in the block once the seconds are over. One such block may hold another."""

    def ring(*_):
        raise OutOfTime

    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, ring)
    outer, _ = signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds))
    try:
        yield
    finally:
        rest = max(0.1, outer - (time.monotonic() - began)) if outer else 0
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, rest)


def milliseconds(seconds, what="ms"):
    """{name: figure} of several timings: median, least and greatest, in milliseconds."""
    return {
        what: statistics.median(seconds) * 1e3,
        "least": min(seconds) * 1e3,
        "greatest": max(seconds) * 1e3,
        "runs": len(seconds),
    }


def timed(device, function, repeats, warm_up=2):
    """Seconds of each of `repeats` calls, after `warm_up` others."""
    seconds = []
    for _ in range(warm_up + repeats):
        wait(device)
        began = time.perf_counter()
        function()
        wait(device)
        seconds.append(time.perf_counter() - began)
    return seconds[warm_up:]
