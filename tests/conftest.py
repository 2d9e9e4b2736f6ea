"""Fixtures shared by the tests of the sampler and of the scripts."""

import os
import signal
from collections import Counter

import pytest

from lvd.training import workers
from tests.worlds import forked, magictime_world


def pytest_configure():
    """The commands that tests start import this tree, whatever is installed."""
    os.environ["PYTHONPATH"] = str(magictime_world.ROOT)
    _let_interrupts_through()


def pytest_collection_modifyitems(items):
    """Files with the most slow tests come first, then those with the most tests: of several
    processes that take a file each, none begins a long one at the end."""
    slow, tests = Counter(), Counter()
    for item in items:
        tests[item.path] += 1
        slow[item.path] += item.get_closest_marker("slow") is not None
    items.sort(key=lambda item: (-slow[item.path], -tests[item.path]))


def _let_interrupts_through():
    """A suite that a shell started in the background ignores Ctrl-C, and so would the commands that
    its tests interrupt."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A random tiny MagicTime in real file layouts: (folder, parts). Read only: copy what you want
    to change."""
    folder = tmp_path_factory.mktemp("world")
    return folder, magictime_world.make_world(folder)


@pytest.fixture(scope="session")
def model(world):
    """The world's six files, loaded and merged."""
    return magictime_world.load(world[0])


@pytest.fixture(autouse=True)
def forked_workers(monkeypatch):
    """Training processes that this process starts are forks of a server that has imported; those of
    a script's own process are started as users have them (tests/training/test_workers.py)."""
    monkeypatch.setattr(workers, "get_context", lambda kind: forked.server_context())
