"""Schemas: what a file from outside may hold, checked before anything is made of it.

A kind of file has one schema, a subclass of `Schema` beside the code that reads the file:

    class EvalFile(Schema):
        unsafe: list[Row]
        seed: Whole | None = None

    content = checked(EvalFile, load_torch(path), path)

Source: pydantic, https://docs.pydantic.dev/latest/concepts/models
"""

import json
import unicodedata
from typing import Annotated

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    TypeAdapter,
    ValidationError,
)

from lvd.errors import InputError, shorten, typed

# Numbers and texts. A float is finite; a whole number is no bool and fits 64 bits.
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, le=10**9)]  # of videos, steps, channels, pixels, ...
Positive = Annotated[int, Field(ge=1, le=10**9)]
Row = Count  # number of a video in its recording, from 0
Finite = Annotated[float, Field(allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def has_controls(text):
    """Whether a text holds control characters other than tab, which a terminal would obey."""
    return any(unicodedata.category(one) == "Cc" for one in text if one != "\t")


def has_halves(text):
    """Whether a text holds halves of surrogate pairs, which no file of UTF-8 text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _printable(text):
    if has_controls(text):
        raise ValueError("a text without control characters is needed")
    if has_halves(text):
        raise ValueError("a text without halves of surrogate pairs is needed")
    return text


OneLine = Annotated[str, AfterValidator(_printable)]
Name = Annotated[OneLine, Field(min_length=1, max_length=200)]


def stores_all(tensor):
    """Whether a tensor of a file has a value for each place.

    A view such as expand() makes has any size, and costs nothing in the file.
    """
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def _plain(tensor):
    if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type == "meta":
        raise ValueError("a plain tensor that holds its values is needed")
    return tensor


def _finite(tensor):
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise ValueError("a tensor of finite numbers is needed")
    return tensor


def _json(value):
    try:
        json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        raise ValueError("texts, numbers, lists and mappings alone are needed") from None
    return value


Tensor = Annotated[InstanceOf[torch.Tensor], AfterValidator(_plain)]
FiniteTensor = Annotated[Tensor, AfterValidator(_finite)]
StateDict = dict[str, Tensor]  # weights of a network by name
AsJson = BeforeValidator(_json)  # of a value that must be what JSON can hold


class Schema(BaseModel):
    """Base of the schemas. Types are taken strictly: "5" is no number, and 1 is no bool.

    Unknown keys are refused. A schema whose files may hold more says `extra="allow"`.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def checked(schema, content, where):
    """Check what was read from a file.

    Args:
        schema: a subclass of Schema, or a type such as `list[Row]`.
        content: what was read.
        where: the path of the file, or what else a message calls it.

    Returns:
        `content` itself, unchanged.

    Raises:
        InputError: it does not fit; the first key that is wrong is named, with what was found
            there and what is needed.
    """
    try:
        adapter = TypeAdapter(schema, config=_config_of(schema))
        adapter.validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise InputError(f"{where}: {_reason(first)}") from None
    except RecursionError as error:
        raise InputError(f"{where}: nested too deeply") from error
    return content


def _config_of(schema):
    """A model brings its own config; any other type gets the config of the models."""
    is_model = isinstance(schema, type) and issubclass(schema, BaseModel)
    return None if is_model else ConfigDict(strict=True, allow_inf_nan=False)


def _reason(error):
    """Say in one line what pydantic found."""
    *parents, last = [typed(str(part)) for part in error["loc"]] or ["content"]
    key = ".".join([*parents, last])
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'"
    needed = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not needed.endswith("needed"):
        needed = f"{needed} is needed"
    return f"{key}: found {_found(error['input'])}; {needed}"


def _found(value):
    if isinstance(value, torch.Tensor):
        if value.is_nested:  # some of them have no shape
            return "a nested tensor"
        return f"a tensor of shape {shorten(list(value.shape))}"
    if isinstance(value, (dict, list, tuple)) and len(value) > 3:
        return f"a {type(value).__name__} of {len(value)} entries"
    return shorten(value)
