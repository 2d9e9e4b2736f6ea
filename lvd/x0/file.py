"""The x0 file: one tensor [N, S, C, F, h, w] of predicted x0, one row for each video.

N videos, S denoising steps; C channels, F frames, h x w: the latents. `pred_x0.pth` is an ordinary
torch file that `torch.load(path, mmap=True, weights_only=True)` opens anywhere. One process or
several fill it, row by row. It is made at its full size at once, as a sparse file, so it costs
neither memory nor disk before a row is written.

The sidecar and the journals beside it (lvd.x0.sidecar) say what made the file and which rows are
whole. They name a row only after its data is on the disk, so a killed run never leaves half a row
that looks whole.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lvd.errors import InputError
from lvd.utils.disk import look_anew, need_space
from lvd.utils.locks import folder_lock
from lvd.x0.mapped import DIMENSIONS, map_file, map_recording
from lvd.x0.row_files import allocate
from lvd.x0.shards import plan_shards, shard_files, shard_path, shards_of, without_checksum
from lvd.x0.sidecar import (
    JournalReader,
    fingerprint_of,
    journals,
    load_sidecar,
    need_same_recording,
    new_sidecar,
    save_sidecar,
    sidecar_path,
    whole_rows,
)
from lvd.x0.writer import X0Writer

TRIES = 10  # to open a recording whose sidecar is written anew meanwhile


@dataclass
class X0File:
    """A recording to read.

    Attributes:
        path: of pred_x0.pth.
        tensor: [N, S, C, F, h, w], mapped into memory and not loaded. Never write to it. Of a
            recording in shards it is a ShardedTensor, which is indexed in the same way.
        rows: the numbers of the whole rows.
        meta: what made the file; {} when it has no sidecar.
        info: {row: {"prompt", "seed", "timesteps", ...}}.
        earlier: [fingerprint] that the recording had before rows were added to it, oldest first.
        files: [paths of its torch files]: pred_x0.pth alone, or all shards.
    """

    path: Path
    tensor: torch.Tensor
    rows: list
    meta: dict
    info: dict = field(default_factory=dict)
    earlier: list = field(default_factory=list)
    files: list = None

    def __post_init__(self):
        self.files = self.files or [self.path]

    @property
    def fingerprint(self):
        """Hex digest of what made the file; without a sidecar, of its shape and first values."""
        values = None
        if not sidecar_path(self.path).exists():
            values = self.tensor[0, 0].flatten()[:4096].tolist()
        dtype = str(self.tensor.dtype).removeprefix("torch.")
        return fingerprint_of(self.tensor.shape, dtype, self.meta, values)

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
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    planned = new_sidecar(shape, dtype, meta, plan_shards(rows, row_bytes))
    if process[0] > 0:
        look_anew(path.parent)
        if not path.exists():
            raise InputError(f"{path}: no such file; process 0 of the run has to make it first")
        need_same_recording(path, planned)
        return X0Writer(path, shape, dtype, planned["meta"], process)
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(path.parent):  # when two runs begin at once, one of them makes the file
        if path.exists():
            need_same_recording(path, planned)
        if check_space:
            files = recording_files(path)
            fewer = "fewer prompts, float16 or another disk"
            need_space(f"{path}: its rows", rows * row_bytes, path, fewer, files)
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
        InputError: the file or a shard of it is missing, truncated, not 6-D, not floating point, or
            does not agree with its sidecar.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; run MagicTime/inference_magictime.py first")
    if not sidecar_path(path).exists():
        tensor = map_file(path)
        return X0File(path, tensor, list(range(tensor.shape[0])), {})
    for _ in range(TRIES):
        before = _stamp(path)
        try:
            found = _open_as_said(path)
        except InputError:
            if _stamp(path) == before:
                raise
            continue
        if _stamp(path) == before:
            return found
    raise InputError(f"{path}: its sidecar changes all the time; wait for the run that writes it")


def _open_as_said(path):
    """The X0File as its sidecar and journals say."""
    sidecar = load_sidecar(path)
    info = whole_rows(path, sidecar)
    tensor = map_recording(path, sidecar, info)
    if not isinstance(tensor, torch.Tensor):
        info = {row: without_checksum(facts) for row, facts in info.items()}
    earlier = sidecar.get("earlier_fingerprints", [])
    files = shard_files(path, sidecar)
    return X0File(path, tensor, sorted(info), sidecar["meta"], info, earlier, files)


def _stamp(path):
    """What changes with the sidecar: meanwhile journals were moved into it, or rows added."""
    status = sidecar_path(path).stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def recording_files(path):
    """Return the paths of the torch files of a recording, which need not be there yet."""
    known = sidecar_path(path).exists() and path.exists()
    return shard_files(path, load_sidecar(path)) if known else [path]


def _begin(path, sidecar, shape, dtype):
    """Make the sidecar, then the files: without a sidecar a file would count as a whole recording.

    The first file comes last: where it is, the others are.
    """
    _need_no_rows(path, shape)
    for journal in journals(path):  # of a run that was stopped before its first row
        journal.unlink()
    save_sidecar(sidecar, path)
    for number, rows in reversed(list(enumerate(shards_of(sidecar)))):
        allocate(shard_path(path, number), (rows, *shape[1:]), dtype)


def _need_no_rows(path, shape):
    """InputError if a sidecar or journals list rows of a recording whose .pth is not there.

    The .pth may only have been moved, and its rows must not be lost.
    """
    beside = [sidecar_path(path)] if sidecar_path(path).exists() else []
    shard = shard_path(path, 1)
    if shard.exists() and not beside:
        raise InputError(
            f"{path}: not there, but {shard.name} of it is, without {sidecar_path(path).name}; put "
            f"them back, or move {shard.name} and the shards after it away to begin anew"
        )
    known = load_sidecar(path) if beside else {"shape": shape, "rows": {}}
    rows = set(map(int, known["rows"])) | JournalReader(path, known["shape"]).new().keys()
    if rows:
        names = ", ".join(file.name for file in [*beside, *journals(path)])
        raise InputError(
            f"{path}: not there, but {names} beside it list {len(rows)} row(s) of it as recorded; "
            f"put {path.name} back, or move or delete {names} to begin anew"
        )
