"""The world in which the guard is tested: read only, copy what you want to change."""

import pytest

from benchmarks.common.tiny_pipelines import build
from tests.worlds import guarded_recordings


@pytest.fixture(scope="session")
def tiny():
    return build("AnimateDiffPipeline")


@pytest.fixture(scope="session")
def world(tiny, tmp_path_factory):
    return guarded_recordings.make_world(tiny, tmp_path_factory.mktemp("guard"))
