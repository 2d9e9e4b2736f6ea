"""What files may hold, said once more and apart from the schemas that the code reads them by.

A shape is a function of a value that returns whether it may stand there. What a script accepts must
have the shape; what it refuses need not lack it, since parts may not fit each other.
"""

import math
import unicodedata

import torch


def anything(value):
    return True


def text(value):
    return isinstance(value, str)


def name(value):
    """A text of one line that a terminal shows as it is."""
    if not isinstance(value, str) or not 0 < len(value) <= 5000:
        return False
    return not any(unicodedata.category(one) == "Cc" for one in value if one != "\t")


def boolean(value):
    return isinstance(value, bool)


def whole(low=0, high=2**63 - 1):
    return lambda value: type(value) is int and low <= value <= high


def number(low=-1e300, high=1e300):
    def fits(value):
        if type(value) not in (int, float) or (type(value) is float and not math.isfinite(value)):
            return False
        return low <= value <= high

    return fits


def one_of(*values):
    return lambda value: any(type(value) is type(v) and value == v for v in values)


def maybe(shape):
    return lambda value: value is None or shape(value)


def either(*shapes):
    return lambda value: any(shape(value) for shape in shapes)


def both(*shapes):
    return lambda value: all(shape(value) for shape in shapes)


def list_of(shape, least=0, unique=False):
    def fits(value):
        if not isinstance(value, (list, tuple)) or len(value) < least:
            return False
        if not all(map(shape, value)):
            return False
        return not unique or len(set(map(str, value))) == len(value)

    return fits


def mapping(required=None, optional=None, rest=None):
    """A dict with the required keys, maybe optional ones, and others of the shape `rest` if given.

    required, optional: {key: shape}; rest: shape of the values of all other keys; None: no others.
    """
    required, optional = required or {}, optional or {}

    def fits(value):
        if not isinstance(value, dict) or not required.keys() <= value.keys():
            return False
        known = {**required, **optional}
        return all((known.get(key, rest) or _nothing)(one) for key, one in value.items())

    return fits


def _nothing(value):
    return False


def tensor(*shape, floating=True):
    """A plain tensor of finite numbers. shape: of each dimension its size, or None for any."""

    def fits(value):
        if not isinstance(value, torch.Tensor) or value.is_nested:
            return False
        if value.layout != torch.strided or value.device.type == "meta" or value.is_quantized:
            return False
        if value.is_complex() or (floating and not value.is_floating_point()):
            return False
        if shape and len(shape) != value.dim():
            return False
        sizes = zip(shape, value.shape, strict=False)
        return all(size in (None, here) for size, here in sizes) and _finite(value)

    return fits


def _finite(value):
    return not value.is_floating_point() or bool(value.isfinite().all())


weights = mapping(rest=tensor(floating=False))
