"""How the shared detector is told the step: by its number, or by its noise level."""

import math

import pytest
import torch

from lvd.detectors.bank import SharedBank
from lvd.detectors.shared import build_shared, load_shared, predict_shared, save_shared
from lvd.detectors.step_inputs import LevelNetwork, sinusoids
from lvd.errors import InputError
from lvd.utils.config import ROOT
from lvd.utils.files import load_torch, save_torch

SHAPE = (4, 4, 4, 4)
LEVELS = [-6.0, -4.5, 3.25]
NAMES = ["bright", "flicker"]


def detector(levels=LEVELS, seed=1):
    """Weights of their own everywhere, so that all inputs count."""
    found = build_shared("nano", SHAPE, "latent", seed, [0, 1, 2], NAMES, levels=levels)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in found.net.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=draw)
    found.mean = torch.randn(3, 4, generator=draw)
    found.std = 0.5 + torch.rand(3, 4, generator=draw)
    found.thresholds = [[0.5] * 2 for _ in range(3)]
    found.calibrations = [[None] * 2 for _ in range(3)]
    return found


@pytest.fixture(scope="module")
def clips():
    return torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(3))


def test_sinusoids_by_hand():
    """Periods of 80 to 2, a constant factor apart: sines first, then cosines."""
    found = sinusoids(torch.tensor([0.0, 1.0, -20.0], dtype=torch.float64))
    assert found.shape == (3, 16)
    assert found[0].tolist() == [0.0] * 8 + [1.0] * 8
    for column in range(8):
        period = 80 / 40 ** (column / 7)
        for row, level in ((1, 1.0), (2, -20.0)):
            angle = 2 * math.pi * level / period
            assert found[row, column].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert found[row, 8 + column].item() == pytest.approx(math.cos(angle), abs=1e-12)
    assert found[2, 0].item() == pytest.approx(-1)  # a quarter of the longest period
    assert found[1, 15].item() == pytest.approx(-1)  # half of the shortest one


def test_the_network_by_hand():
    network = LevelNetwork([2.0, -1.0], 3)
    for layer in (network.hidden, network.out):
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)
    added, modulation = network(torch.tensor([1, 0]))
    for place, level in ((0, -1.0), (1, 2.0)):
        waves = sinusoids(torch.tensor([level]))[0]
        hidden = network.hidden.weight @ waves + network.hidden.bias
        out = network.out.weight @ (hidden * hidden.sigmoid()) + network.out.bias
        torch.testing.assert_close(torch.cat([added[place], modulation[place]]), out)
    asked, _ = network(torch.tensor([1, 1]), torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(asked, added[[1, 0]])


def test_a_trained_steps_level_is_the_trained_step(clips):
    found = detector()
    for step, level in enumerate(LEVELS):
        answer = predict_shared(found, step, clips)
        assert torch.equal(predict_shared(found, step, clips, level=level), answer)
        near = predict_shared(found, step, clips, level=level + 1e-3)
        assert 0 < (near - answer).abs().max() < 0.01  # no jump beside it
        other = predict_shared(found, step, clips, level=level + 0.5)
        assert (other - answer).abs().max() > 1e-3


def test_a_table_takes_no_level(clips):
    found = detector(levels=None)
    for step in range(3):
        answer = predict_shared(found, step, clips)
        assert torch.equal(predict_shared(found, step, clips, level=9.0), answer)


def test_it_starts_as_the_tables_do(clips):
    """Even odds for all, and steps that differ by little."""
    for levels in (None, LEVELS):
        fresh = build_shared("nano", SHAPE, "latent", 1, [0, 1, 2], NAMES, levels=levels)
        assert torch.equal(predict_shared(fresh, 0, clips), torch.full((5, 2), 0.5))
        again = build_shared("nano", SHAPE, "latent", 1, [0, 1, 2], NAMES, levels=levels)
        for name, weight in fresh.net.state_dict().items():
            assert torch.equal(weight, again.net.state_dict()[name]), name
        with torch.no_grad():
            torch.nn.init.ones_(fresh.net.classifier.weight[:, :16])
        answers = [predict_shared(fresh, step, clips) for step in range(3)]
        assert 0 < (answers[0] - answers[2]).abs().max() < 0.1


@pytest.mark.parametrize("levels", [None, LEVELS])
def test_the_file_gives_the_detector_back(tmp_path, clips, levels):
    made = detector(levels)
    save_shared(made, tmp_path / "shared.pth")
    content = load_torch(tmp_path / "shared.pth")
    assert content.get("levels") == levels and ("levels" in content) == (levels is not None)
    found = load_shared(tmp_path / "shared.pth")
    assert found.levels == levels
    bank = SharedBank(tmp_path / "shared.pth")
    for step in range(3):
        for level in (None, 0.5):
            wanted = predict_shared(made, step, clips, level=level)
            assert torch.equal(predict_shared(found, step, clips, level=level), wanted)
            assert torch.equal(bank.score(step, clips, level), wanted)


def test_files_of_earlier_versions(clips):
    """A shipped file; thresholds and answers are the trained step's, whatever the level."""
    path = ROOT / "MagicTime/ckpts/Tiny/detectors/shared.pth"
    assert "levels" not in load_torch(path)
    bank = SharedBank(path)
    clips = torch.randn(2, 4, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(bank.score(4, clips, level=1.0), bank.score(4, clips))


@pytest.mark.parametrize(
    "levels, said",
    [
        ([1.0, 2.0], "levels of 3 numbers, one for each step"),
        ([1.0, 2.0, 21.0], "levels.2: found 21.0"),
        ([1.0, 2.0, math.nan], "levels.2"),
        ("abc", "levels: found 'abc'"),
        (None, "levels: found None"),
        (..., "weights do not fit"),  # left out: tables are expected
    ],
)
def test_damaged_levels(tmp_path, levels, said):
    save_shared(detector(), tmp_path / "shared.pth")
    content = load_torch(tmp_path / "shared.pth")
    content["levels"] = levels
    save_torch({k: v for k, v in content.items() if v is not ...}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match=said) as caught:
        load_shared(tmp_path / "bad.pth")
    assert "bad.pth" in str(caught.value) and "\n" not in str(caught.value)
