"""The x0 file: one tensor [N, S, C, F, h, w] of predicted x0, filled row by row, by one process or
several.

`pred_x0.pth` is an ordinary torch file that `torch.load(path, mmap=True, weights_only=True)` opens
anywhere. It is made at its full size at once, sparse, so that it costs neither memory nor disk
before a row is written. The sidecar and the journals beside it (lvd.x0.sidecar) say what made the
file and which rows are whole: a row's data is on the disk before they name it, so a killed run
never leaves half a row that looks whole.
"""

import hashlib
import json
import math
import mmap
import os
import shutil
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lvd.errors import InputError
from lvd.utils.files import load_torch, save_torch, sweep_partials
from lvd.utils.locks import folder_lock, try_lock, warn_unlocked
from lvd.x0.sidecar import (
    Journal,
    JournalReader,
    fold,
    journals,
    load_sidecar,
    need_same_recording,
    new_sidecar,
    save_sidecar,
    sidecar_path,
)

DIMENSIONS = "[video, step, channel, frame, height, width]"
JOINING = (
    60  # seconds a process waits to join its run, while one that is done already folds the journals
)


@dataclass
class X0File:
    """A recording to read. tensor [N, S, C, F, h, w] is mapped, not loaded: read it, never write;
    rows: the whole ones."""

    path: Path
    tensor: torch.Tensor
    rows: list
    meta: dict
    info: dict = field(default_factory=dict)  # row → {"prompt", "seed", "timesteps", ...}

    @property
    def fingerprint(self):
        """Hex digest of what made the file; of its layout and first values when no sidecar says
        that."""
        made_by = {
            "shape": list(self.tensor.shape),
            "dtype": str(self.tensor.dtype),
            "meta": {k: v for k, v in self.meta.items() if k != "versions"},
        }
        if not sidecar_path(self.path).exists():
            made_by["values"] = self.tensor[0, 0].flatten()[:4096].tolist()
        return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()

    def need_rows(self, rows):
        """InputError naming the first of `rows` that is not in the file or not whole yet."""
        whole = set(self.rows)
        missing = sorted(set(rows) - whole)
        if missing:
            named = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            raise InputError(
                f"{self.path}: {len(missing)} row(s) needed that are not recorded ({named}); the "
                f"file has {len(whole)} whole of {self.tensor.shape[0]}; finish the sampling run"
            )


class X0Writer:
    """Fills rows of an x0 file in any order. A context manager.

    whole: the rows that were whole when the run began, and those written since by this process. The
    processes of one run write different rows; rank 0 opens the file before the others do, and keeps
    other runs out.
    """

    def __init__(self, path, shape, dtype, meta, member=(0, 1)):
        self.path, self.shape, self.dtype, self._meta, (self._rank, self._count) = (
            path,
            shape,
            dtype,
            meta,
            member,
        )
        self._file = open(path, "r+b", buffering=0)
        try:
            self._enter()
            self._offset = _data_offset(path, math.prod(shape) * dtype.itemsize)
            self.whole = set(map(int, load_sidecar(path)["rows"]))
        except BaseException:
            self._file.close()
            raise
        self._known = set(self.whole)
        self._journal, self._journals = Journal(path, self._rank), JournalReader(path, shape[0])

    def count_whole(self):
        """How many rows are whole by now, those of the run's other processes included."""
        self._known |= self._journals.new().keys()
        return len(self._known)

    def write_row(self, row, x0, info):
        """Write x0 [S, C, F, h, w] as row `row`; info: {"prompt", "seed", "timesteps", ...} (plain
        JSON)."""
        self.write_rows([row], [x0], [info])

    def write_rows(self, rows, x0s, infos):
        """Write several rows with one flush to the disk: what a batch of videos should use."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            for row, x0 in zip(rows, x0s, strict=True):
                self._write_at(self._offset + row * size, self._row_bytes(row, x0))
            os.fsync(self._file.fileno())  # the data first, then the word that it is whole
            self._journal.append(rows, infos)
        except OSError as error:
            raise OSError(
                error.errno, error.strerror, str(self.path)
            ) from error  # a full disk names no file
        self.whole.update(rows)
        self._known.update(rows)

    def write_seen(self, row, x0):
        """Write x0 [k, C, F, h, w] of the first k steps of a row that will never be whole, and is
        not called so."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            self._write_at(self._offset + row * size, self._row_bytes(row, x0, whole=False))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _write_at(self, offset, data):
        while data:  # one call writes 2 GiB at most
            written = os.pwrite(self._file.fileno(), data, offset)
            data, offset = data[written:], offset + written

    def _row_bytes(self, row, x0, whole=True):
        if not 0 <= row < self.shape[0]:
            raise InputError(f"{self.path}: row {row} is outside the file's {self.shape[0]} rows")
        needed = self.shape[1:] if whole else (min(len(x0), self.shape[1]), *self.shape[2:])
        if tuple(x0.shape) != needed:
            raise InputError(
                f"{self.path}: row {row} has shape {list(x0.shape)}, needed {list(needed)}"
            )
        x0 = x0.detach().to("cpu", self.dtype).contiguous()
        if (
            whole and not torch.stack(x0.aminmax()).isfinite().all()
        ):  # a NaN shows in both; no mask as large as the row
            raise InputError(
                f"{self.path}: row {row} holds values that are not finite in {self.dtype}; record "
                "in float32 or look at the sampler"
            )
        return memoryview(x0.flatten().view(torch.uint8).numpy())

    def _enter(self):
        """Take the lock: alone, then (rank 0) tidy up and let the run's other processes in; or join
        them."""
        joining = self._rank > 0
        locked = try_lock(self._file, shared=joining, patience=JOINING if joining else 0)
        if locked is None and not joining:
            warn_unlocked(self.path)
        if locked is not False and not joining:
            fold(self.path, self._meta)
            sweep_partials(self.path.parent)
            if self._count > 1:
                locked = try_lock(self._file, shared=True)
        if locked is False:
            raise InputError(
                f"{self.path}: another running process is writing this file; wait for it or stop it"
            )

    def close(self):
        """The last process of the run to leave folds all journals into the sidecar."""
        if self._file.closed:
            return
        try:
            self._journal.close()
            # Without locks nobody knows who is last: the journals stay, where readers and the next
            # run find them.
            if self._count == 1 or try_lock(self._file):
                fold(self.path, self._meta)
        finally:
            self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def create_x0_file(
    path,
    rows,
    steps,
    latent_shape,
    dtype,
    meta,
    meta_ignore=("versions",),
    check_space=True,
    member=(0, 1),
):
    """X0Writer of a new file [rows, steps, *latent_shape], or of the unfinished one that is there.

    `latent_shape` = (C, F, h, w); `meta`: plain JSON dict that says what makes the file. A file
    made with another shape, dtype or meta (keys in `meta_ignore` aside) is an InputError naming
    what differs, and so is a disk without room for the planned size (unless check_space is False),
    or another run that is writing. member: (rank, number) of the run's processes. Rank 0 makes the
    file, the others open it after that: a barrier belongs between, and one after it where `whole`
    has to be alike in all.
    """
    path = Path(path)
    shape = (rows, steps, *latent_shape)
    if len(shape) != 6 or min(shape) < 1:
        raise InputError(f"{path}: shape {list(shape)} is not a non-empty {DIMENSIONS}")
    planned = new_sidecar(shape, dtype, meta)
    if member[0] > 0:
        if not path.exists():
            raise InputError(f"{path}: no such file; process 0 of the run has to make it first")
        need_same_recording(path, planned, meta_ignore)
        return X0Writer(path, shape, dtype, planned["meta"], member)
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(path.parent):  # of two runs that begin at once, one makes the file
        if path.exists():
            need_same_recording(path, planned, meta_ignore)
        if check_space:
            _need_space(path, math.prod(shape) * dtype.itemsize)
        if not path.exists():
            _begin(path, planned, shape, dtype)
        return X0Writer(path, shape, dtype, planned["meta"], member)


def open_x0_file(path):
    """X0File of a recording; a bare .pth without a sidecar is read too, all of its rows as whole.

    While a run is filling the file, these are the rows finished so far. InputError for a file that
    is missing, truncated, not 6-D, not floating point, or unlike its sidecar.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; run MagicTime/inference_magictime.py first")
    tensor = _mapped(path)
    if not isinstance(tensor, torch.Tensor):
        raise InputError(
            f"{path}: holds a {type(tensor).__name__}, one tensor {DIMENSIONS} is needed"
        )
    if tensor.dim() != 6 or 0 in tensor.shape:
        raise InputError(f"{path}: tensor of shape {list(tensor.shape)}, {DIMENSIONS} is needed")
    if not tensor.is_floating_point():
        raise InputError(f"{path}: {tensor.dtype} tensor, a floating point one is needed")
    if not sidecar_path(path).exists():
        return X0File(path, tensor, list(range(tensor.shape[0])), {})
    finished = JournalReader(
        path, tensor.shape[0]
    ).new()  # before the sidecar, into which they may be folded meanwhile
    sidecar = load_sidecar(path)
    found = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    for key, value in found.items():
        if sidecar[key] != value:
            raise InputError(
                f"{sidecar_path(path)}: says {key} {sidecar[key]}, the tensor in {path.name} has "
                f"{value}; the two files do not belong together"
            )
    info = {int(row): facts for row, facts in sidecar["rows"].items()} | finished
    return X0File(path, tensor, sorted(info), sidecar["meta"], info)


def _mapped(path):
    """The file's content, mapped. Shared where the file may be written: a private mapping is
    counted as memory by the kernel and refused for recordings larger than the machine's."""
    kind = mmap.MAP_SHARED if os.access(path, os.W_OK) else mmap.MAP_PRIVATE
    with torch.serialization.set_default_mmap_options(kind):
        return load_torch(path, mmap=True)


def _begin(path, sidecar, shape, dtype):
    """What is known first: a .pth without a sidecar would count as a whole recording."""
    _need_no_rows(path, shape[0])
    for journal in journals(path):  # of a run that was stopped before its first row
        journal.unlink()
    save_sidecar(sidecar, path)
    _allocate(path, shape, dtype)


def _need_no_rows(path, count):
    """InputError where rows are listed of a recording that is not there: its .pth may only have
    been moved."""
    beside = [sidecar_path(path)] if sidecar_path(path).exists() else []
    known = load_sidecar(path) if beside else {"shape": [count], "rows": {}}
    rows = set(map(int, known["rows"])) | JournalReader(path, known["shape"][0]).new().keys()
    if rows:
        names = ", ".join(file.name for file in [*beside, *journals(path)])
        raise InputError(
            f"{path}: not there, but {names} beside it list {len(rows)} row(s) of it as recorded; "
            f"put {path.name} back, or move or delete {names} to begin anew"
        )


def _allocate(path, shape, dtype):
    """A torch file of the full size whose data is a hole: no memory, no disk blocks."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        tensor = torch.empty(shape, dtype=dtype)
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        save_torch(tensor, path)


def _data_offset(path, size):
    """Where in the torch (zip) file the tensor's `size` bytes begin.

    Writing there instead of through a shared mapping turns a full disk into an error, not a bus
    fault.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next(e for e in archive.infolist() if e.filename.endswith("/data/0"))
    except (zipfile.BadZipFile, StopIteration) as error:
        raise InputError(f"{path}: not a readable torch file (damaged or truncated)") from error
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != size:
        raise InputError(f"{path}: holds {entry.file_size} bytes of data, its sidecar says {size}")
    with open(path, "rb") as f:
        f.seek(
            entry.header_offset + 26
        )  # a zip local header: 30 bytes, the name, the extra field (padding)
        lengths = f.read(4)
    return (
        entry.header_offset
        + 30
        + int.from_bytes(lengths[:2], "little")
        + int.from_bytes(lengths[2:], "little")
    )


def _need_space(path, size):
    there = path.stat().st_blocks * 512 if path.exists() else 0
    free = shutil.disk_usage(path.parent).free
    if size - there > free:
        raise InputError(
            f"{path}: needs {(size - there) / 2**30:.1f} GiB more disk, {free / 2**30:.1f} GiB "
            "are free; fewer prompts, float16 or another disk"
        )
