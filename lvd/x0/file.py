"""The x0 file: one tensor [N, S, C, F, h, w] of predicted x0, one row for each video.

N videos, S denoising steps; C channels, F frames, h x w: the latents. `pred_x0.pth` is an ordinary
torch file that `torch.load(path, mmap=True, weights_only=True)` opens anywhere. One process or
several fill it, row by row. It is made at its full size at once, as a sparse file, so it costs
neither memory nor disk before a row is written.

The sidecar and the journals beside it (lvd.x0.sidecar) say what made the file and which rows are
whole. They name a row only after its data is on the disk, so a killed run never leaves half a row
that looks whole.
"""

import hashlib
import json
import math
import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lvd.errors import InputError, shorten
from lvd.utils.disk import need_space
from lvd.utils.files import load_torch, save_torch
from lvd.utils.locks import folder_lock
from lvd.utils.schema import Tensor, checked, stores_all
from lvd.x0.sidecar import (
    MAY_DIFFER,
    JournalReader,
    journals,
    load_sidecar,
    need_same_recording,
    new_sidecar,
    save_sidecar,
    sidecar_path,
)
from lvd.x0.writer import X0Writer

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DIMENSIONS = "[video, step, channel, frame, height, width]"


@dataclass
class X0File:
    """A recording to read.

    Attributes:
        path: of pred_x0.pth.
        tensor: [N, S, C, F, h, w], mapped into memory and not loaded. Never write to it.
        rows: the numbers of the whole rows.
        meta: what made the file; {} when it has no sidecar.
        info: {row: {"prompt", "seed", "timesteps", ...}}.
        earlier: [fingerprint] that the recording had before rows were added to it, oldest first.
    """

    path: Path
    tensor: torch.Tensor
    rows: list
    meta: dict
    info: dict = field(default_factory=dict)
    earlier: list = field(default_factory=list)

    @property
    def fingerprint(self):
        """Hex digest of what made the file; without a sidecar, of its shape and first values."""
        made_by = {
            "shape": list(self.tensor.shape),
            "dtype": str(self.tensor.dtype),
            "meta": {k: v for k, v in self.meta.items() if k not in MAY_DIFFER},
        }
        if not sidecar_path(self.path).exists():
            made_by["values"] = self.tensor[0, 0].flatten()[:4096].tolist()
        return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()

    @property
    def fingerprints(self):
        """All that this recording has had, oldest first; the last is `fingerprint`.

        They tell the same recording that has grown from another recording.
        """
        return [*self.earlier, self.fingerprint]

    def need_rows(self, rows):
        """Check that all of `rows` are whole.

        Raises:
            InputError: some are not, or not in the file; the first ones are named.
        """
        whole = set(self.rows)
        missing = sorted(set(rows) - whole)
        if missing:
            named = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            raise InputError(
                f"{self.path}: {len(missing)} row(s) needed that are not recorded ({named}); the "
                f"file has {len(whole)} whole of {self.tensor.shape[0]}; finish the sampling run"
            )


def create_x0_file(path, rows, steps, latent_shape, dtype, meta, check_space=True, process=(0, 1)):
    """Make an x0 file, or open the unfinished one that is there, to fill it.

    With several processes, rank 0 makes the file and the others open it after that: put a barrier
    between. Put another one after it if `whole` has to be the same in all processes.

    Args:
        path: of pred_x0.pth.
        rows: number of videos, N.
        steps: number of denoising steps, S.
        latent_shape: (C, F, h, w).
        dtype: torch dtype of the file.
        meta: plain JSON dict that says what makes the file.
        check_space: check that the disk has room for the planned size.
        process: (rank, number of processes) of this run.

    Returns:
        An X0Writer.

    Raises:
        InputError: a file is there that was made with another shape, dtype or meta; the disk is
            too small; or another run is writing the file.
    """
    path = Path(path)
    shape = (rows, steps, *latent_shape)
    if len(shape) != 6 or min(shape) < 1:
        raise InputError(f"{path}: shape {list(shape)} is not a non-empty {DIMENSIONS}")
    planned = new_sidecar(shape, dtype, meta)
    if process[0] > 0:
        if not path.exists():
            raise InputError(f"{path}: no such file; process 0 of the run has to make it first")
        need_same_recording(path, planned)
        return X0Writer(path, shape, dtype, planned["meta"], process)
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(path.parent):  # when two runs begin at once, one of them makes the file
        if path.exists():
            need_same_recording(path, planned)
        if check_space:
            size = math.prod(shape) * dtype.itemsize
            fewer = "fewer prompts, float16 or another disk"
            need_space(f"{path}: its rows", size, path, fewer, [path])
        if not path.exists():
            _begin(path, planned, shape, dtype)
        return X0Writer(path, shape, dtype, planned["meta"], process)


def open_x0_file(path):
    """Open a recording to read it.

    While a run is filling the file, the rows that are finished so far are whole. A bare .pth
    without a sidecar is read too: all of its rows count as whole.

    Returns:
        An X0File.

    Raises:
        InputError: the file is missing, truncated, not 6-D, not floating point, or does not agree
            with its sidecar.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; run MagicTime/inference_magictime.py first")
    tensor = _mapped(path)
    _need_recording(path, tensor)
    if not sidecar_path(path).exists():
        return X0File(path, tensor, list(range(tensor.shape[0])), {})
    # The journals come first: meanwhile their lines may be moved into the sidecar.
    finished = JournalReader(path, tensor.shape).new()
    sidecar = load_sidecar(path)
    actual = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    for key, value in actual.items():
        if sidecar[key] != value:
            raise InputError(
                f"{sidecar_path(path)}: says {key} {sidecar[key]}, the tensor in {path.name} has "
                f"{value}; the two files do not belong together"
            )
    info = {int(row): facts for row, facts in sidecar["rows"].items()} | finished
    earlier = sidecar.get("earlier_fingerprints", [])
    return X0File(path, tensor, sorted(info), sidecar["meta"], info, earlier)


def _need_recording(path, tensor):
    """InputError unless the file's content is a 6-D floating point tensor."""
    if not isinstance(tensor, torch.Tensor):
        raise InputError(
            f"{path}: holds a {type(tensor).__name__}, one tensor {DIMENSIONS} is needed"
        )
    checked(Tensor, tensor, path)
    if tensor.dim() != 6 or 0 in tensor.shape:
        raise InputError(
            f"{path}: tensor of shape {shorten(list(tensor.shape))}, {DIMENSIONS} is needed"
        )
    if tensor.dtype not in DTYPES:
        raise InputError(f"{path}: {tensor.dtype} tensor, a floating point one is needed")
    if not stores_all(tensor):
        held = tensor.untyped_storage().nbytes()
        raise InputError(
            f"{path}: tensor of shape {list(tensor.shape)}, but the file holds {held} bytes of "
            "values; a value for each place is needed"
        )


def _mapped(path):
    """The file's content, mapped into memory.

    The mapping is shared if the file is writable: the kernel counts a private one as memory, and
    refuses it for recordings larger than the machine's memory.
    """
    kind = mmap.MAP_SHARED if os.access(path, os.W_OK) else mmap.MAP_PRIVATE
    with torch.serialization.set_default_mmap_options(kind):
        content = load_torch(path, mmap=True)
    return content.detach() if isinstance(content, torch.Tensor) else content


def _begin(path, sidecar, shape, dtype):
    """Make the sidecar, then the file: without a sidecar it would count as a whole recording."""
    _need_no_rows(path, shape)
    for journal in journals(path):  # of a run that was stopped before its first row
        journal.unlink()
    save_sidecar(sidecar, path)
    _allocate(path, shape, dtype)


def _need_no_rows(path, shape):
    """InputError if a sidecar or journals list rows of a recording whose .pth is not there.

    The .pth may only have been moved, and its rows must not be lost.
    """
    beside = [sidecar_path(path)] if sidecar_path(path).exists() else []
    known = load_sidecar(path) if beside else {"shape": shape, "rows": {}}
    rows = set(map(int, known["rows"])) | JournalReader(path, known["shape"]).new().keys()
    if rows:
        names = ", ".join(file.name for file in [*beside, *journals(path)])
        raise InputError(
            f"{path}: not there, but {names} beside it list {len(rows)} row(s) of it as recorded; "
            f"put {path.name} back, or move or delete {names} to begin anew"
        )


def _allocate(path, shape, dtype):
    """Make a torch file of the full size whose data is a hole: no memory, no disk blocks."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        tensor = torch.empty(shape, dtype=dtype)
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        save_torch(tensor, path)
