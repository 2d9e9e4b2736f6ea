"""The world that is served: read only."""

import pytest

from tests.worlds.served_magictime import make_served_world


@pytest.fixture(scope="session")
def home(world, tmp_path_factory):
    return make_served_world(world, tmp_path_factory.mktemp("served_magictime"))
