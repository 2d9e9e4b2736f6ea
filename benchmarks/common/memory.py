"""Memory of this process, as Linux counts it."""

import threading
from pathlib import Path

POLL = 0.005  # seconds between two looks; the kernel keeps no peak of the anonymous memory


def status(key):
    """A memory figure of this process from /proc/self/status.

    Args:
        key: VmHWM, the peak of all resident pages, touched pages of mapped files included; RssAnon,
            the process's own memory now; or RssFile, mapped file pages now.

    Returns:
        MiB.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


class AnonymousPeak:
    """Peak of this process's own memory (RssAnon) since the block began: `mib`, in MiB."""

    def __enter__(self):
        self.mib = status("RssAnon")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        while not self._ended.wait(POLL):
            self.mib = max(self.mib, status("RssAnon"))

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
