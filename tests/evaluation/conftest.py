"""What the tests of votes and of their report share."""

import pytest

from tests.worlds.detector_world import make_world
from tests.worlds.scripts import embed, train


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Latent clips, all six detectors trained, votes recorded."""
    world = make_world(tmp_path_factory.mktemp("latent"))
    assert train(world, "--group_num", "1-2", "--train", "--step_num", "0-2") == 0
    assert embed(world, "--operating_point", "argmax", "--label_file_dir", str(world.labels)) == 0
    return world
