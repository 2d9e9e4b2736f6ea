"""The x0 file: one tensor [N, S, C, F, h, w] of predicted x0, filled row by row, and its sidecar.

`pred_x0.pth` is an ordinary torch file that `torch.load(path, mmap=True, weights_only=True)` opens
anywhere. It is made at its full size at once, sparse, so that it costs neither memory nor disk before a
row is written. `pred_x0.json` beside it says what made the file and which rows are whole: a row's data
is on the disk before the sidecar names it, so a killed run never leaves half a row that looks whole.
"""

import fcntl
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
from lvd.files import atomic, load_json, load_torch, save_torch

FORMAT = 1
DIMENSIONS = "[video, step, channel, frame, height, width]"


@dataclass
class X0File:
    """A recording to read. tensor [N, S, C, F, h, w] is mapped, not loaded: read it, never write; rows: the whole ones."""

    path: Path
    tensor: torch.Tensor
    rows: list
    meta: dict
    info: dict = field(default_factory=dict)  # row → {"prompt", "seed", "timesteps", ...}

    @property
    def fingerprint(self):
        """Hex digest of what made the file; of its layout and first values when no sidecar says that."""
        made_by = {"shape": list(self.tensor.shape), "dtype": str(self.tensor.dtype),
                   "meta": {k: v for k, v in self.meta.items() if k != "versions"}}
        if not sidecar_path(self.path).exists():
            made_by["values"] = self.tensor[0, 0].flatten()[:4096].tolist()
        return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()

    def need_rows(self, rows):
        """InputError naming the first of `rows` that is not in the file or not whole yet."""
        whole = set(self.rows)
        missing = sorted(set(rows) - whole)
        if missing:
            named = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            raise InputError(f"{self.path}: {len(missing)} row(s) needed that are not recorded ({named}); the file has "
                             f"{len(whole)} whole of {self.tensor.shape[0]}; finish the sampling run")


class X0Writer:
    """Fills the rows of an x0 file in any order. A context manager; one process at a time."""

    def __init__(self, path, shape, dtype, sidecar):
        self.path, self.shape, self.dtype, self._sidecar = path, shape, dtype, sidecar
        self._file = open(path, "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise InputError(f"{path}: another running process is writing this file; wait for it or stop it") from error
        self._offset = _data_offset(path, math.prod(shape) * dtype.itemsize)

    @property
    def whole(self):
        """The rows that are complete on the disk."""
        return set(map(int, self._sidecar["rows"]))

    def write_row(self, row, x0, info):
        """Write x0 [S, C, F, h, w] as row `row`; info: {"prompt", "seed", "timesteps"} (plain JSON)."""
        self.write_rows([row], [x0], [info])

    def write_rows(self, rows, x0s, infos):
        """Write several rows with one flush to the disk: what a batch of videos should use."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        for row, x0 in zip(rows, x0s, strict=True):
            self._file.seek(self._offset + row * size)
            self._file.write(self._row_bytes(row, x0))
        self._file.flush()
        os.fsync(self._file.fileno())  # the data first, then the word that it is whole
        for row, info in zip(rows, infos, strict=True):
            self._sidecar["rows"][str(row)] = info
        _save_sidecar(self._sidecar, self.path)

    def _row_bytes(self, row, x0):
        if not 0 <= row < self.shape[0]:
            raise InputError(f"{self.path}: row {row} is outside the file's {self.shape[0]} rows")
        if tuple(x0.shape) != self.shape[1:]:
            raise InputError(f"{self.path}: row {row} has shape {list(x0.shape)}, needed {list(self.shape[1:])}")
        x0 = x0.detach().to("cpu", self.dtype).contiguous()
        if not torch.isfinite(x0).all():
            raise InputError(f"{self.path}: row {row} holds values that are not finite in {self.dtype}; record in float32 "
                             f"or look at the sampler")
        return x0.flatten().view(torch.uint8).numpy()

    def close(self):
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def create_x0_file(path, rows, steps, latent_shape, dtype, meta, meta_ignore=("versions",), check_space=True):
    """X0Writer of a new file [rows, steps, *latent_shape], or of the unfinished one that is there.

    `latent_shape` = (C, F, h, w); `meta`: plain JSON dict that says what makes the file. A file made with
    another shape, dtype or meta (keys in `meta_ignore` aside) is an InputError naming what differs, and so
    is a disk without room for the planned size (unless check_space is False).
    """
    path = Path(path)
    shape = (rows, steps, *latent_shape)
    if len(shape) != 6 or min(shape) < 1:
        raise InputError(f"{path}: shape {list(shape)} is not a non-empty {DIMENSIONS}")
    sidecar = {"format": FORMAT, "shape": list(shape), "dtype": str(dtype).removeprefix("torch."),
               "meta": json.loads(json.dumps(meta)), "rows": {}}
    if path.exists():
        sidecar = _same_recording(path, sidecar, meta_ignore)
    if check_space:
        _need_space(path, math.prod(shape) * dtype.itemsize)
    if not path.exists():
        _save_sidecar(sidecar, path)  # first: a .pth without a sidecar would count as a whole recording
        _allocate(path, shape, dtype)
    return X0Writer(path, shape, dtype, sidecar)


def open_x0_file(path):
    """X0File of a recording; a bare .pth without a sidecar is read too, all of its rows as whole.

    InputError for a file that is missing, truncated, not 6-D, not floating point, or unlike its sidecar.
    """
    path = Path(path)
    tensor = _mapped(path)
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"{path}: holds a {type(tensor).__name__}, one tensor {DIMENSIONS} is needed")
    if tensor.dim() != 6 or 0 in tensor.shape:
        raise InputError(f"{path}: tensor of shape {list(tensor.shape)}, {DIMENSIONS} is needed")
    if not tensor.is_floating_point():
        raise InputError(f"{path}: {tensor.dtype} tensor, a floating point one is needed")
    if not sidecar_path(path).exists():
        return X0File(path, tensor, list(range(tensor.shape[0])), {})
    sidecar = _load_sidecar(path)
    found = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    for key, value in found.items():
        if sidecar[key] != value:
            raise InputError(f"{sidecar_path(path)}: says {key} {sidecar[key]}, the tensor in {path.name} has {value}; the "
                             f"two files do not belong together")
    info = {int(row): facts for row, facts in sidecar["rows"].items()}
    return X0File(path, tensor, sorted(info), sidecar["meta"], info)


def sidecar_path(path):
    """pred_x0.pth → pred_x0.json"""
    return Path(path).with_suffix(".json")


def _mapped(path):
    """The file's content, mapped. Shared where the file may be written: a private mapping is counted as
    memory by the kernel and refused for recordings larger than the machine's."""
    kind = mmap.MAP_SHARED if os.access(path, os.W_OK) else mmap.MAP_PRIVATE
    with torch.serialization.set_default_mmap_options(kind):
        return load_torch(path, mmap=True)


def _allocate(path, shape, dtype):
    """A torch file of the full size whose data is a hole: no memory, no disk blocks."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        tensor = torch.empty(shape, dtype=dtype)
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        save_torch(tensor, path)


def _data_offset(path, size):
    """Where in the torch (zip) file the tensor's `size` bytes begin.

    Writing there instead of through a shared mapping turns a full disk into an error, not a bus fault.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next(e for e in archive.infolist() if e.filename.endswith("/data/0"))
    except (zipfile.BadZipFile, StopIteration) as error:
        raise InputError(f"{path}: not a readable torch file (damaged or truncated)") from error
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != size:
        raise InputError(f"{path}: holds {entry.file_size} bytes of data, its sidecar says {size}")
    with open(path, "rb") as f:
        f.seek(entry.header_offset + 26)  # a zip local header: 30 bytes, the name, the extra field (padding)
        lengths = f.read(4)
    return entry.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")


def _need_space(path, size):
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    there = path.stat().st_blocks * 512 if path.exists() else 0
    free = shutil.disk_usage(folder).free
    if size - there > free:
        raise InputError(f"{path}: needs {(size - there) / 2**30:.1f} GiB more disk, {free / 2**30:.1f} GiB are free; fewer "
                         f"prompts, float16 or another disk")


def _same_recording(path, planned, meta_ignore):
    """The sidecar of the file that is there, after checking that it is the planned recording."""
    if not sidecar_path(path).exists():
        raise InputError(f"{path}: exists without {sidecar_path(path).name}, so it cannot be resumed; move it away")
    found = _load_sidecar(path)
    for key in ("shape", "dtype", "meta"):
        _need_same(sidecar_path(path), found[key], planned[key], key, meta_ignore)
    return {**found, "meta": planned["meta"]}


def _need_same(path, found, planned, name="", ignore=()):
    """InputError naming the first (nested) key that differs."""
    if isinstance(found, dict) and isinstance(planned, dict):
        for key in sorted(set(found) | set(planned)):
            if key not in ignore:
                _need_same(path, found.get(key), planned.get(key), f"{name}.{key}" if name else key, ignore)
    elif found != planned:
        raise InputError(f"{path}: made with {name}={_short(found)}, now it is {_short(planned)}; use another folder or "
                         f"move these files away")


def _short(value):
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _load_sidecar(path):
    where = sidecar_path(path)
    sidecar = load_json(where)
    kinds = {"format": int, "shape": list, "dtype": str, "meta": dict, "rows": dict}
    if not isinstance(sidecar, dict) or any(not isinstance(sidecar.get(k), kind) for k, kind in kinds.items()):
        raise InputError(f"{where}: not the sidecar of an x0 file (keys {', '.join(kinds)} are needed)")
    if sidecar["format"] != FORMAT:
        raise InputError(f"{where}: format {sidecar['format']}, this version reads {FORMAT}")
    bad = [row for row in sidecar["rows"] if not row.isdecimal() or int(row) >= sidecar["shape"][0]]
    if bad:
        raise InputError(f"{where}: row {bad[0]!r} is outside the file's {sidecar['shape'][0]} rows")
    return sidecar


def _save_sidecar(sidecar, path):
    """Atomically, one line per row. 2,000 rows are under 1 MB, small beside the row that was just written."""
    head = json.dumps({k: v for k, v in sidecar.items() if k != "rows"}, indent=1)
    rows = sorted(sidecar["rows"].items(), key=lambda item: int(item[0]))
    lines = ",\n".join(f"  {json.dumps(row)}: {json.dumps(info)}" for row, info in rows)
    with atomic(sidecar_path(path)) as partial, open(partial, "w", encoding="utf-8") as f:
        f.write(f'{head[:-2]},\n "rows": {{\n{lines}\n }}\n}}\n')
        f.flush()
        os.fsync(f.fileno())
