"""One thread where it is wanted, and the threads that were set afterwards."""

import pytest
import torch

from lvd.detectors.bank import load_bank
from lvd.detectors.step_detectors import FEW
from lvd.utils.processes import one_thread
from tests.worlds.detector_world import SHAPES, make_detectors

SHAPE = SHAPES["latent"]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_come_back(two_threads):
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with one_thread(wanted=False):
        assert torch.get_num_threads() == 2
    with pytest.raises(ValueError), one_thread():
        raise ValueError
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("sizes, threads", [(("nano", "nano"), 1), (("tiny", "tiny"), 2)])
def test_small_detectors_score_with_one(two_threads, tmp_path, sizes, threads):
    bank, seen = load_bank(make_detectors(tmp_path, sizes)), []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda *_: seen.append(torch.get_num_threads())
    )
    try:
        bank.score(0, torch.randn(FEW + 1, *SHAPE))
    finally:
        hook.remove()
    assert set(seen) == {threads} and torch.get_num_threads() == 2
