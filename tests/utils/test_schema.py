"""A file's schema: what fits comes back as it is, what does not is one short line with its key."""

import math

import pytest
import torch

from lvd.errors import InputError, shorten
from lvd.utils.schema import (
    Count,
    Finite,
    Name,
    Positive,
    Probability,
    Row,
    Schema,
    StateDict,
    Tensor,
    Whole,
    checked,
)


class Inner(Schema):
    name: Name
    share: Probability = 0.5


class Outer(Schema):
    rows: list[Row]
    inner: Inner
    weights: StateDict = {}
    scale: Finite | None = None


GOOD = {
    "rows": [0, 1],
    "inner": {"name": "a", "share": 1},
    "weights": {"w": torch.ones(2)},
    "scale": 2,
}


def test_what_fits_comes_back_itself():
    assert checked(Outer, GOOD, "f.pth") is GOOD


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": [0, -1]}, "rows.1: found -1; greater than or equal to 0 is needed"),
        ({"rows": [0, True]}, "rows.1: found True"),
        ({"rows": "01"}, "rows: found '01'; a valid list is needed"),
        ({"rows": [10**40]}, "rows.0: found a number of about 41 digits"),
        ({"inner": {"name": ""}}, "inner.name: found ''"),
        ({"inner": {"share": 1.0}}, "key 'inner.name' is missing"),
        ({"inner": {"name": "a", "share": math.nan}}, "inner.share: found nan"),
        ({"inner": {"name": "a", "share": 1.5}}, "inner.share: found 1.5"),
        ({"inner": None}, "inner: found None"),
        ({"weights": {"w": 3}}, "weights.w: found 3"),
        (
            {"weights": {"w": torch.ones(2, device="meta")}},
            "weights.w: found a tensor of shape [2]",
        ),
        ({"weights": {"w": torch.eye(2).to_sparse()}}, "a plain tensor that holds its values"),
        ({"scale": math.inf}, "scale: found inf"),
        ({"scale": "3"}, "scale"),
        ({"other": 1}, "unknown key 'other'"),
        ({"9" * 5000: 1}, "unknown key '9999"),
    ],
)
def test_what_does_not_fit_is_one_short_line(change, said):
    with pytest.raises(InputError) as caught:
        checked(Outer, GOOD | change, "some/f.pth")
    message = str(caught.value)
    assert message.startswith("some/f.pth: ") and said in message
    assert len(message) < 300 and "\n" not in message


@pytest.mark.parametrize("content", [None, 3, "text", [], torch.ones(2)])
def test_another_kind_of_content_is_refused(content):
    with pytest.raises(InputError, match="^f.pth: content: found"):
        checked(Outer, content, "f.pth")


def test_a_plain_type_is_as_strict_as_a_schema():
    assert checked(dict[str, list[Whole]], {"a": [1]}, "f") == {"a": [1]}
    for bad in ({"a": [1.0]}, {"a": ["1"]}, {"a": [False]}, {1: [1]}, {"a": [2**63]}):
        with pytest.raises(InputError, match="^f: "):
            checked(dict[str, list[Whole]], bad, "f")
    for kind, bad in ((Positive, 0), (Count, -1), (Tensor, [1.0]), (Finite, -math.inf)):
        with pytest.raises(InputError, match="^f: content: found"):
            checked(kind, bad, "f")


def test_shortening_does_not_unfold_what_is_nested():
    bomb = "lol"
    for _ in range(40):
        bomb = [bomb] * 9  # 9 ** 40 texts when it is printed
    assert len(shorten(bomb)) <= 80
    assert len(shorten({"a": bomb})) <= 80
    assert shorten(-(10**5000)) == "a number of about 5001 digits"
    assert "\n" not in shorten("a\nb" * 99) and "\n" not in shorten(torch.zeros(99, 99))


def test_a_name_can_be_written_to_a_file():
    """Pickles hold halves of surrogate pairs, which tables and pages cannot."""
    with pytest.raises(InputError, match="inner.name: .*without halves of surrogate pairs"):
        checked(Outer, {**GOOD, "inner": {"name": "a\ud800"}}, "a file")
