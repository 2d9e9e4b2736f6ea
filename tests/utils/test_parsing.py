"""YAML and JSON of strangers: numbers as people write them, nothing doubtful, nothing endless."""

import json
import time

import pytest

from lvd.errors import InputError
from lvd.utils import files
from lvd.utils.parsing import dump_yaml, parse_json, parse_yaml


def bomb(first, join):
    """A YAML text of a few hundred bytes whose aliases unfold to 9**15 values."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{k}: &a{k} {join(', '.join([f'*a{k - 1}'] * 9))}" for k in range(1, 15)]
    return "\n".join(lines)


BOMBS = [
    bomb("[x, x]", lambda parts: f"[{parts}]"),
    bomb("{x: 1}", lambda parts: f"{{<<: [{parts}]}}"),
    bomb("x", lambda parts: f"{{k: [{parts}]}}"),
    f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 100)}]",
]


@pytest.mark.parametrize(
    "text, value",
    [
        ("85e-5", 85e-5),
        ("4e0", 4.0),
        ("1e-3", 1e-3),
        ("-1.5e3", -1500.0),
        (".5e1", 5.0),
        ("0.00085", 0.00085),
        ("12", 12),
        ("18446744073709551615", 2**64 - 1),
        ("'4e0'", "4e0"),
        ("e3", "e3"),
        ("1e", "1e"),
        ("123456789e1234567", "123456789e1234567"),
        ("a1e3", "a1e3"),
    ],
)
def test_numbers_as_people_write_them(text, value):
    read = parse_yaml(text, "c.yaml")
    assert read == value and type(read) is type(value)
    assert parse_yaml(dump_yaml({"key": value}), "c.yaml") == {"key": value}


@pytest.mark.parametrize(
    "text, said",
    [
        ("a: 1\nb: 2\na: 3", "line 3: key 'a' stands in line 1 too"),
        ("- {lr: 1, lr: 1}", "line 1: key 'lr' stands in line 1 too"),
        ("a:\n  b: 1\n  b: 2", "line 3: key 'b' stands in line 2 too"),
        ("a: 99999999999999999999", "line 1: '99999999999999999999': a whole number of 64 bits"),
        ("\n- -0xffffffffffffffffff", "line 2: '-0xffffffffffffffffff': a whole number of 64"),
        ("1" * 5_000, "a whole number of 64 bits"),
        ("1" + ":1" * 100_000, "a whole number of 64 bits"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("[" * 100_000, "line 1"),
        ("- " * 3_000 + "1", "line 1"),
        ("a: &a [*a]", "line 1: an alias names what it stands in"),
        ("a: &a {b: {c: *a}}", "an alias names what it stands in"),
        ("? [a]\n: 1", "unhashable key"),
        (f"a: !{'x' * 5_000} 1", "could not determine a constructor"),
        ("a: !!python/name:os.system x", "python/name:os.system"),
        ("!!map [1]", "not valid YAML"),
        ("a: b: c", "line 1: mapping values are not allowed"),
        ("a: 1\n---\nb: 1", "line 2: expected a single document"),
        *((text, "aliases repeat more than 10000 values") for text in BOMBS),
    ],
)
def test_a_text_that_is_refused(text, said):
    began = time.monotonic()
    with pytest.raises(InputError) as error:
        parse_yaml(text, "c.yaml")
    message = str(error.value)
    assert message.startswith("c.yaml: not valid YAML (") and said in message
    assert len(message) < 250 and "\n" not in message and time.monotonic() - began < 2


def test_aliases_that_people_use():
    text = "base: &base {lr: 1, size: nano}\nfirst: *base\nsecond: {<<: *base, lr: 2}\n"
    base = {"lr": 1, "size": "nano"}
    read = parse_yaml(text, "c.yaml")
    assert read == {"base": base, "first": base, "second": {**base, "lr": 2}}


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' stands twice"),
        # A search in a list of the keys would take some minutes.
        (json.dumps({str(n): 0 for n in range(200_000)})[:-1] + ', "199999": 1}', "key '199999'"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5_000, "4300 digits"),
        ("{", "line 1 column 2"),
    ],
)
def test_json_that_is_refused(text, said):
    with pytest.raises(InputError) as error:
        parse_json(text, "c.json")
    message = str(error.value)
    assert message.startswith("c.json: not valid JSON (") and said in message
    assert len(message) < 250 and "\n" not in message


@pytest.mark.parametrize("read", [files.load_yaml, files.load_json, files.read_text])
def test_a_huge_file_is_not_read(tmp_path, read):
    path = tmp_path / "weights"
    with open(path, "wb") as f:
        f.truncate(1 << 40)  # a hole: no disk
    with pytest.raises(InputError, match="weights: 1048576 MiB; a text of at most"):
        read(path)
