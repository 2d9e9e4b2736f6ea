"""train_mae.py --names by the real scripts: categories told apart, names kept with the scores."""

import shutil

import numpy as np
import pytest
import torch

import test_accuracy
from lvd.data.sources import FolderClips
from lvd.detectors.bank import load_bank
from lvd.detectors.names import load_names, named
from lvd.evaluation.results_folder import ResultsFolder
from lvd.training.names import names_weights
from lvd.training.shared import weighted_loss
from lvd.utils.files import load_torch, load_yaml, save_torch
from tests.worlds.detector_world import (
    CATEGORIES,
    HELD_NORMAL,
    HELD_UNSAFE,
    STEPS,
    UNSAFE,
    make_detectors,
    make_world,
)
from tests.worlds.refusals import refused
from tests.worlds.scripts import embed, train

FLAGS = ["--size", "nano", "--gpu_num", "-1", "--batch_size", "16"]
SHARED = [*FLAGS, "--model", "shared", "--epoch", "2"]
GRID = [*FLAGS, "--epoch", "1", "--workers", "1"]
NAMES = ["--names", "names.epoch=12", "names.batch_size=8"]
TRUE = {row: [row in UNSAFE[1], row in UNSAFE[2]] for row in HELD_UNSAFE}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A shared detector with votes, before the names; then names beside it."""
    world = make_world(tmp_path_factory.mktemp("names"))
    assert train(world, base=SHARED) == 0
    assert embed(world, "--label_file_dir", str(world.labels)) == 0
    world.before = {path.name: path.read_bytes() for path in world.save.iterdir()}
    world.votes_before = (world.results / "results.pth").read_bytes()
    world.scores_before = load_torch(world.results / "scores.pth")
    assert train(world, *NAMES, base=SHARED) == 0
    return world


def test_categories_are_told_apart(world):
    """Also a video of both, at every step."""
    bank, source = load_bank(world.save), FolderClips(world.data)
    for step in range(STEPS):
        found = named(bank.names(step, source.read("unsafe", HELD_UNSAFE, step)))
        right = (found == np.array(list(TRUE.values()))).all(1)
        assert right.sum() >= (len(right) if step else 4)  # the patterns are weakest at step 0


def test_no_other_file_changes(world):
    for name, content in world.before.items():
        assert (world.save / name).read_bytes() == content, name
    new = {path.name for path in world.save.iterdir()} - set(world.before)
    wanted = "names.pth names_curve.csv names_curve.png names_metrics.csv names.yaml"
    assert new == set(wanted.split())


def test_what_the_names_say_of_themselves(world):
    about = load_names(world.save / "names.pth").about
    learnt = set(UNSAFE[1] + UNSAFE[2]) - set(HELD_UNSAFE)
    assert about["rows"] == {"unsafe": sorted(learnt), "normal": []}
    assert (about["settings"]["epoch"], about["settings"]["batch_size"]) == (12, 8)
    assert about["categories"] == list(CATEGORIES) and about["naming"]["precision"] > 0.9
    assert load_yaml(world.save / "names.yaml")["epoch"] == 12
    assert load_yaml(world.save / "train.yaml")["epoch"] == 2


def test_finished_names_are_left_alone(world, capsys):
    before = (world.save / "names.pth").read_bytes()
    assert train(world, *NAMES, base=SHARED) == 0
    assert (world.save / "names.pth").read_bytes() == before
    refused(train(world, "--names", "names.epoch=13", base=SHARED), capsys, "names.yaml", "epoch")


def test_names_are_kept_with_the_scores(world, capsys):
    """Votes that were finished before the names came are recorded again, the same ones."""
    assert embed(world, "--label_file_dir", str(world.labels)) == 0
    assert (world.results / "results.pth").read_bytes() == world.votes_before
    scores = load_torch(world.results / "scores.pth")
    kept = scores.pop("names")
    assert scores == world.scores_before
    bank, source = load_bank(world.save), FolderClips(world.data)
    for label, kind, rows in (("1", "unsafe", HELD_UNSAFE), ("0", "normal", HELD_NORMAL)):
        for step in range(STEPS):
            wanted = bank.names(step, source.read(kind, rows, step)).tolist()
            found = [[kept[label][group][str(row)][step] for group in "12"] for row in rows]
            assert found == wanted
    capsys.readouterr()
    argv = ["--data_dir", str(world.results), "--eta", "1", "--lambda", "0.1", "--table"]
    assert test_accuracy.main(argv) == 0
    text = (world.results / "naming.txt").read_text()
    assert "names.pth: asked at the step" in text and text.strip() in capsys.readouterr().out
    assert (world.results / "naming.csv").exists()


def test_a_step_scored_before_the_names_is_scored_again(tmp_path):
    """A run was killed after its first step; then the names were trained."""
    folder = ResultsFolder(tmp_path, {"detectors_sha256": "d" * 64})
    scored = {"scores": {"1": {"1": [0.5]}, "0": {"1": [0.5]}}, "thresholds": {"1": 0.5}}
    folder.step_scores(False).save(0, scored)
    assert folder.step_scores(False).load(0) == scored
    assert folder.step_scores(False, "n" * 64).load(0) is None


def test_names_beside_a_grid(world, tmp_path):
    """Their settings are their own: --epoch is the grid's."""
    save = tmp_path / "grid"
    assert train(world, *NAMES, "--step_num", "2", save=save, base=GRID) == 0
    assert load_torch(save / "1" / "2.pth")["about"]["settings"]["epoch"] == 1
    bank = load_bank(save)
    assert (bank.naming.model.about["settings"]["epoch"], bank.naming.model.steps) == (12, [2])
    found = named(bank.names(2, FolderClips(world.data).read("unsafe", HELD_UNSAFE, 2)))
    assert not (found & ~np.array(list(TRUE.values()))).any()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--names", "--no-train"], ["--names", "--no-train trains nothing"]),
        (["--names", "--group_num", "1"], ["--group_num", "group 2 is missing"]),
        (["names.epoch=3"], ["names.epoch=3", "give --names"]),
        (["--names", "names.false_positives=0.1"], ["false_positives"]),
        (["--names", "names.epoch=0"], ["epoch 0"]),
    ],
)
def test_flags_that_cannot_be(world, tmp_path, capsys, flags, words):
    assert not (tmp_path / "new").exists()
    status = train(world, *flags, save=tmp_path / "new", base=FLAGS)
    refused(status, capsys, *words)
    assert not (tmp_path / "new").exists()


def test_one_category_cannot_be_told_from_others(tmp_path, capsys):
    world = make_world(tmp_path / "world")
    shutil.rmtree(world.data / "group2")
    content = load_yaml(world.data / "config.yaml")
    text = (world.data / "config.yaml").read_text()
    assert content["categories"] == list(CATEGORIES)
    (world.data / "config.yaml").write_text(text.replace("- flicker\n", ""))
    built = (world.data / "built.json").read_text()
    (world.data / "built.json").write_text(built.replace('"group2": 12,', ""))
    refused(train(world, "--names", base=GRID), capsys, "--names", "category bright")


def test_weights_of_the_loss():
    """A category's own videos weigh as much as all others; a network that knows nothing gains
    nothing by a bias."""
    labels = torch.tensor([[1.0, 0], [1, 0], [1, 1], [0, 1]])
    train_rows = torch.arange(4)
    weights = names_weights(labels, train_rows)
    own = (weights * labels).sum(0)
    assert torch.allclose(own, (weights * (1 - labels)).sum(0)) and torch.allclose(
        weights.mean(0), torch.ones(2)
    )
    logits = torch.zeros(4, 2, requires_grad=True)
    weighted_loss(logits, labels, weights).backward()
    assert torch.allclose(logits.grad.sum(0), torch.zeros(2), atol=1e-7)


def test_names_of_another_dataset_are_refused(world, tmp_path, capsys):
    """Copied beside detectors of other categories."""
    make_detectors(tmp_path)
    shutil.copy(world.save / "names.pth", tmp_path / "names.pth")
    content = load_torch(tmp_path / "names.pth")
    content["categories"] = ["bright", "dark"]
    save_torch(content, tmp_path / "names.pth")
    world_of = type(world)(**{**vars(world), "save": tmp_path})
    refused(embed(world_of, save=tmp_path / "r"), capsys, "names.pth: knows bright, dark")
