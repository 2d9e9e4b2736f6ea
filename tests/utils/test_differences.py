"""What differs between two configs."""

import pytest

from lvd.errors import InputError, shorten
from lvd.utils.config import first_difference, need_same_training


@pytest.mark.parametrize(
    "before, now, difference",
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1, "b": 2}, {"b": 3, "a": 4}, ("b", 2, 3)),  # in the order of the second
        ({"a": 1, "c": 2}, {"a": 1}, ("c", 2, None)),
        ({"a": None}, {}, None),  # what is missing counts as None
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, ("a.b.c", 1, 2)),
        ({"a": {"b": None}}, {"a": {}}, None),
        ({"a": {"b": 1}}, {"a": None}, ("a", {"b": 1}, None)),
        ({"a": [1, 2]}, {"a": [1, 3]}, ("a", [1, 2], [1, 3])),
        ({5: 1}, {5: 2}, ("5", 1, 2)),
    ],
)
def test_the_first_difference(before, now, difference):
    assert first_difference(before, now) == difference


def test_keys_that_may_differ():
    before, now = {"a": 1, "meta": {"a": 1, "b": 2}}, {"a": 2, "meta": {"a": 3, "b": 4}}
    assert first_difference(before, now, ignore=("a",)) == ("meta.b", 2, 4)


def test_a_message_names_the_key_and_shortens_values():
    assert shorten([1, 2]) == "[1, 2]" and shorten(list(range(100))) == "(100 rows)"
    assert len(shorten("x" * 1000)) == 80
    with pytest.raises(InputError, match=r"d.pth: .*another settings \(epoch: 2 there, 3 now\)"):
        need_same_training("d.pth", {"settings": {"epoch": 2}, "x": 0}, {"settings": {"epoch": 3}})
    with pytest.raises(InputError, match=r"another step \(1 there, 2 now\)"):
        need_same_training("d.pth", {"step": 1}, {"step": 2})
    need_same_training("d.pth", {"step": 1, "seconds": 5}, {"step": 1})
