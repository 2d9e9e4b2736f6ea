"""Named tensors between files and modules: every key finds its home with the right shape, or InputError names it."""

from pathlib import Path

import torch

from lvd.errors import InputError
from lvd.files import load_torch, need_file


def read_tensors(path):
    """{name: tensor} of a .safetensors file or of a torch file (bare, or wrapped under `state_dict`).

    What is not a tensor (epoch counters and the like) is left out; so is a `module.` prefix that all names bear.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
    else:
        tensors = load_torch(path)
        if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
            tensors = tensors["state_dict"]
        if not isinstance(tensors, dict):
            raise InputError(f"{path}: holds a {type(tensors).__name__}, a dict of named tensors is needed")
        tensors = {name: t for name, t in tensors.items() if isinstance(t, torch.Tensor)}
        if bad := [name for name in tensors if not isinstance(name, str)]:
            raise InputError(f"{path}: holds a tensor under the key {bad[0]!r}, keys must be names")
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
        raise InputError(f"{path}: not a readable safetensors file ({str(error).splitlines()[0][:160]})") from error


def load_exactly(module, tensors, source, wanted=lambda name: True):
    """Copy `tensors` into the parameters and buffers of `module` whose names `wanted` accepts: all of them, nothing else.

    Returns the number of tensors copied. Values are cast to the module's dtype. `source` names the file in errors.
    """
    homes = {name: t for name, t in module.state_dict().items() if wanted(name)}
    for name in tensors:
        if name not in homes:
            raise InputError(f"{source}: key '{name}' has no place in this model")
    for name in homes:
        if name not in tensors:
            raise InputError(f"{source}: key '{name}' is missing")
    for name, tensor in tensors.items():
        check_shape(name, tensor, homes[name].shape, source)
    with torch.no_grad():
        for name, tensor in tensors.items():
            homes[name].copy_(tensor)
    return len(tensors)


def check_shape(name, tensor, shape, source):
    if tuple(tensor.shape) != tuple(shape):
        raise InputError(f"{source}: '{name}' has shape {tuple(tensor.shape)}, needed {tuple(shape)}")
