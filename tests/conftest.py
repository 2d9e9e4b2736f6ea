"""Fixtures shared by the tests of the sampler and of the scripts."""

import pytest
import worlds


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A random tiny MagicTime in real file layouts: (folder, parts). Read only: copy what you want to change."""
    folder = tmp_path_factory.mktemp("world")
    return folder, worlds.make_world(folder)


@pytest.fixture(scope="session")
def model(world):
    """The world's six files, loaded and merged."""
    return worlds.load(world[0])
