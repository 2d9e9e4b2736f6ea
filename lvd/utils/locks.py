"""Locks of open files between processes (flock). A lock ends with its process, also when killed."""

import errno
import fcntl
import os
import sys
import time
from contextlib import contextmanager, suppress

from lvd.errors import InputError

BUSY = (errno.EWOULDBLOCK, errno.EACCES)
# Some network file systems have no locks.
UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)
PAUSE = 0.05  # seconds between two tries
SHORT, LONG = 2.0, 30.0  # seconds to wait for a folder: in silence, and after that was said


def try_lock(file, shared=False, patience=0.0):
    """Lock an open file, or change the lock that it has.

    Args:
        file: an open file or its descriptor.
        shared: others may hold a shared lock too; else nobody else may hold one.
        patience: seconds to wait for others that hold it.

    Returns:
        True: the file is locked. False: others hold it; a lock that was to be changed is lost.
        None: this file system has no locks.
    """
    until = time.monotonic() + patience
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return None
            if error.errno not in BUSY:
                raise
        if time.monotonic() >= until:
            return False
        time.sleep(PAUSE)


def warn_unlocked(path):
    """Say on stderr that nothing keeps other runs away from this file."""
    print(
        f"{path}: this file system has no file locks; make sure that only one run at a time "
        "writes here",
        file=sys.stderr,
    )


@contextmanager
def folder_lock(folder):
    """Let one process at a time run the block.

    It locks the folder, for a short time: while the file that will be locked does not exist yet.

    Raises:
        InputError: another process keeps the folder.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        locked = None  # no locks of folders here: the file's own lock must be enough
        with suppress(OSError):
            locked = try_lock(handle, patience=SHORT)
            if locked is False:
                print(f"{folder}: waiting for another process that locks it", file=sys.stderr)
                locked = try_lock(handle, patience=LONG)
        if locked is False:
            raise InputError(
                f"{folder}: another running process locks this folder; wait for it or stop it"
            )
        yield
    finally:
        os.close(handle)
