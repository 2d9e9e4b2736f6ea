"""The audit log: one line of JSON for each request, on the disk before the request is answered."""

import os
import threading
from pathlib import Path

from lvd.errors import InputError, words_of
from lvd.utils.disk import disk_problem
from lvd.utils.jsonl import append_lines, cut_half_line, open_lines
from lvd.utils.locks import try_lock, warn_unlocked


class AuditLog:
    """A file of JSON lines that belongs to this process alone.

    A half line that a killed server has left is removed. When the file was moved away (log
    rotation), a new one is begun.

    Args:
        path: of the file. Its folder must be there.

    Attributes:
        problem: why the last line could not be written; None: it could.

    Raises:
        InputError: another server writes to it, or it is no file.
        OSError: it cannot be opened.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.problem = None
        self._lock = threading.Lock()
        self._file = None
        self._open()

    def write(self, line):
        """Write one line (a dict), which is on the disk when this returns.

        Raises:
            InputError: it cannot be written. `problem` says why.
        """
        with self._lock:
            self._try(lambda: append_lines(self._file, [line]))

    def check(self):
        """InputError if the file cannot be opened any more."""
        with self._lock:
            self._try(lambda: None)

    def close(self):
        with self._lock:
            self._forget()

    def _try(self, work):
        try:
            if not self._is_there():
                self._open()
            work()
        except (OSError, ValueError) as error:  # an InputError is a ValueError
            is_disk = isinstance(error, OSError)
            self.problem = disk_problem(error) if is_disk else words_of(error, 200)
            self._forget()  # the next try begins with a whole file
            raise InputError(f"the log cannot be written: {self.problem}") from error
        self.problem = None

    def _is_there(self):
        """Whether the open file still lies at its path."""
        if self._file is None:
            return False
        try:
            here = os.stat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(here, os.fstat(self._file.fileno()))

    def _open(self):
        self._forget()
        file = open_lines(self.path)
        locked = try_lock(file)
        if locked is False:
            file.close()
            raise InputError(f"{self.path}: another server writes to it; another folder is needed")
        if locked is None:
            warn_unlocked(self.path)
        cut_half_line(file)
        self._file = file

    def _forget(self):
        if self._file is not None:
            self._file.close()
            self._file = None
