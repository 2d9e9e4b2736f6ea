"""The torch files of a recording, mapped into memory and checked against its sidecar."""

import mmap
import os

import torch

from lvd.errors import InputError, shorten
from lvd.utils.files import load_torch
from lvd.utils.schema import Tensor, checked, stores_all
from lvd.x0.shards import CRC, ShardedTensor, checksum, shard_path, shards_of
from lvd.x0.sidecar import sidecar_path

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DIMENSIONS = "[video, step, channel, frame, height, width]"


def map_recording(path, sidecar, info):
    """Map all files of a recording.

    Args:
        path: of pred_x0.pth.
        sidecar: of `load_sidecar`.
        info: {row: facts} of the whole rows.

    Returns:
        [N, S, C, F, h, w], a tensor or a ShardedTensor.

    Raises:
        InputError: a file is missing, damaged or does not belong to the sidecar.
    """
    shards = shards_of(sidecar)
    grown = shards_of(sidecar.get("growing") or sidecar)
    parts = []
    for number, rows in enumerate(shards):
        part = map_file(_need_shard(path, number, shards))
        if part.shape[0] != rows and part.shape[0] == grown[number]:
            part = part[:rows]  # rows are being added, or this was broken off
        _need_agreement(path, number, part, sidecar)
        parts.append(part)
    if len(parts) == 1:
        return parts[0]
    _need_own_shards(path, parts, info)
    return ShardedTensor(parts)


def map_file(path):
    """Map a torch file that holds one recording, or a shard of it.

    The mapping is shared if the file is writable: the kernel counts a private one as memory, and
    refuses it for recordings larger than the machine's memory.

    Raises:
        InputError: the file is no 6-D floating point tensor.
    """
    kind = mmap.MAP_SHARED if os.access(path, os.W_OK) else mmap.MAP_PRIVATE
    with torch.serialization.set_default_mmap_options(kind):
        tensor = load_torch(path, mmap=True)
    tensor = tensor.detach() if isinstance(tensor, torch.Tensor) else tensor
    _need_recording(path, tensor)
    return tensor


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


def _need_shard(path, number, shards):
    """Return the path of a shard; InputError if it is not there."""
    file = shard_path(path, number)
    if not file.exists():
        first = sum(shards[:number])
        raise InputError(
            f"{file}: not there, but {sidecar_path(path).name} says that it holds rows {first} to "
            f"{first + shards[number] - 1} of the recording; put it back"
        )
    return file


def _need_agreement(path, number, part, sidecar):
    """InputError unless a shard has the rows and the kind of values that the sidecar says."""
    file = shard_path(path, number)
    shape = [shards_of(sidecar)[number], *sidecar["shape"][1:]]
    actual = {"shape": list(part.shape), "dtype": str(part.dtype).removeprefix("torch.")}
    for key, said in (("shape", shape), ("dtype", sidecar["dtype"])):
        if actual[key] != said:
            raise InputError(
                f"{sidecar_path(path)}: says {key} {said}, the tensor in {file.name} has "
                f"{actual[key]}; the two files do not belong together"
            )


def _need_own_shards(path, parts, info):
    """InputError where the first or the last whole row of a shard is another than the sidecar's."""
    whole, first = sorted(info), 0
    for number, part in enumerate(parts):
        inside = [row for row in whole if first <= row < first + len(part)]
        for row in (*inside[:1], *inside[-1:]):
            known = info[row].get(CRC)
            if known is not None and known != checksum(part[row - first]):
                raise InputError(
                    f"{shard_path(path, number)}: row {row} is not the one that "
                    f"{sidecar_path(path).name} tells of; shards were exchanged, or are of another "
                    "recording: put back its own"
                )
        first += len(part)
