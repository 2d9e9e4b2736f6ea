"""The disk: whether files fit, which file it refused and why, what other machines wrote on it."""

import errno
import os
import shutil
from contextlib import contextmanager, suppress

from lvd.errors import InputError

# What a full disk answers. Reading never gives one of these.
FULL = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "no space left, the disk quota is used up",
    errno.EFBIG: "larger than files may become here (ulimit -f, or the file system)",
}
WORDS = {
    **FULL,
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EISDIR: "is a folder, a file is needed",
    errno.ENOTDIR: "a file lies where a folder is needed",
    errno.EEXIST: "a file lies where a folder is needed",
    errno.ENOENT: "no such file or folder",
    errno.EIO: "the disk failed (input/output error)",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EPIPE: "nobody reads it any more",
}


GIB = 2**30


def nearest(path):
    """Return the path, or the nearest folder above it that exists."""
    return next(there for there in (path.absolute(), *path.absolute().parents) if there.exists())


def look_anew(folder):
    """Let the next looks into a folder see what other machines have made in it.

    An NFS client remembers for up to a minute that a file was not there. It asks the server again
    when the folder is opened. A folder that is not there is left alone.
    """
    with suppress(OSError):
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))


def need_space(what, size, path, advice="another disk", files=()):
    """Refuse files that do not fit on their disk.

    Args:
        what: what a message calls them.
        size: bytes of the complete files.
        path: on that disk; it need not exist.
        advice: what would help.
        files: those of them that may be there; what they take already is not needed again.

    Raises:
        InputError: more is missing of them than is free.
    """
    written = sum(file.stat().st_blocks * 512 for file in files if file.exists())
    missing, free = size - written, shutil.disk_usage(nearest(path)).free
    if missing > free:
        raise InputError(
            f"{what} need {missing / GIB:.1f} GiB more disk, {free / GIB:.1f} GiB are free; "
            f"{advice} is needed"
        )


@contextmanager
def naming(path, written=None):
    """Let what the disk refuses in the block name a file.

    A full disk raises an OSError that names none, and libraries (torch, Pillow) raise other errors
    after it. Both become an OSError that names `path`.

    Args:
        path: the file that the block writes.
        written: a temporary file that it writes in its place.
    """
    try:
        yield
    except Exception as error:
        found = _of_the_disk(error, {None, os.fspath(path), written and os.fspath(written)})
        if found is None:
            raise
        why = found.strerror or os.strerror(found.errno)
        raise OSError(found.errno, why, os.fspath(path)) from error


def _of_the_disk(error, names):
    """The OSError about one of `names` that `error` is, or that led to it; None without one."""
    if isinstance(error, InputError):
        return None
    if isinstance(error, OSError) and error.errno and error.errno not in FULL:
        named = None if error.filename is None else os.fspath(error.filename)
        return error if named in names else None
    return first_behind(error, lambda each: isinstance(each, OSError) and each.errno in FULL)


def first_behind(error, wanted):
    """Return the first error that is `wanted` of those that led to `error`, itself included; None
    without one."""
    seen = set()
    while error is not None and id(error) not in seen:
        if wanted(error):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def disk_problem(error, unnamed="a file"):
    """Say in one line what an OSError is about.

    Args:
        error: the OSError.
        unnamed: what the line calls a file that the error does not name.
    """
    name = unnamed if error.filename is None else os.fsdecode(error.filename)
    return f"{name}: {WORDS.get(error.errno) or error.strerror or error}"
