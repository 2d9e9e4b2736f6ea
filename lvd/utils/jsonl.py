"""Files of JSON lines in which a line is whole or absent, whenever a process is killed.

A line counts when it has its end, a newline. A killed process may leave a part of a line: readers
stop before it, and the next process that writes removes it.
"""

import json
import os

from lvd.errors import InputError
from lvd.utils.disk import naming

BLOCK = 1 << 16  # bytes that are read at once


def open_lines(path):
    """Open a file of lines for `append_lines`; makes it where there is none."""
    _need_plain_file(path)
    return open(path, "a+b", buffering=0)


def cut_half_line(file):
    """Remove a line without an end, which a killed process left.

    Nobody else may be writing to the file.
    """
    end = file.seek(0, os.SEEK_END)
    with naming(file.name):
        while end:  # backwards in blocks: the file may be large
            start = max(0, end - BLOCK)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)


def append_lines(file, entries):
    """Append lines, which are on the disk when this returns.

    Args:
        file: of `open_lines`, without half a line at its end.
        entries: [what json.dumps takes], one a line.

    Raises:
        OSError: a full disk, for example; it names the file, which is then as it was.
    """
    data = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    before = file.seek(0, os.SEEK_END)
    with naming(file.name):
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def read_lines(path, offset=0):
    """Read the whole lines of a file from a place on.

    Args:
        path: of the file.
        offset: bytes that were read before.

    Returns:
        ([line as bytes, not parsed], bytes read now and before).

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a folder, a pipe or the like lies there.
    """
    _need_plain_file(path)
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return whole.split(b"\n")[:-1], offset + len(whole)


def _need_plain_file(path):
    """Who opens a pipe waits for its other end, maybe forever."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise InputError(f"{path}: not a file but a folder, a pipe or the like; a file is needed")
