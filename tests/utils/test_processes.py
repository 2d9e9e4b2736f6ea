"""Which process of a launch this is: from the launcher's environment, and nothing from a stray
variable."""

import pytest

from lvd.errors import InputError
from lvd.utils.processes import Processes, pick_device, processes

LAUNCHER = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}


@pytest.mark.parametrize(
    "stray",
    [{}, {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "abc"}, {**LAUNCHER, "WORLD_SIZE": "1", "RANK": "0"}],
)
def test_one_process(monkeypatch, stray):
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    for name, value in stray.items():
        monkeypatch.setenv(name, value)
    assert processes() == Processes(0, 1, 0) and processes().is_main
    processes().barrier()
    with processes().main_first():
        pass


def test_a_launcher_that_counts_in_words(monkeypatch):
    for name, value in {**LAUNCHER, "RANK": "first"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="RANK='first'"):
        processes()


def test_shares_are_all_and_none_twice():
    items = list(range(11))
    shares = [Processes(rank, 3, rank).share(items) for rank in range(3)]
    assert sorted(sum(shares, [])) == items and {len(share) for share in shares} == {3, 4}


def test_a_gpu_for_each():
    assert Processes(1, 2, 1).device(-1).type == "cpu"
    with pytest.raises(
        InputError, match="--gpu_num 1: each of the 2 processes has a GPU of its own"
    ):
        Processes(1, 2, 1).device(1)
    with pytest.raises(InputError, match="--gpu_num -2: a CUDA device from 0, or -1"):
        pick_device(-2)
