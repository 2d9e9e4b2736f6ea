"""names.pth beside detectors: damaged ones and those of other detectors are refused in one line,
and the detectors stay what they are."""

import numpy as np
import pytest
import torch

from lvd import Guard
from lvd.detectors.bank import load_bank
from lvd.detectors.names import load_names, named, save_names
from lvd.detectors.shared import build_shared, predict_shared, save_shared
from lvd.errors import InputError
from lvd.utils.files import load_torch
from tests.worlds.damaged_detectors import SHAPE, WEIGHTS, at, weight, without
from tests.worlds.detector_world import CATEGORIES, STEPS, make_detectors

RECORDING = {"pred_x0_made_by": "recording"}
FAULTS = [
    *WEIGHTS,
    *(
        (without(key), (f"'{key}' is missing",))
        for key in ("state_dict", "config", "about", "mean")
    ),
    (at("format", "lvd shared detector 1"), ("not a network of names",)),
    (at("thresholds", []), ("unknown key 'thresholds'",)),
    (at("steps", [0, 0, 1]), ("steps",)),
    (at("categories", ["a", "a"]), ("categories",)),
    (at("std", torch.zeros(STEPS, 4)), ("std of finite numbers",)),
    (at("about.settings", {}), ("about", "also a curve")),
    (at("about.naming", [1]), ("about.naming",)),
    (weight(torch.zeros_like), ("step 0, bright", "the same score")),
]
OTHERS = [
    ({"categories": ["bright", "dark"]}, "knows bright, dark"),
    ({"categories": ["flicker", "bright"]}, "knows flicker, bright"),
    ({"categories": [*CATEGORIES, "third"]}, "knows bright, flicker, third"),
    ({"steps": [0, 1]}, "knows no step 2"),
    ({"representation": "rgb"}, "knows rgb clips"),
    (
        {"dataset": {"pred_x0_made_by": "another"}},
        "another recording of unsafe videos than the detectors",
    ),
]


def network(seed=1, representation="latent", steps=range(STEPS), categories=CATEGORIES, **about):
    """Untrained but for the classifier, which starts at zero."""
    found = build_shared("nano", SHAPE, representation, seed, list(steps), list(categories))
    with torch.no_grad():
        found.net.classifier.weight.normal_(generator=torch.Generator().manual_seed(seed))
    found.about = {"eval_sha256": "e" * 64, "dataset": RECORDING, **about}
    return found


def save_detectors(folder):
    """A shared.pth; returns its path."""
    shared = network(seed=2)
    shared.thresholds = [[0.5] * 2 for _ in range(STEPS)]
    shared.calibrations = [[None] * 2 for _ in range(STEPS)]
    save_shared(shared, folder / "shared.pth")
    return folder / "shared.pth"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{kind: folder of detectors with names.pth}. Read only."""
    root = tmp_path_factory.mktemp("names")
    save_detectors(root / "shared")
    make_detectors(root / "grid")
    for kind in ("shared", "grid"):
        save_names(network(), root / kind / "names.pth")
    return {kind: root / kind for kind in ("shared", "grid")}


@pytest.mark.parametrize("kind", ["shared", "grid"])
def test_a_bank_is_asked_for_names(folders, kind):
    bank = load_bank(folders[kind])
    clips = torch.randn(5, *SHAPE).half()
    found = bank.names(1, clips)
    assert found.shape == (5, 2) and found.dtype == torch.float32
    assert torch.equal(found, predict_shared(load_names(folders[kind] / "names.pth"), 1, clips))


@pytest.mark.parametrize("kind", ["shared", "grid"])
def test_names_change_no_detector(folders, tmp_path, kind):
    if kind == "shared":
        save_detectors(tmp_path)
    else:
        make_detectors(tmp_path)
    plain, bank = load_bank(tmp_path), load_bank(folders[kind])
    clips = torch.randn(5, *SHAPE)
    assert plain.names(1, clips) is None
    assert torch.equal(bank.score(1, clips), plain.score(1, clips))
    assert (bank.sha256(), bank.members.keys()) == (plain.sha256(), plain.members.keys())


def test_names_beside_a_file_that_is_named_itself(folders):
    assert load_bank(folders["shared"] / "shared.pth").naming is not None


def test_names_alone_are_no_detectors(tmp_path):
    save_names(network(), tmp_path / "names.pth")
    with pytest.raises(InputError, match="no detectors"):
        load_bank(tmp_path)
    with pytest.raises(InputError, match="names.pth: not a shared detector"):
        load_bank(tmp_path / "names.pth")


@pytest.mark.parametrize("change, words", FAULTS)
def test_damaged_names(folders, tmp_path, change, words):
    save_detectors(tmp_path)
    content = load_torch(folders["shared"] / "names.pth")
    change(content)
    torch.save(content, tmp_path / "names.pth")  # save_torch would fill a tensor of strides of 0
    for load in (load_bank, lambda folder: Guard(folder, eta=1, device="cpu")):
        with pytest.raises(InputError) as error:
            load(tmp_path)
        message = str(error.value)
        assert "\n" not in message and len(message.replace(str(tmp_path), "")) < 250, message
        assert all(word in message for word in ("names.pth", *words)), message


def test_names_that_are_no_torch_file(tmp_path):
    save_detectors(tmp_path)
    (tmp_path / "names.pth").write_bytes(b"x")
    with pytest.raises(InputError, match=r"names\.pth"):
        load_bank(tmp_path)


@pytest.mark.parametrize("change, words", OTHERS)
def test_names_of_other_detectors(tmp_path, change, words):
    path = save_detectors(tmp_path)
    save_names(network(**change), tmp_path / "names.pth")
    with pytest.raises(InputError, match=words) as error:
        load_bank(path)
    assert "names.pth" in str(error.value) and "\n" not in str(error.value)


def test_names_trained_with_another_split_may_not_be_evaluated(tmp_path):
    save_detectors(tmp_path)
    save_names(network(eval_sha256="f" * 64), tmp_path / "names.pth")
    bank = load_bank(tmp_path)
    with pytest.raises(InputError, match=r"names.pth: trained with another eval.pth"):
        bank.check("latent", "e" * 64, RECORDING)
    bank.check("latent", "e" * 64, RECORDING, allow_other_eval=True)


def test_named_are_the_likely_ones_and_at_least_one():
    found = named(torch.tensor([[0.1, 0.4, 0.2], [0.5, 0.9, 0.49], [0.3, 0.3, 0.1]]))
    assert found.tolist() == [[False, True, False], [True, True, False], [True, False, False]]
    assert named(np.zeros((0, 3))).shape == (0, 3)
