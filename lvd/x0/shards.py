"""The shards of a large recording: several torch files of whole rows, which are read as one tensor.

A recording of at most SHARD_BYTES is one file, pred_x0.pth. A larger one goes on in
pred_x0.shard-0001.pth, pred_x0.shard-0002.pth, ... beside it. Its sidecar says how many rows lie in
each of them (key "shards"), and of each row a checksum of its first and last bytes (key "crc32"),
which tells shards that were exchanged.
"""

import bisect
import zlib
from itertools import accumulate
from pathlib import Path

import torch

from lvd.utils.files import raw_bytes

SHARD_BYTES = 64 << 30  # of a file's rows at most
EDGE = 4096  # bytes at the beginning and at the end of a row that its checksum covers
CRC = "crc32"  # of a row's facts in the sidecar


def shard_path(path, number):
    """Return the path of a shard; shard 0 is pred_x0.pth itself."""
    path = Path(path)
    return path.with_name(f"{path.stem}.shard-{number:04d}{path.suffix}") if number else path


def plan_shards(rows, row_bytes, before=()):
    """Share the rows of a recording out over files.

    Args:
        rows: of the recording.
        row_bytes: size of a row.
        before: [rows of each shard] of a recording that is to grow. The last one is filled up, the
            others stay as they are.

    Returns:
        [rows of each shard].
    """
    most = max(1, SHARD_BYTES // row_bytes)
    shards = list(before)
    missing = rows - sum(shards)
    if shards and missing:
        added = max(0, min(most - shards[-1], missing))
        shards[-1] += added
        missing -= added
    while missing:
        shards.append(min(most, missing))
        missing -= shards[-1]
    return shards


def shards_of(sidecar):
    """Return [rows of each shard] that a sidecar tells."""
    return sidecar.get("shards") or [sidecar["shape"][0]]


def shard_files(path, sidecar):
    """Return the paths of a recording's shards."""
    return [shard_path(path, number) for number in range(len(shards_of(sidecar)))]


def place_of(row, ends):
    """Return (number of the shard, row in it); ends: the row after the last one of each shard."""
    number = bisect.bisect_right(ends, row)
    return number, row - (ends[number - 1] if number else 0)


def checksum(values):
    """Return the checksum of a row [S, C, F, h, w] as the file holds it."""
    values = values.reshape(-1)
    count = EDGE // values.element_size()
    return zlib.crc32(raw_bytes(values[-count:]), zlib.crc32(raw_bytes(values[:count])))


def without_checksum(info):
    """Return the facts of a row as a recording of one file says them."""
    return {key: value for key, value in info.items() if key != CRC}


class ShardedTensor:
    """The rows of all shards under one index: what [N, S, C, F, h, w] of one file would give.

    The first index is a row, a slice, or a list or tensor of rows or of true and false; the others
    are those of a tensor. Rows of one shard are views of its file, as those of a recording of one
    file are. Rows of several are copied.

    Args:
        parts: [tensors of the shards], mapped into memory.

    Attributes:
        shape, dtype: as of a tensor.
    """

    def __init__(self, parts):
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))
        self.shape = torch.Size((self._ends[-1], *parts[0].shape[1:]))
        self.dtype = parts[0].dtype

    def __len__(self):
        return self.shape[0]

    def __iter__(self):
        return (row for part in self._parts for row in part)

    def __getitem__(self, index):
        rows, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(rows, slice):
            return self._slice(range(*rows.indices(len(self))), rest)
        if isinstance(rows, int) and not isinstance(rows, bool):
            return self._row(rows)[tuple(rest)]
        rows = torch.as_tensor(rows)
        rows = rows if rows.numel() else rows.long()
        if rows.dtype == torch.bool and rows.shape == self.shape[:1]:
            rows = rows.nonzero()[:, 0]
        if rows.is_floating_point() or rows.dtype == torch.bool or rows.dim() > 1:
            raise IndexError("rows of a recording in shards: a number, a slice or a list is needed")
        if not rows.dim():
            return self._row(int(rows))[tuple(rest)]
        if any(not isinstance(one, (int, slice)) for one in rest):
            raise IndexError("a recording in shards: one list of rows or of steps is needed")
        found = [self._row(row)[tuple(rest)] for row in rows.tolist()]
        return torch.stack(found) if found else self._parts[0][(slice(0), *rest)]

    def _row(self, row):
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} is outside the recording's {len(self)} rows")
        number, within = place_of(row % len(self), self._ends)
        return self._parts[number][within]

    def _slice(self, rows, rest):
        """Rows of a range whose step is positive, as slices of a tensor are."""
        if rows.step < 1:
            raise ValueError("a slice of rows: step must be greater than zero")
        found = []
        for part, end in zip(self._parts, self._ends):
            begin = end - len(part)
            first = max(rows.start, begin)
            first += (rows.start - first) % rows.step
            last = min(rows.stop, end)
            if first < last:
                found.append(part[(slice(first - begin, last - begin, rows.step), *rest)])
        if len(found) == 1:
            return found[0]
        return torch.cat(found) if found else self._parts[0][(slice(0), *rest)]
