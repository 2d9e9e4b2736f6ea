"""Equal content gives equal bytes, however it came about."""

import json
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
import yaml

from lvd.utils.canonical import canonical
from lvd.utils.config import ROOT
from lvd.utils.files import load_torch, save_torch, save_yaml

WORD = "a word"


def copied(text):
    """An equal text that is another object."""
    return "".join(list(text))


SHARED = [1, WORD]
PAIRS = {
    "texts": ([WORD, WORD], [copied(WORD), copied(WORD)]),
    "a text that torch writes": (["cpu", torch.ones(2)], [copied("cpu"), torch.ones(2)]),
    "texts of one letter": (["0", "0", torch.ones(2)], [str(0), copied("0"), torch.ones(2)]),
    "lists": ([SHARED, SHARED], [[1, WORD], [1, copied(WORD)]]),
    "tuples": ((("a", 1),) * 2, (("a", 1), tuple(json.loads('["a", 1]')))),
    "keys": ([{WORD: 1}, {WORD: 2}], [{copied(WORD): 1}, {copied(WORD): 2}]),
    "read from JSON": ([WORD, {WORD: WORD}], json.loads(json.dumps([WORD, {WORD: WORD}]))),
    "a view": (torch.arange(10.0)[2:5], torch.tensor([2.0, 3.0, 4.0])),
    "turned": (torch.arange(6.0).view(2, 3).T, torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]])),
    "one tensor twice": ([torch.ones(3)] * 2, [torch.ones(3), torch.ones(3)]),
    "parts of a tensor": (
        list(torch.arange(4.0).split(2)),
        [torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])],
    ),
    "of a network": (torch.nn.Linear(2, 2).bias.data.zero_(), torch.zeros(2)),
    "a parameter": (torch.nn.Parameter(torch.ones(2)), torch.ones(2)),
    "no values": (torch.ones(5)[:0], torch.ones(0)),
    "a number": (torch.arange(3)[2], torch.tensor(2)),
    "an ordered dict": (OrderedDict(a=SHARED, b=SHARED), OrderedDict(a=[1, WORD], b=[1, WORD])),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equal_content_gives_equal_bytes(name, tmp_path):
    for number, content in enumerate(PAIRS[name]):
        save_torch(content, tmp_path / f"{number}.pth")
    assert (tmp_path / "0.pth").read_bytes() == (tmp_path / "1.pth").read_bytes()
    assert str(load_torch(tmp_path / "0.pth")) == str(load_torch(tmp_path / "1.pth"))


@pytest.mark.parametrize("name", PAIRS)
def test_saved_anew_it_has_the_same_bytes(name, tmp_path):
    save_torch(PAIRS[name][0], tmp_path / "0.pth")
    save_torch(load_torch(tmp_path / "0.pth"), tmp_path / "1.pth")
    assert (tmp_path / "0.pth").read_bytes() == (tmp_path / "1.pth").read_bytes()


def test_values_stay_as_they_are():
    content = {"b": 1, "a": [True, None, 2.5, 10**30, (), "", "\ud800"], 3: torch.eye(2).half()}
    found = canonical(content)
    assert list(found) == ["b", "a", 3]  # the order of the keys is content
    assert found["a"] == content["a"] and found["a"] is not content["a"]
    assert found[3].dtype == torch.half and torch.equal(found[3], content[3])


def test_a_large_tensor_is_not_copied():
    tensor = torch.ones(1000)
    assert canonical({"a": tensor})["a"].data_ptr() == tensor.data_ptr()


def test_random_content_from_two_processes(tmp_path):
    """Other hash seeds, other objects."""
    code = """
import random, sys, torch
from lvd.utils.files import load_torch, save_torch
draw = random.Random(3)
def value(depth):
    kind = draw.randrange(6 if depth else 3)
    if kind < 2: return "".join(draw.choices("abc", k=draw.randrange(4)))
    if kind == 2: return torch.full((draw.randrange(3),), draw.random())
    parts = [value(depth - 1) for _ in range(3)]
    return [parts, tuple(parts), dict(zip("xyz", parts))][kind - 3]
content = [value(3) for _ in range(40)]
save_torch(content, sys.argv[1])
save_torch(load_torch(sys.argv[1]), sys.argv[2])
"""
    names = [tmp_path / f"{number}.pth" for number in range(4)]
    for seed, pair in ((1, names[:2]), (2, names[2:])):
        command = [sys.executable, "-c", code, *map(str, pair)]
        environment = {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)}
        subprocess.run(command, env=environment, check=True)
    assert len({name.read_bytes() for name in names}) == 1


def test_a_list_that_occurs_twice_is_written_twice_as_yaml(tmp_path):
    save_yaml({"a": SHARED, "b": SHARED}, tmp_path / "x.yaml")
    text = (tmp_path / "x.yaml").read_text()
    assert "&" not in text and yaml.safe_load(text) == {"a": SHARED, "b": SHARED}
