"""Writing into an x0 file: rows in any order, by one process or several."""

import math
import os
import struct
import zipfile

import torch

from lvd.errors import InputError
from lvd.utils.disk import naming
from lvd.utils.files import raw_bytes
from lvd.utils.locks import try_lock, warn_unlocked
from lvd.utils.partials import sweep_partials
from lvd.x0.sidecar import Journal, JournalReader, load_sidecar, merge_journals

# Seconds that a process waits to join its run: one that has finished may be updating the sidecar.
JOINING = 60


class X0Writer:
    """Fills rows of an x0 file in any order. A context manager, made by `create_x0_file`.

    The processes of one run write different rows. Rank 0 opens the file before the others do, and
    keeps other runs out.

    Attributes:
        whole: set of the rows that were whole when the run began, and of those that this process
            has written since.
    """

    def __init__(self, path, shape, dtype, meta, process=(0, 1)):
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self._meta = meta
        self._rank, self._count = process
        self._file = open(path, "r+b", buffering=0)
        try:
            self._enter()
            self._offset = _data_offset(path, math.prod(shape) * dtype.itemsize)
            self.whole = set(map(int, load_sidecar(path)["rows"]))
        except BaseException:
            self._file.close()
            raise
        self._known = set(self.whole)
        self._journal = Journal(path, self._rank)
        self._journals = JournalReader(path, shape)

    def count_whole(self):
        """Return how many rows are whole by now, those of the run's other processes included."""
        self._known |= self._journals.new().keys()
        return len(self._known)

    def write_row(self, row, x0, info):
        """Write one row.

        Args:
            row: its number, from 0.
            x0: [S, C, F, h, w].
            info: {"prompt", "seed", "timesteps", ...}, plain JSON.
        """
        self.write_rows([row], [x0], [info])

    def write_rows(self, rows, x0s, infos):
        """Write several rows with one flush to the disk, such as those of a batch.

        Args:
            rows: [n] numbers.
            x0s: [n] tensors [S, C, F, h, w].
            infos: [n] dicts, see `write_row`.

        Raises:
            InputError: a row has another shape or number than the file, or is not finite in the
                file's dtype.
            OSError: the disk is full.
        """
        with naming(self.path):
            for row, x0 in zip(rows, x0s, strict=True):
                self._write_at(row, self._row_bytes(row, x0))
            os.fsync(self._file.fileno())  # the data first, then the word that it is whole
            self._journal.append(rows, infos)
        self.whole.update(rows)
        self._known.update(rows)

    def write_seen(self, row, x0):
        """Write the first k steps of a row whose sampling was stopped. The row is not whole then.

        Args:
            row: its number, from 0.
            x0: [k, C, F, h, w].
        """
        with naming(self.path):
            self._write_at(row, self._row_bytes(row, x0, whole=False))

    def _write_at(self, row, data):
        row_size = math.prod(self.shape[1:]) * self.dtype.itemsize
        offset = self._offset + row * row_size
        while data:  # one call writes 2 GiB at most
            written = os.pwrite(self._file.fileno(), data, offset)
            data = data[written:]
            offset += written

    def _row_bytes(self, row, x0, whole=True):
        if not 0 <= row < self.shape[0]:
            raise InputError(f"{self.path}: row {row} is outside the file's {self.shape[0]} rows")
        needed = self.shape[1:] if whole else (min(len(x0), self.shape[1]), *self.shape[2:])
        if tuple(x0.shape) != needed:
            raise InputError(
                f"{self.path}: row {row} has shape {list(x0.shape)}, needed {list(needed)}"
            )
        x0 = x0.detach().to("cpu", self.dtype)
        # A NaN shows in the smallest and the largest value: no mask as large as the row is needed.
        if whole and not torch.stack(x0.aminmax()).isfinite().all():
            raise InputError(
                f"{self.path}: row {row} holds values that are not finite in {self.dtype}; record "
                "in float32 or look at the sampler"
            )
        return raw_bytes(x0)

    def _enter(self):
        """Lock the file against other runs.

        Rank 0 takes the lock alone, tidies up, and then shares it with the run's other processes.
        The others join the shared lock.
        """
        joining = self._rank > 0
        patience = JOINING if joining else 0
        locked = try_lock(self._file, shared=joining, patience=patience)
        if locked is None and not joining:
            warn_unlocked(self.path)
        if locked is not False and not joining:
            merge_journals(self.path, self._meta)
            sweep_partials(self.path.parent)
            if self._count > 1:
                locked = try_lock(self._file, shared=True)
        if locked is False:
            raise InputError(
                f"{self.path}: another running process is writing this file; wait for it or stop it"
            )

    def close(self):
        """Close the file. The last process of the run moves all journals into the sidecar."""
        if self._file.closed:
            return
        try:
            self._journal.close()
            # Without locks nobody knows who is last. The journals then stay: readers and the next
            # run look into them.
            if self._count == 1 or try_lock(self._file):
                merge_journals(self.path, self._meta)
        finally:
            self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _data_offset(path, size):
    """Return where in the torch file, a zip archive, the tensor's `size` bytes begin.

    Rows are written there, not through a shared mapping: a full disk is then an error and not a
    crash of the process (SIGBUS).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next(e for e in archive.infolist() if e.filename.endswith("/data/0"))
    except (zipfile.BadZipFile, StopIteration) as error:
        raise InputError(f"{path}: not a readable torch file (damaged or truncated)") from error
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != size:
        raise InputError(f"{path}: holds {entry.file_size} bytes of data, its sidecar says {size}")
    with open(path, "rb") as f:
        # A local header of zip has 30 bytes, of which the last four hold two lengths: of the
        # name, which follows, and of the extra field after that. Then the data begins.
        f.seek(entry.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", f.read(4))
    return entry.header_offset + 30 + name_length + extra_length
