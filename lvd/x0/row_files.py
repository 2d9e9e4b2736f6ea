"""Writing rows at their places in the torch files of a recording."""

import os
import struct
import zipfile
from itertools import accumulate

import torch

from lvd.errors import InputError
from lvd.utils.canonical import canonical
from lvd.utils.disk import naming
from lvd.utils.partials import atomic
from lvd.x0.shards import place_of, shard_path, shards_of


class RowFiles:
    """The open files of a recording: its first one, and of the other shards the last one used.

    Args:
        path: of pred_x0.pth.
        first: pred_x0.pth, opened to read and write.
        sidecar: of `load_sidecar`.
        row_bytes: size of a row.
    """

    def __init__(self, path, first, sidecar, row_bytes):
        self._path = path
        self._row_bytes = row_bytes
        self._shards = shards_of(sidecar)
        self._ends = list(accumulate(self._shards))
        self._grown = shards_of(sidecar.get("growing") or sidecar)
        self._first = first
        self._file, self._number = first, 0
        self._offsets = {0: self._offset_in(0)}

    def write(self, row, data, within=0):
        """Write bytes of a row, from `within` bytes after its beginning on."""
        number, place = place_of(row, self._ends)
        self._open(number)
        offset = self._offsets[number] + place * self._row_bytes + within
        with naming(shard_path(self._path, number)):
            while data:  # one call writes 2 GiB at most
                written = os.pwrite(self._file.fileno(), data, offset)
                data = data[written:]
                offset += written

    def sync(self):
        """Bring what was written to the disk."""
        with naming(shard_path(self._path, self._number)):
            os.fsync(self._file.fileno())

    def close(self):
        """Close the files but the first, which was given."""
        if self._file is not self._first:
            self._file.close()
        self._file, self._number = self._first, 0

    def _open(self, number):
        if number == self._number:
            return
        self.sync()
        self.close()
        if number:
            if number not in self._offsets:
                self._offsets[number] = self._offset_in(number)
            self._file = open(shard_path(self._path, number), "r+b", buffering=0)
            self._number = number

    def _offset_in(self, number):
        sizes = [self._row_bytes * rows[number] for rows in (self._shards, self._grown)]
        return data_offset(shard_path(self._path, number), sizes)


def allocate(path, shape, dtype):
    """Make a torch file of the full size whose data is a hole: no memory, no disk blocks.

    Args:
        path: of the file.
        shape: of its tensor.
        dtype: of its tensor.
    """
    with atomic(path) as partial:
        write_empty(partial, shape, dtype)


def write_empty(path, shape, dtype):
    """Do as `allocate`, without the care for a process that is killed."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        tensor = torch.empty(shape, dtype=dtype)
    with torch.serialization.skip_data(materialize_fake_tensors=True), open(path, "wb") as file:
        torch.save(canonical(tensor), file)  # an open file: torch would write its name into it


def data_offset(path, sizes):
    """Return where in the torch file, a zip archive, the tensor's bytes begin.

    Rows are written there, not through a shared mapping: a full disk is then an error and not a
    crash of the process (SIGBUS).

    Args:
        path: the file.
        sizes: [bytes that the tensor may have].

    Raises:
        InputError: it is no such file, or of another size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next(e for e in archive.infolist() if e.filename.endswith("/data/0"))
    except (zipfile.BadZipFile, StopIteration) as error:
        raise InputError(f"{path}: not a readable torch file (damaged or truncated)") from error
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size not in sizes:
        raise InputError(
            f"{path}: holds {entry.file_size} bytes of data, its sidecar says {sizes[0]}"
        )
    with open(path, "rb") as f:
        # A local header of zip has 30 bytes, of which the last four hold two lengths: of the
        # name, which follows, and of the extra field after that. Then the data begins.
        f.seek(entry.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", f.read(4))
    return entry.header_offset + 30 + name_length + extra_length
