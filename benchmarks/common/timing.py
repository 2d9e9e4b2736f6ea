"""Seconds of a block, and what several of them say."""

import statistics
import time
from dataclasses import dataclass

import torch


def wait(device):
    """Wait until a GPU has done what it was told; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Clock:
    """`seconds`, and CPU seconds of this process (`cpu`), in a block; waits for a GPU."""

    device: torch.device

    def __enter__(self):
        wait(self.device)
        self._began = time.perf_counter()
        self._began_cpu = time.process_time()
        return self

    def __exit__(self, *_):
        wait(self.device)
        self.seconds = time.perf_counter() - self._began
        self.cpu = time.process_time() - self._began_cpu


def spread(values):
    """Least, median and greatest of several runs' values, and how many there are."""
    return {
        "min": min(values),
        "median": statistics.median(values),
        "max": max(values),
        "runs": len(values),
    }
