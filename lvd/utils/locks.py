"""Locks of open files between processes (flock). A lock ends with its process, also when killed."""

import errno
import fcntl
import os
import sys
import time
from contextlib import contextmanager, suppress

BUSY = (errno.EWOULDBLOCK, errno.EACCES)
# Some network file systems have no locks.
UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)
PAUSE = 0.05  # seconds between two tries
SILENT = 2.0  # seconds of waiting before it is told


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
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # no locks of folders here: the file's own lock must be enough
            if try_lock(handle, patience=SILENT) is False:
                print(f"{folder}: waiting for another process that has locked it", file=sys.stderr)
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
