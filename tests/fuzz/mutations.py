"""Changes of a file: at a place of what it holds, or of its bytes. All seeded."""

import copy
import os
import random

import torch

DELETE = object()
DEEP = []
for _ in range(60):
    DEEP = [DEEP]

# name → value that takes a place. The numbers are those that break arithmetic, the texts those
# that break messages and terminals.
VALUES = {
    "null": None,
    "true": True,
    "false": False,
    "text": "abc",
    "number as text": "5",
    "empty text": "",
    "negative": -1,
    "zero": 0,
    "one": 1,
    "fraction": 0.5,
    "10**12": 10**12,
    "10**40": 10**40,
    "5000 digits": 10**4999,
    "1e308": 1e308,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "empty list": [],
    "empty dict": {},
    "list": [1, 2, 3],
    "list of lists": [[1], [2, 3]],
    "deep list": DEEP,
    "dict": {"a": 1},
    "long text": "x" * 5000,
    "long list": list(range(3000)),
    "lines": "two\nlines\r\x1b[31m",
    "unicode": "日本語\u202e\U0001f600",
    "interpolation": "${oc.env:HOME}",
    "path up": "../up",
}


def _tensors():
    """name → function of the tensor there: others of its kind that a file may hold."""
    return {
        "another shape": lambda t: torch.zeros(*t.shape, 2),
        "fewer": lambda t: t[:-1].clone() if t.dim() and len(t) > 1 else t.reshape(-1)[:0].clone(),
        "no dimension": lambda t: torch.tensor(1.0),
        "no values": lambda t: torch.zeros(0),
        "whole numbers": lambda t: torch.ones(t.shape, dtype=torch.int64),
        "bool": lambda t: torch.ones(t.shape, dtype=torch.bool),
        "complex": lambda t: torch.ones(t.shape, dtype=torch.complex64),
        "float64": lambda t: t.double(),
        "sparse": lambda t: torch.ones(t.shape).to_sparse(),
        "meta": lambda t: torch.ones(t.shape, device="meta"),
        "nested": lambda t: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "quantized": lambda t: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
        "nan in it": lambda t: torch.full(t.shape, float("nan")),
        "inf in it": lambda t: torch.full(t.shape, float("inf")),
        "huge in it": lambda t: torch.full(t.shape, 1e38),
        "a stride of 0": lambda t: torch.ones(1).expand(t.shape),
    }


TENSORS = _tensors()


def places(tree, path=(), width=4):
    """Yield the path of every place in a tree of dicts and lists, its root first.

    Of a long list or dict, only some entries: the first ones, the middle and the last.
    """
    yield path
    if isinstance(tree, dict):
        keys = list(tree)
    elif isinstance(tree, (list, tuple)):
        keys = list(range(len(tree)))
    else:
        return
    if len(keys) > 3 * width and not isinstance(tree, dict):
        keys = [keys[0], keys[1], keys[len(keys) // 2], keys[-1]]
    elif len(keys) > 40:  # a state dict
        keys = [*keys[:width], keys[len(keys) // 2], *keys[-width:]]
    for key in keys:
        yield from places(tree[key], (*path, key), width)


def at(tree, path):
    """What stands at a place."""
    for key in path:
        tree = tree[key]
    return tree


def put(tree, path, value):
    """A tree with `value` at a place (DELETE: without it); what is not on the way is shared."""
    if not path:
        return value
    key, *rest = path
    changed = dict(tree) if isinstance(tree, dict) else list(tree)
    if rest or value is not DELETE:
        changed[key] = put(tree[key], rest, value)
    else:
        del changed[key]
    return changed


def changes_at(tree, path, tensors=False):
    """Yield (name, function of the tree → changed tree) of what can be done at one place."""
    there = at(tree, path)
    for name, value in VALUES.items():
        if type(value) is not type(there) or value != there:
            yield name, lambda t, value=value: put(t, path, copy.deepcopy(value))
    if path:
        yield "delete", lambda t: put(t, path, DELETE)
    if isinstance(there, dict):
        yield "extra key", lambda t: put(t, path, {**at(t, path), "surprise": 1})
        yield "key of a number", lambda t: put(t, path, {**at(t, path), 7: 1})
        yield "long key", lambda t: put(t, path, {**at(t, path), "k" * 4000: 1})
    if isinstance(there, dict) and there:
        first = next(iter(there))
        yield "renamed key", lambda t: put(t, path, _renamed(at(t, path), first))
    if isinstance(there, list) and there:
        yield "first twice", lambda t: put(t, path, [at(t, path)[0], *at(t, path)])
        yield "last gone", lambda t: put(t, path, at(t, path)[:-1])
        yield "reversed", lambda t: put(t, path, at(t, path)[::-1])
    if isinstance(there, (int, float)) and not isinstance(there, bool):
        yield "one more", lambda t: put(t, path, at(t, path) + 1)
        yield "as text", lambda t: put(t, path, str(at(t, path)))
    if tensors:
        like = there if isinstance(there, torch.Tensor) else torch.ones(2, 2)
        for name, change in TENSORS.items():
            yield f"tensor: {name}", lambda t, change=change: put(t, path, change(like))


def _renamed(mapping, key):
    return {(f"{key}_" if name == key else name): value for name, value in mapping.items()}


def drawn(tree, count, seed, tensors=False, skip=()):
    """Draw `count` changes of a tree: [(case, path, function of the tree → changed tree)].

    Every kind of place gets its share: first a place is drawn, then a change.

    Args:
        tree: what the file holds.
        count: how many; all there are, if those are fewer.
        seed: a text.
        tensors: whether the file may hold tensors.
        skip: names of changes that the file's format cannot hold.
    """
    draw = random.Random(seed)
    by_place = []
    for path in places(tree):
        changes = [(path, *c) for c in changes_at(tree, path, tensors) if c[0] not in skip]
        draw.shuffle(changes)
        by_place.append(changes)
    draw.shuffle(by_place)
    found = []
    while len(found) < count and any(by_place):
        for changes in by_place:
            if changes and len(found) < count:
                path, name, change = changes.pop()
                where = ".".join(map(str, path)) or "all"
                found.append((f"{where}: {name}", path, change))
    return found


def damages(count, seed):
    """[(case, function of a path)] that damage a file's bytes, or put something else in its place.

    The special ones come first, then truncations and flipped bytes.
    """
    draw = random.Random(seed)
    special = [
        ("empty file", lambda path: path.write_bytes(b"")),
        ("a folder", lambda path: (path.unlink(), path.mkdir())),
        ("a pipe", lambda path: (path.unlink(), os.mkfifo(path))),
        ("a link to itself", lambda path: (path.unlink(), path.symlink_to(path))),
        ("a link to nothing", lambda path: (path.unlink(), path.symlink_to("nothing"))),
        ("gone", lambda path: path.unlink()),
        ("zeros", lambda path: path.write_bytes(bytes(2000))),
        ("not UTF-8", lambda path: path.write_bytes(b"\xff\xfe\x00\x81" * 50)),
        ("a device", lambda path: (path.unlink(), path.symlink_to("/dev/null"))),
        ("one byte less", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("doubled", lambda path: path.write_bytes(path.read_bytes() * 2)),
    ]
    draw.shuffle(special)
    found = special[:count]
    while len(found) < count:
        share, bit = draw.random(), draw.randrange(8)
        if draw.random() < 0.4:
            found.append((f"cut at {share:.3f}", lambda path, s=share: _cut(path, s)))
        else:
            found.append((f"bit {bit} at {share:.3f}", lambda p, s=share, b=bit: _flip(p, s, b)))
    return found


def _cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def _flip(path, share, bit):
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 1 << bit
    path.write_bytes(data)
