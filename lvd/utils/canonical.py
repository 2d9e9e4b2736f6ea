"""Copies of plain values from which equal content gives equal bytes."""

from collections import OrderedDict

import torch


def canonical(value):
    """Return a copy of plain values and tensors whose pickle depends on its content alone.

    Pickle writes an object that occurs twice once, and a tensor with its whole storage. So the
    bytes would tell how a value came about: read from a file or computed, a view or not. In the
    copy nothing is shared but equal texts, and a tensor's storage holds its values and nothing
    else. Tensors that are so already are not copied.

    Args:
        value: dicts, lists and tuples of tensors, texts, numbers. Other objects stay as they are.
    """
    return _copied(value, {}, set())


def _copied(value, texts, storages):
    """texts: {text: the object that stands for it}; storages: addresses of the tensors' so far."""
    kind = type(value)
    if kind is str:
        return texts.setdefault(value, _new_object(value))
    if kind in (dict, OrderedDict):
        pairs = value.items()
        return kind((_copied(k, texts, storages), _copied(v, texts, storages)) for k, v in pairs)
    if kind in (list, tuple):
        return kind([_copied(part, texts, storages) for part in value])
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        return _tensor(value, storages)
    return value


def _new_object(text):
    """An equal text that nobody else has: torch itself writes texts such as "cpu" into a file."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")


def _tensor(tensor, storages):
    tensor = tensor.detach()
    storage = tensor.untyped_storage()
    place = storage._cdata
    if tensor.is_contiguous() and storage.nbytes() == tensor.nbytes and place not in storages:
        storages.add(place)
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)
