"""Moving named tensors into modules: every key finds its home with the right shape, or InputError says which does not."""

import torch

from lvd.errors import InputError


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
