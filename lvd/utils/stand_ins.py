"""Plain values in place of what torch files of the paper's scripts hold besides tensors.

Those files hold numpy's numbers, and dicts with a default. Reading them, torch looks up each name
in `STAND_INS` and calls what stands there, which makes a plain number or an empty dict. So nothing
of numpy and no function of another script is run, and a name that is not in the list is refused.
"""

import struct
from contextlib import contextmanager
from threading import Lock

import torch

# numpy's names of number types, and struct's letters for them.
LETTERS = {
    "f8": "d",
    "f4": "f",
    "f2": "e",
    "i8": "q",
    "i4": "i",
    "i2": "h",
    "i1": "b",
    "u8": "Q",
    "u4": "I",
    "u2": "H",
    "u1": "B",
    "b1": "?",
}
BYTE_ORDERS = {"<": "<", ">": ">", "|": "<"}  # "|": a type of one byte, which has none


class NumberType:
    """Stands for numpy.dtype: the type of one number."""

    def __init__(self, name, *_):
        self.letter = LETTERS[name]
        self.order = "<"

    def __setstate__(self, state):
        self.order = BYTE_ORDERS[state[1]]


def number(kind, data):
    """Stands for numpy's scalar: the number of type `kind` in the bytes `data`."""
    return struct.unpack(kind.order + kind.letter, data)[0]


def plain_dict(*_):
    """Stands for collections.defaultdict, without its default."""
    return {}


def no_default(*_):
    """Stands for the default of a defaultdict, which is never asked for."""


STAND_INS = {
    "numpy.dtype": NumberType,
    "numpy._core.multiarray.scalar": number,
    "numpy.core.multiarray.scalar": number,  # numpy before 2
    "collections.defaultdict": plain_dict,
    "builtins.list": no_default,
    "__main__.default_list_dict": no_default,
}
_one_at_a_time = Lock()  # torch keeps one list of names for the whole process


@contextmanager
def stand_ins():
    """Within the block, torch.load with weights_only=True knows the names of `STAND_INS`."""
    named = [(function, name) for name, function in STAND_INS.items()]
    with _one_at_a_time, torch.serialization.safe_globals(named):
        yield
