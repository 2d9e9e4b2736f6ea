"""The study world, shared by all tests of the study."""

from tests.worlds.study_world import study_world  # noqa: F401
