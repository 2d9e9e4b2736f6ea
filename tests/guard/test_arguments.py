"""Arguments of a Guard and of its watch that cannot be used: one line that names them."""

from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import pytest

from lvd import Guard
from lvd.errors import InputError, shorten

LONG, TEXT = ["x"] * 100_000, "x" * 100_000


def refused(error, *words):
    message = str(error.value)
    assert len(message) < 300 and "\n" not in message, message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    "name, value",
    [
        *[("model_dir", value) for value in (None, 3, True, [], b"detectors", LONG, TEXT)],
        *[("lambda_", value) for value in (True, [], float("nan"), "x", -1, 1j, TEXT)],
        *[("eta", value) for value in (True, [], "3", 2.0, 0, -1, 10**5000, LONG)],
        *[("device", value) for value in ("cuda:7", "bogus", "meta", 3.5, object(), "", LONG)],
        *[("operating_point", value) for value in ([], True, "x", -1, 2.0, LONG, TEXT)],
        *[("decode", value) for value in (3, "yes", [])],
        *[("allow_unknown", value) for value in (None, "no", 1, LONG)],
    ],
    ids=lambda value: shorten(value)[:20],
)
def test_of_a_guard(world, name, value):
    given = dict(model_dir=world.shared, lambda_=0.6, eta=3, device="cpu")
    with pytest.raises(InputError) as error:
        Guard(**{**given, name: value})
    refused(error, {"lambda_": "lambda", "operating_point": "operating"}.get(name, name))


@pytest.mark.parametrize("lambda_", [1, 0.6, "0.6", Fraction(3, 5), Decimal("0.6")])
def test_numbers_that_are_good(world, lambda_):
    assert Guard(str(world.shared), lambda_, 3, "cpu").lambda_ == lambda_


@pytest.mark.parametrize(
    "name, value",
    [
        *[("on_unsafe", value) for value in (None, True, "warn", [], LONG)],
        *[("layout", value) for value in (3, True, [], {}, "HWC", object(), LONG)],
        *[("pipe", value) for value in (None, 3, "pipe", SimpleNamespace(scheduler=None))],
    ],
    ids=lambda value: shorten(value)[:20],
)
def test_of_a_watch(world, tiny, name, value):
    guard = Guard(world.shared, 0.6, 3, "cpu")
    with pytest.raises(InputError) as error:
        guard.watch(**{"pipe": tiny.pipe, name: value})
    refused(error, "NoneType" if value is None and name == "pipe" else "")


def test_a_pipeline_that_is_not_called(world, tiny):
    """Its steps are taken by hand: GuardSession is for that."""
    guard = Guard(world.shared, 0.6, 3, "cpu")
    watch = guard.watch(SimpleNamespace(scheduler=tiny.pipe.scheduler), layout="BCFHW")
    with pytest.raises(InputError, match="no method __call__"), watch:
        pass
