"""The fuzzer itself: what it takes for a fault, that its cases do not touch each other, how many
there are."""

import sys
import time
from types import SimpleNamespace

import pytest
import torch

from lvd.errors import InputError
from tests.fuzz import (
    oracle,
    test_fuzz_detectors,
    test_fuzz_flags,
    test_fuzz_guard,
    test_fuzz_recordings,
    test_fuzz_results,
    test_fuzz_settings,
    test_fuzz_texts,
)
from tests.fuzz.campaign import TORCH, own
from tests.fuzz.mutations import VALUES, damages, drawn, places, put
from tests.fuzz.oracle import fault, run_loader, run_script

GOOD = "error: eval.pth: seed: found 'x'; a whole number is needed"


def says(text, status=2):
    """A script that prints `text` on stderr and ends with `status`."""

    def main(words):
        print(text, file=sys.stderr)
        return status

    return run_script(SimpleNamespace(main=main), [])


def raises(error):
    def main(words):
        raise error

    return run_script(SimpleNamespace(main=main), [])


def test_a_refusal_in_good_order_is_no_fault():
    assert fault(says(GOOD), [("eval.pth",), ("seed", "fraction")]) is None
    assert fault(says(f"clips: 3 of 5\n{GOOD}")) is None  # progress came before
    assert fault(says("", status=0)) is None

    def refuse():
        raise InputError("eval.pth: no such file")

    assert fault(run_loader(refuse), [("eval.pth",)]) is None


@pytest.mark.parametrize(
    "outcome, what",
    [
        (lambda: says(f"{GOOD}\nmore"), "2 lines"),
        (lambda: says("hello"), "1 lines"),
        (lambda: says(GOOD + "x" * 300), "358 characters"),
        (lambda: says(GOOD, status=1), "exit status 1"),
        (lambda: says(f"Traceback (most recent call last)\n{GOOD}"), "traceback"),
        (lambda: says("error: file: no such key"), "names none of"),
        (lambda: raises(KeyError("config")), "KeyError: 'config'"),
        (lambda: raises(SystemExit(3)), "exit status 3"),
    ],
)
def test_all_else_is_a_fault(outcome, what):
    assert what in fault(outcome(), [("eval.pth",)])


def test_hangs_and_giant_allocations_end(monkeypatch):
    monkeypatch.setattr(oracle, "SECONDS", 1)
    assert "Hang" in fault(run_loader(lambda: time.sleep(60)))
    assert "allocate memory" in fault(run_loader(lambda: torch.empty(10**12)))
    with pytest.raises(InputError):  # the limits are gone afterwards
        raise InputError("")
    assert torch.zeros(10**6).numel() == 10**6


def test_changes_leave_what_they_change_alone():
    tree = {"rows": [1, 2, {"a": 1.5}], "weights": torch.ones(2)}
    kept = {"rows": [1, 2, {"a": 1.5}], "weights": tree["weights"]}
    changes = drawn(tree, 300, "seed", tensors=True)
    assert changes and [case for case, *_ in changes] == [
        case for case, *_ in drawn(tree, 300, "seed", tensors=True)
    ]
    assert {path for _, path, _ in changes} == set(places(tree))
    for _, _, change in changes:
        change(tree)
        assert tree == kept
    assert put(tree, ("rows", 2, "a"), VALUES["null"])["rows"] == [1, 2, {"a": None}]


def test_a_case_does_not_touch_the_next_one(cases):
    for _, damage in damages(30, "seed"):
        with cases.world("eval") as world:
            split = TORCH.read(world.eval)
            own(world.eval)
            damage(world.eval)
    with cases.world("eval") as world:
        assert TORCH.read(world.eval) == split


def test_there_are_two_thousand_cases():
    kinds = (test_fuzz_detectors, test_fuzz_recordings, test_fuzz_results, test_fuzz_settings)
    count = sum(count for module in kinds for _, count in module.KINDS)
    count += sum(cases for *_, cases in test_fuzz_flags.SCRIPTS.values())
    count += test_fuzz_guard.CASES + 5 * test_fuzz_texts.EXAMPLES
    assert count >= 2000
