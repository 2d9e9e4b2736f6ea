"""Writing into an x0 file: rows in any order, by one process or several."""

import math

import torch

from lvd.errors import InputError
from lvd.utils.disk import naming
from lvd.utils.files import raw_bytes
from lvd.utils.locks import try_lock, warn_unlocked
from lvd.utils.partials import sweep_partials
from lvd.x0.mapped import map_recording
from lvd.x0.row_files import RowFiles
from lvd.x0.shards import CRC, checksum, shards_of
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
            sidecar = load_sidecar(path)
            self.whole = set(map(int, sidecar["rows"]))
            self._is_sharded = len(shards_of(sidecar)) > 1
            if self._is_sharded:  # each of its own shards, before anything is written into them
                map_recording(path, sidecar, {int(row): i for row, i in sidecar["rows"].items()})
            row_bytes = math.prod(shape[1:]) * dtype.itemsize
            self._files = RowFiles(path, self._file, sidecar, row_bytes)
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
            told = []
            for row, x0, info in zip(rows, x0s, infos, strict=True):
                kept = self._as_kept(row, x0)
                self._files.write(row, raw_bytes(kept))
                told.append({**info, CRC: checksum(kept)} if self._is_sharded else info)
            self._files.sync()  # the data first, then the word that it is whole
            self._journal.append(rows, told)
        self.whole.update(rows)
        self._known.update(rows)

    def write_seen(self, row, x0):
        """Write the first k steps of a row whose sampling was stopped. The row is not whole then.

        Args:
            row: its number, from 0.
            x0: [k, C, F, h, w].
        """
        with naming(self.path):
            self._files.write(row, raw_bytes(self._as_kept(row, x0, whole=False)))

    def _as_kept(self, row, x0, whole=True):
        """x0 on the CPU in the file's dtype; InputError for what does not belong into the file."""
        if not 0 <= row < self.shape[0]:
            raise InputError(f"{self.path}: row {row} is outside the file's {self.shape[0]} rows")
        needed = self.shape[1:] if whole else (min(len(x0), self.shape[1]), *self.shape[2:])
        if tuple(x0.shape) != needed:
            raise InputError(
                f"{self.path}: row {row} has shape {list(x0.shape)}, needed {list(needed)}"
            )
        x0 = x0.detach().to("cpu", self.dtype).contiguous()
        # A NaN shows in the smallest and the largest value: no mask as large as the row is needed.
        if whole and not torch.stack(x0.aminmax()).isfinite().all():
            raise InputError(
                f"{self.path}: row {row} holds values that are not finite in {self.dtype}; record "
                "in float32 or look at the sampler"
            )
        return x0

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
            self._files.close()
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
