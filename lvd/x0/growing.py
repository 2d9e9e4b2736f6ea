"""Adding rows to a recording: more prompts after those that are recorded.

The last file is copied into a longer one, holes as holes, which then takes its place; further files
are made beside it. So the files are those that a recording of all rows would have had from the
beginning. The sidecar says first what the recording becomes, and last what it is: whenever this is
broken off, the old rows are there, and the same call goes on.
"""

import errno
import math
import os

import torch

from lvd.errors import InputError
from lvd.utils.disk import GIB, need_space
from lvd.utils.locks import folder_lock, try_lock
from lvd.utils.partials import atomic, sweep_partials
from lvd.utils.progress import progress
from lvd.x0.mapped import map_recording
from lvd.x0.row_files import allocate, data_offset, write_empty
from lvd.x0.shards import CRC, checksum, plan_shards, shard_files, shard_path, shards_of
from lvd.x0.sidecar import fingerprint_of, load_sidecar, merge_journals, new_sidecar, save_sidecar

AT_ONCE = 256 << 20  # bytes that are copied at once
NO_COPY_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


def grow_x0_file(path, rows, meta, check_space=True):
    """Add rows to a recording that is there. Nothing happens where it has as many already.

    That its rows were made as `meta` says is for the caller to check.

    Args:
        path: of pred_x0.pth.
        rows: number of videos that it shall have.
        meta: plain JSON dict that says what makes the recording of all of them.
        check_space: check that the disk has room for the planned size.

    Raises:
        InputError: another run is writing the recording, or the disk is too small for a copy of
            its last file and the new rows.
        OSError: the disk is full, for example. The recording is as it was.
    """
    with folder_lock(path.parent), open(path, "r+b", buffering=0) as file:
        if try_lock(file) is False:
            raise InputError(
                f"{path}: another running process is writing this file; wait for it or stop it"
            )
        merge_journals(path, load_sidecar(path)["meta"])
        sweep_partials(path.parent)
        sidecar = load_sidecar(path)
        if sidecar["shape"][0] < rows:
            _grow(path, sidecar, rows, meta, check_space)


def _grow(path, before, rows, meta, check_space):
    """See `grow_x0_file`; before: the sidecar."""
    dtype = getattr(torch, before["dtype"])
    shape = [rows, *before["shape"][1:]]
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    shards = plan_shards(rows, row_bytes, shards_of(before))
    if check_space:
        _need_space(path, before, shards, row_bytes)
    if before.get("growing", {}).get("shards", shards) != shards:
        before = _undo(path, before, dtype, row_bytes)
    save_sidecar({**before, "growing": {"shape": shape, "shards": shards}}, path)
    last = len(shards_of(before)) - 1
    for number in range(last + 1, len(shards)):
        allocate(shard_path(path, number), (shards[number], *shape[1:]), dtype)
    if shards[last] != shards_of(before)[last]:
        _resize(path, last, (shards[last], *shape[1:]), dtype, row_bytes, before)
    after = {**before, **new_sidecar(shape, dtype, meta), "rows": before["rows"]}
    after.pop("growing", None)
    if len(shards) > 1:
        after = _sharded(path, before, after, shards)
    earlier = fingerprint_of(before["shape"], before["dtype"], before["meta"])
    after["earlier_fingerprints"] = [*before.get("earlier_fingerprints", []), earlier]
    save_sidecar(after, path)


def _need_space(path, before, shards, row_bytes):
    """InputError unless the new rows and a copy of the file that becomes longer fit."""
    files = shard_files(path, before)
    size, copied = sum(shards) * row_bytes, 0
    if shards[len(files) - 1] != shards_of(before)[-1]:
        copied = files[-1].stat().st_blocks * 512
    what = (
        f"{path}: its rows, and a copy of the {copied / GIB:.1f} GiB in {files[-1].name} to grow,"
    )
    need_space(what, size + copied, path, "fewer prompts or another disk", files)


def _undo(path, before, dtype, row_bytes):
    """Bring the files back that a call for another number of rows was lengthening when it was
    broken off, so that they always have the length before or the one that the sidecar plans.

    Returns:
        The sidecar.
    """
    shards = shards_of(before)
    last, planned = len(shards) - 1, shards_of(before["growing"])
    if planned[last] != shards[last]:
        _resize(path, last, (shards[last], *before["shape"][1:]), dtype, row_bytes, before)
    for number in range(len(shards), len(planned)):
        shard_path(path, number).unlink(missing_ok=True)
    before = {key: value for key, value in before.items() if key != "growing"}
    save_sidecar(before, path)
    return before


def _resize(path, number, shape, dtype, row_bytes, before):
    """Put a file of another length with the same rows in the place of a shard."""
    file = shard_path(path, number)
    known = {row_bytes * shards_of(part)[number] for part in _states(before)}
    begins = data_offset(file, sorted(known))
    size = shards_of(before)[number] * row_bytes
    with atomic(file) as partial:
        write_empty(partial, shape, dtype)
        into = data_offset(partial, [row_bytes * shape[0]])
        with open(file, "rb") as source, open(partial, "r+b", buffering=0) as target:
            pieces = _pieces(source.fileno(), begins, size)
            hidden = sum(end - start for start, end in pieces) < GIB
            for start, end in progress(pieces, f"grow {file.name}", "piece", disable=hidden):
                _copy(source.fileno(), target.fileno(), start, into + start - begins, end - start)


def _states(sidecar):
    """The sidecar, and what it was becoming when an earlier call was broken off."""
    growing = sidecar.get("growing")
    return [sidecar, growing] if growing else [sidecar]


def _pieces(file, begin, size):
    """Return [(start, end)] of the data in a part of a file, without its holes."""
    pieces, at, end = [], begin, begin + size
    while at < end:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end of the file
                break
            raise
        at = min(end, os.lseek(file, start, os.SEEK_HOLE)) if start < end else end
        pieces += [(one, min(one + AT_ONCE, at)) for one in range(start, at, AT_ONCE)]
    return pieces


def _copy(source, target, start, to, size):
    """Copy bytes between files; where the file system can, they share the blocks."""
    while size:
        try:
            done = os.copy_file_range(source, target, size, start, to)
        except OSError as error:
            if error.errno not in NO_COPY_RANGE:
                raise
            done = 0
        done = done or os.pwrite(target, os.pread(source, min(size, 1 << 20), start), to)
        start, to, size = start + done, to + done, size - done


def _sharded(path, before, after, shards):
    """The sidecar of a recording in shards: with their rows, and a checksum of each whole row."""
    said = {**after, "shards": shards}
    rows = {int(row): info for row, info in before["rows"].items()}
    unknown = sorted(row for row, info in rows.items() if CRC not in info)
    if unknown:
        tensor = map_recording(path, said, rows)
        rows |= {row: {**rows[row], CRC: checksum(tensor[row])} for row in unknown}
    keys = ("format", "shape", "dtype", "shards", "meta")
    said["rows"] = {str(row): info for row, info in rows.items()}
    return {key: said[key] for key in (*keys, *(key for key in said if key not in keys))}
