"""Counting what a process does to files, and a signal that it gets at the n-th operation.

Nothing here can be undone: it is meant for a process that exists for one trial.
"""

import builtins
import io
import os
import sys

# Audit events of CPython. "open" counts too, for a file that is to be written.
EVENTS = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "fcntl.flock",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Operations:
    """Counts opening to write, writing, renaming, deleting, linking, flushing and locking.

    Writing is counted where Python does it; libraries that write files in C (mp4) are not seen
    between opening and renaming.

    Args:
        at: number of the operation, from 1, before which the process gets the signal; a write is
            cut in half there. None: of no operation.
        signal: its number.
    """

    def __init__(self, at=None, signal=None):
        self.at, self.signal = at, signal
        self.count = 0

    def install(self):
        """Count from now on."""
        sys.addaudithook(self._audit)
        builtins.open = io.open = self._open
        for name in ("write", "pwrite"):
            setattr(os, name, self._halved(getattr(os, name)))
        os.fsync = self._noted(os.fsync)

    def note(self):
        """Count one operation."""
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), self.signal)

    @property
    def is_last(self):
        """Whether the next operation is the one of the signal."""
        return self.count + 1 == self.at

    def _audit(self, event, args):
        if event in EVENTS or (event == "open" and isinstance(args[2], int) and args[2] & WRITING):
            self.note()

    def _noted(self, function):
        def noted(*args):
            self.note()
            return function(*args)

        return noted

    def _halved(self, function):
        """os.write or os.pwrite; the one of the signal writes the first half."""

        def halved(file, data, *offset):
            if not self.is_last:
                self.note()
                return function(file, data, *offset)
            view = memoryview(data).cast("B")
            written = function(file, view[: len(view) // 2], *offset)
            self.note()
            return written

        return halved

    def _open(
        self,
        file,
        mode="r",
        buffering=-1,
        encoding=None,
        errors=None,
        newline=None,
        closefd=True,
        opener=None,
    ):
        """As io.open, with counted writes."""
        if not set(mode) & set("wax+"):
            words = (buffering, encoding, errors, newline, closefd, opener)
            return ORIGINAL_OPEN(file, mode, *words)
        raw = _File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        raw.operations = self
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffer
        text = io.TextIOWrapper(buffer, encoding, errors, newline, buffering == 1)
        text.mode = mode
        return text


class _File(io.FileIO):
    operations = None

    def write(self, data):
        if not self.operations.is_last:
            self.operations.note()
            return super().write(data)
        view = memoryview(data).cast("B")
        written = super().write(view[: len(view) // 2])
        self.operations.note()
        return written


ORIGINAL_OPEN = io.open
