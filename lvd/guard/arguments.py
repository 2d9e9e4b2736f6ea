"""The arguments of a Guard: their types, and the device that it computes on."""

import os
from decimal import Decimal
from fractions import Fraction
from types import NoneType

import torch

from lvd.errors import ArgumentError, InputError, shorten, words_of
from lvd.rules.choice import LONGEST_PATH


def check_types(model_dir, lambda_, operating_point, decode, allow_unknown, asked_by):
    """InputError for an argument of a Guard that is of another type."""
    number = (int, float, Fraction, Decimal, str)
    needed = {
        asked_by.strip(" ="): (model_dir, (str, os.PathLike), "the folder of the detectors"),
        "lambda_": (lambda_, (*number, NoneType), "a number in [0, 1]"),
        "operating_point": (
            operating_point,
            (str, float, int, NoneType),
            "a name or a probability",
        ),
        "allow_unknown": (allow_unknown, (bool,), "True or False"),
    }
    for name, (value, kinds, what) in needed.items():
        is_flag = isinstance(value, bool) and bool not in kinds  # True is an int, to Python
        longest = LONGEST_PATH if os.PathLike in kinds else 100
        is_long = isinstance(value, str) and len(value) > longest
        if is_flag or is_long or not isinstance(value, kinds):
            raise ArgumentError(name, value, f": {what} is needed")
    if decode is not None and not callable(decode):
        raise ArgumentError("decode", decode, ": a function from latents to pixels is needed")


def flag_of_rule(asked_by):
    """Return what messages put before a rule: a flag where a flag named the detectors, too."""
    return "--rule " if asked_by.startswith("--") else "rule="


def usable_device(device):
    """Return the device that detectors run on; InputError if nothing can be computed there."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(device)
        torch.ones(1, device=device).add(1).item()
    except Exception as error:  # torch has one kind of error for each way to be absent
        raise InputError(
            f"device={shorten(device)}: cannot be used ({words_of(error)}); one of this "
            "machine, such as cpu, is needed"
        ) from error
    return device
