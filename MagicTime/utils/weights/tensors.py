"""Named tensors from weight files into modules.

Every key must have a place in the module, with the right shape; else an InputError names it. Files
are memory-mapped and modules begin without values, so reading, checking and replacing weights costs
no memory: a weight takes memory once, when `own` copies it.
"""

import re
import zipfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from lvd.errors import InputError, shorten
from lvd.utils.files import load_torch, need_file

# What trainers keep beside a state_dict (besides single numbers and texts): nothing of it is a
# weight of the model.
TRAINER = {
    "callbacks",
    "hparams",
    "hyper_parameters",
    "loops",
    "lr_scheduler",
    "lr_schedulers",
    "optimizer",
    "optimizer_states",
    "scaler",
    "scheduler",
    "args",
    "config",
    "native_amp_scaling_state",
    "MixedPrecisionPlugin",
}
BLOCK = 2**18  # values that are copied, then summed, at a time
# Stable Diffusion's own .ckpt files keep a Lightning callback and a numpy score there. `_Inert`
# stands in for them.
BESIDE = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
)


class _Inert:
    """Stands in for a class that a pickle names: takes any arguments, does nothing."""

    def __new__(cls, *args):
        return super().__new__(cls)

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


def read_tensors(path):
    """Read a .safetensors file or a torch file, memory-mapped. No pickled code is run.

    The tensors of a torch file may stand under `state_dict`. What trainers keep beside tensors
    (epoch, optimizer states, ...) is left out; so is a `module.` prefix that all names have.

    Returns:
        {name: tensor}.
    """
    path = Path(path)
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not tensors:
        raise InputError(f"{path}: holds no tensors")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): t for name, t in tensors.items()}
    return tensors


def _read_safetensors(path):
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    need_file(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({str(error).splitlines()[0][:160]})"
        ) from error


def _read_torch(path):
    with torch.serialization.safe_globals([(_Inert, name) for name in BESIDE]):
        content = load_torch(path, mmap=_can_be_mapped(path))
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, a dict of named tensors is needed"
        )
    wrapped = content.get("state_dict")
    if not isinstance(wrapped, dict):
        return _only_tensors(content, path)
    others = {name: value for name, value in content.items() if name != "state_dict"}
    for name, tensor in _only_tensors(others, path).items():
        if tensor.dim():
            raise InputError(
                f"{path}: holds '{name}' beside 'state_dict', it has no place in this model"
            )
    return _only_tensors(wrapped, path)


def _only_tensors(content, path):
    """Return the tensors of a dict; what is neither a tensor nor a trainer's is an InputError."""
    tensors = {
        name: value.detach() for name, value in content.items() if isinstance(value, torch.Tensor)
    }
    if bad := [name for name in tensors if not isinstance(name, str)]:
        raise InputError(
            f"{path}: holds a tensor under the key {shorten(bad[0])}, keys must be names"
        )
    for name, value in content.items():
        if (
            not isinstance(value, (torch.Tensor, str, bytes, int, float, type(None), _Inert))
            and name not in TRAINER
        ):
            raise InputError(f"{path}: '{name}' holds a {type(value).__name__}, a tensor is needed")
    return tensors


def _can_be_mapped(path):
    """Tell whether torch can map a file: a zip file whose entries are stored, as torch writes them.

    Files that were compressed, and those of torch before 1.6, are read whole.
    """
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # torch's own reader will say what is wrong


def leave_out(tensors, rules):
    """Leave out the tensors that the model does not use.

    Args:
        tensors: {name: tensor}.
        rules: {reason: regular expression of whole names}.

    Returns:
        ({name: tensor} of the others, Counter {reason: how many}).
    """
    kept, left = {}, Counter()
    for name, tensor in tensors.items():
        reasons = [reason for reason, pattern in rules.items() if re.fullmatch(pattern, name)]
        if reasons:
            left[reasons[0]] += 1
        else:
            kept[name] = tensor
    return kept, left


def say_left_out(left):
    """Return a Counter of `leave_out` in words: '; 690 left out (686 EMA, 4 schedule)', or ''."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in left.items() if count)
    return f"; {sum(left.values())} left out ({reasons})" if reasons else ""


def rename(tensors, new_name, source):
    """Return {new_name(name): tensor}; two names that become one are an InputError."""
    renamed = {}
    origin = {}
    for name, tensor in tensors.items():
        new = new_name(name)
        if new in renamed:
            raise InputError(f"{source}: keys '{origin[new]}' and '{name}' are two forms of one")
        renamed[new] = tensor
        origin[new] = name
    return renamed


@contextmanager
def without_weights():
    """Make modules in this block without values for their parameters (on the meta device).

    Nothing is drawn and no memory is taken. Buffers that are computed, such as position tables, are
    real.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        yield


def load_exactly(module, tensors, source, wanted=lambda name: True):
    """Put tensors in place of a module's parameters and buffers: all of them and nothing else.

    Nothing is copied or cast until `own`.

    Args:
        module: torch module.
        tensors: {name: tensor}.
        source: names the file in errors.
        wanted: function that tells of a name whether it belongs to those that are replaced.

    Returns:
        The number of tensors.
    """
    homes = {name: tensor for name, tensor in module.state_dict().items() if wanted(name)}
    for name in tensors:
        if name not in homes:
            raise InputError(f"{source}: key '{name}' has no place in this model")
    for name in homes:
        if name not in tensors:
            raise InputError(f"{source}: key '{name}' is missing")
    for name, tensor in tensors.items():
        check_tensor(name, tensor, homes[name].shape, source)
    module.load_state_dict(tensors, strict=False, assign=True)
    files = getattr(module, "weight_files", {})
    module.weight_files = {**files, **dict.fromkeys(tensors, source)}  # for `own`
    return len(tensors)


def check_tensor(name, tensor, shape, source):
    """Refuse a tensor of another shape, or of anything but plain floating point numbers."""
    if tuple(tensor.shape) != tuple(shape):
        raise InputError(
            f"{source}: '{name}' has shape {tuple(tensor.shape)}, needed {tuple(shape)}"
        )
    plain = (
        tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    )
    if not (plain and tensor.is_floating_point()):
        raise InputError(
            f"{source}: '{name}' holds {tensor.dtype} ({tensor.layout}, {tensor.device}), plain "
            "floating point numbers are needed"
        )


def need_finite(name, tensor, source):
    """Refuse a tensor with a value that is infinite or not a number."""
    # Of the smallest and the largest value this is many times faster than of all.
    if tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all():
        raise InputError(f"{source}: '{name}' holds values that are not finite in {tensor.dtype}")


def _copied(mapped, dtype):
    """Copy a tensor as `dtype`: (the copy, whether its sums are finite).

    Each block is summed while the processor's cache still holds it: so a look at all values costs a
    tenth of copying them. Sums of finite values may overflow; `need_finite` is exact.
    """
    copied = torch.empty(mapped.shape, dtype=dtype, device=mapped.device)
    there, here = torch.atleast_1d(mapped), torch.atleast_1d(copied)
    rows = max(1, BLOCK * len(here) // max(1, here.numel()))
    sums = [
        block.copy_(values).sum()
        for block, values in zip(here.split(rows), there.split(rows), strict=True)
    ]
    return copied, bool(torch.stack(sums).isfinite().all())


@torch.no_grad()
def own(module, dtype=torch.float32):
    """Copy a module's weights out of their files into memory, as `dtype`, one by one.

    Returns:
        `module`, in evaluation mode.

    Raises:
        InputError: names a weight with values that are not finite, and the file that it came from.
    """
    files = getattr(module, "weight_files", {})
    for place, part in module.named_modules():
        for name, mapped in list(part.named_parameters(recurse=False)):
            copied, finite = _copied(mapped, dtype)
            if not finite:
                full_name = f"{place}.{name}".removeprefix(".")
                need_finite(full_name, copied, files.get(full_name, "the model"))
            setattr(part, name, nn.Parameter(copied, requires_grad=False))
        for name, table in list(part.named_buffers(recurse=False)):
            if table.is_floating_point():
                setattr(part, name, table.to(dtype))
    return module.eval()
