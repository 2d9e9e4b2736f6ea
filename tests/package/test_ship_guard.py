"""The shipped guard is made of files that belong together, and names no folder of a machine."""

import hashlib

import pytest
import torch

from lvd import Guard
from lvd.data.kinds import KIND_NORMAL, KIND_UNSAFE
from lvd.detectors.bank import load_bank
from lvd.detectors.names import save_names
from lvd.detectors.shared import build_shared, save_shared
from lvd.evaluation.results import votes_sha256
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.file import ChosenRule, identity_of, save_rule
from lvd.utils.config import ROOT, versions
from lvd.utils.files import load_yaml, save_torch
from tests.worlds.refusals import refused
from tools import ship_guard

STEPS, CATEGORIES, SHAPE = 3, ["bright", "flicker"], (4, 4, 4, 4)
CALIBRATION = {"a": 1.0, "b": 0.0, "method": "platt", "clips": {"unsafe": 5, "normal": 5}}
ROWS = {KIND_UNSAFE: [1, 2, 3], KIND_NORMAL: [4, 5]}


def network(seed, **about):
    made = build_shared("nano", SHAPE, "latent", seed, list(range(STEPS)), CATEGORIES)
    with torch.no_grad():
        made.net.classifier.weight.normal_(generator=torch.Generator().manual_seed(seed))
    made.about = {"eval_sha256": "e" * 64, "rows": ROWS, "versions": versions(), **about}
    return made


def save_detectors(folder, **about):
    shared = network(1, **about)
    shared.thresholds = [[0.5] * 2 for _ in range(STEPS)]
    shared.calibrations = [[CALIBRATION] * 2 for _ in range(STEPS)]
    save_shared(shared, folder / "shared.pth")
    save_names(network(2), folder / "names.pth")


def save_votes(folder, detectors):
    """One of two unsafe videos is found after the first step, no normal one is stopped."""
    numbers = {"1": {"0": [0.95, 0.2, 0.2], "1": [0.1] * 3}, "0": {"0": [0.1] * 3, "1": [0.3] * 3}}
    votes = {
        label: {row: [int(number >= 0.5) for number in each] for row, each in rows.items()}
        for label, rows in numbers.items()
    }
    by_group = {label: {"1": rows, "2": rows} for label, rows in numbers.items()}
    save_torch(votes, folder / "results.pth")
    scores = {
        "scores": by_group,
        "calibrated": by_group,
        "thresholds": {group: [0.5] * STEPS for group in "12"},
        "categories": dict(zip("12", CATEGORIES, strict=True)),
        "operating_point": "validation",
        "votes_sha256": votes_sha256(votes),
        "detectors": detectors,
    }
    save_torch(scores, folder / "scores.pth")


@pytest.fixture
def made(tmp_path):
    """A folder as a run leaves it: shared/ and results_shared/."""
    folder = tmp_path / "shared"
    save_detectors(folder)
    detectors = identity_of(load_bank(folder))
    settings = {
        "scores": str(ROOT / "MagicTime" / "shared" / "folds.pth"),
        "model_dir": "/home/someone/shared",
        "families": ["confidence", "vote"],
    }
    rule = ChosenRule(ConfidenceRule(0.9, 2), detectors, {"settings": settings})
    save_rule(rule, folder / "rule.yaml", versions())
    save_votes(tmp_path / "results_shared", detectors)
    return tmp_path


def ship(made, **changes):
    flags = {
        "model_dir": made / "shared",
        "data_dir": made / "results_shared",
        "save_dir": made / "guard",
    }
    words = [[f"--{flag}", str(path)] for flag, path in (flags | changes).items()]
    return ship_guard.main(sum(words, []))


def test_the_guard_works_and_its_note_describes_it(made):
    assert ship(made) == 0
    folder = made / "guard"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "names.pth",
        "rule.yaml",
        "shared.pth",
    ]
    guard = Guard(folder, device="cpu")
    assert guard.rule.as_dict() == ConfidenceRule(0.9, 2).as_dict()
    assert guard.bank.naming is not None
    note = (folder / "README.md").read_text()
    for name in ("shared.pth", "names.pth", "rule.yaml"):
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() in note
    assert "3 unsafe and 2 normal videos; 2 and 2 others" in note
    chosen = next(line for line in note.splitlines() if line.startswith("| chosen |"))
    assert "0.750" in chosen and "(0 of 2)" in chosen
    assert chosen.endswith(f"{(1 + 3) / 6:.3f} |")
    assert "none of 2 still allows" in note


def test_no_folder_of_this_machine_is_named(made):
    assert ship(made) == 0
    settings = load_yaml(made / "guard" / "rule.yaml")["chosen"]["settings"]
    assert settings["scores"] == "MagicTime/shared/folds.pth"
    assert settings["model_dir"] == "shared"
    for name in ("rule.yaml", "README.md"):
        text = (made / "guard" / name).read_text()
        assert str(ROOT) not in text and str(made) not in text


def test_again_it_is_the_same(made):
    assert ship(made) == 0
    before = {path.name: path.read_bytes() for path in (made / "guard").iterdir()}
    assert ship(made) == 0
    assert {path.name: path.read_bytes() for path in (made / "guard").iterdir()} == before


@pytest.mark.parametrize(
    "name, tool", [("shared.pth", "train_mae"), ("names.pth", "--names"), ("rule.yaml", "choose")]
)
def test_a_missing_file(made, capsys, name, tool):
    (made / "shared" / name).unlink()
    refused(ship(made), capsys, name, tool)
    assert not (made / "guard").exists()


def test_files_that_do_not_belong_together(made, capsys):
    save_detectors(made / "shared", data_sha256="f" * 64)
    refused(ship(made), capsys, "rule.yaml", "other detectors")
    assert not (made / "guard").exists()


def test_votes_of_other_detectors(made, capsys):
    other = {**identity_of(load_bank(made / "shared")), "sha256": "a" * 64}
    save_votes(made / "results_shared", other)
    refused(ship(made), capsys, "rule.yaml", "other detectors")


def test_a_rule_for_any_detectors(made, capsys):
    (made / "shared" / "rule.yaml").write_text(
        "format: lvd rule 1\nfamily: vote\nlambda: '0.6'\neta: 2\n"
    )
    refused(ship(made), capsys, "rule.yaml", "'detectors' is missing")


def test_detectors_that_name_a_folder(made, capsys):
    save_detectors(made / "shared", made_at="/home/someone/here")
    detectors = identity_of(load_bank(made / "shared"))
    save_rule(ChosenRule(ConfidenceRule(0.9, 2), detectors), made / "shared" / "rule.yaml")
    save_votes(made / "results_shared", detectors)
    refused(ship(made), capsys, "shared.pth", "/home/someone/here")


def test_the_folder_itself(made, capsys):
    refused(ship(made, save_dir=made / "shared"), capsys, "--save_dir")
