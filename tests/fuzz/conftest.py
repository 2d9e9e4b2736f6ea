"""The world that the fuzzer damages copies of: made once, by the first process that needs it."""

import pytest

from tests.fuzz.worlds import Cases, shared_template


@pytest.fixture(scope="session")
def cases(tmp_path_factory):
    own = tmp_path_factory.getbasetemp()
    together = own.parent if "popen-gw" in own.name else own  # of all processes of pytest-xdist
    return Cases(shared_template(together / "fuzz_world"), own)
