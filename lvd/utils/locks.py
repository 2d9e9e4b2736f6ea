"""Locks of open files, between processes (flock). They end with the process, however it ends."""

import errno
import fcntl
import os
import sys
import time
from contextlib import contextmanager

BUSY = (errno.EWOULDBLOCK, errno.EACCES)
UNSUPPORTED = (
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOLCK,
    errno.ENOSYS,
)  # some network file systems
PAUSE = 0.05  # seconds between two tries


def try_lock(file, shared=False, patience=0.0):
    """Lock an open file, or change the lock it has: True; False when others hold it for `patience`
    seconds.

    None: this file system has no locks. A lock that could not be changed is gone.
    """
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
    print(
        f"{path}: this file system has no file locks; make sure that only one run at a time "
        "writes here",
        file=sys.stderr,
    )


@contextmanager
def folder_lock(folder):
    """One process at a time in this block, for a moment: where the file to lock has yet to be made."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # not for folders here: the file's own lock has to do
            pass
        yield
    finally:
        os.close(handle)
