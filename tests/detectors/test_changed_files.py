"""Detectors that are read again while a guard or a script works are those that were checked."""

import shutil

import pytest
import torch

from lvd import Guard
from lvd.detectors.bank import FolderBank, load_bank
from lvd.detectors.detector import load_detector, save_detector
from lvd.errors import InputError
from lvd.guard.session import UNCHECKED
from lvd.utils.files import load_torch, save_torch
from tests.worlds.detector_world import SHAPES, make_detectors

CLIPS = torch.randn(3, *SHAPES["latent"], generator=torch.Generator().manual_seed(0)).half()
CHANGED = "1/1.pth: has changed since it was first read"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_detectors(tmp_path_factory.mktemp("detectors"))


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "detectors")


def weights_that_say_safe(path):
    """The weights alone are others: what the file says about itself stays."""
    content = load_torch(path)
    content["state_dict"]["classifier.bias"] = torch.tensor([50.0, 0.0])
    save_torch(content, path)


def another_threshold(path):
    content = load_torch(path)
    save_torch({**content, "threshold": 1.0}, path)


def another_calibration(path):
    content = load_torch(path)
    content["calibration"]["b"] = 5.0
    save_torch(content, path)


def bytes_in_place(path):
    """The same file, written over: no new inode, the same size."""
    content = load_torch(path)
    bias = content["state_dict"]["classifier.bias"].numpy().tobytes()
    data = path.read_bytes()
    assert data.count(bias) == 1
    with open(path, "r+b") as file:
        file.seek(data.index(bias))
        file.write(torch.tensor([50.0, 0.0]).numpy().tobytes())


def nothing_there(path):
    path.unlink()


CHANGES = [weights_that_say_safe, another_threshold, another_calibration, bytes_in_place]


@pytest.mark.parametrize("change", [*CHANGES, nothing_there])
def test_a_guard_whose_bank_does_not_fit_in_memory(folder, change, monkeypatch):
    """Its videos are unchecked from the step of the changed file on."""
    monkeypatch.setattr("lvd.guard.guard.KEPT", 0)
    guard = Guard(folder, lambda_=1, eta=3, device="cpu", allow_unknown=True)
    session = guard.session(5, videos=3)
    session.observe(0, CLIPS)
    change(folder / "1" / "1.pth")
    undecided = [k for k, verdict in enumerate(session.verdicts()) if verdict is None]
    session.observe(1, CLIPS)
    assert undecided and all(session.verdicts()[k] == UNCHECKED for k in undecided)
    reason = session.results()[undecided[0]].reason
    assert "1/1.pth" in reason and ("has changed" in reason or "no such file" in reason)


@pytest.mark.parametrize("change", CHANGES)
def test_a_bank_that_reads_a_step_again(folder, change):
    bank = load_bank(folder)
    scores = bank.score(1, CLIPS)
    bank.score(2, CLIPS)
    assert bank.score(1, CLIPS).equal(scores)  # read again, and unchanged
    bank.score(2, CLIPS)
    change(folder / "1" / "1.pth")
    with pytest.raises(InputError, match=CHANGED):
        bank.score(1, CLIPS)


@pytest.mark.parametrize("change", [another_threshold, another_calibration])
def test_what_a_bank_said_at_first_is_what_it_loads(folder, change):
    """Thresholds and weights of two files do not mix, even when a step is read only once."""
    bank = load_bank(folder)
    change(folder / "1" / "1.pth")
    with pytest.raises(InputError, match=CHANGED):
        bank.score(1, CLIPS)


def test_a_file_that_is_written_anew_with_the_same_content_is_the_same(folder):
    bank = load_bank(folder)
    scores = bank.score(1, CLIPS)
    bank.score(2, CLIPS)
    save_detector(load_detector(folder / "1" / "1.pth"), folder / "1" / "1.pth")
    assert bank.score(1, CLIPS).equal(scores)


def test_a_bank_in_memory_does_not_look_at_its_files(folder):
    guard = Guard(folder, lambda_=1, eta=3, device="cpu", allow_unknown=True)
    scores = guard.bank.score(1, CLIPS)
    shutil.rmtree(folder)
    assert guard.bank.score(1, CLIPS).equal(scores)


def test_bare_weights_are_those_whose_hash_was_told(tmp_path):
    """embed_model.py writes the hash beside the votes; it is told before the weights are read."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = VideoMAEConfig(intermediate_size=64, patch_size=56, num_labels=2, **sizes)
    for step in (0, 1):
        state = VideoMAEForVideoClassification(config).state_dict()
        save_torch(state, tmp_path / "1" / f"{step}.pth")
    bank = FolderBank(tmp_path)
    bank.sha256()
    clips = torch.rand(1, 3, 16, 224, 224)
    bank.score(0, clips)
    shutil.copy(tmp_path / "1" / "0.pth", tmp_path / "1" / "1.pth")
    with pytest.raises(InputError, match=CHANGED):
        bank.score(1, clips)
