"""Files that a run goes on from, with one value of another kind: one line that names the key."""

import shutil

import pytest
import torch

import train_mae
from lvd.training.recipes import read_settings
from lvd.training.resumable import ResumableRun
from lvd.training.shared import SharedTask
from lvd.utils.files import load_torch, save_torch
from tests.worlds.detector_world import copy_world, make_world
from tests.worlds.refusals import refused
from tests.worlds.scripts import embed, train

SHORT = ["--epoch", "2", "--batch_size", "16", "--size", "nano", "--gpu_num", "-1"]
META = torch.zeros(3, device="meta")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A grid of step 0, a shared detector, a stopped training of it, and a stopped embedding."""
    world = make_world(tmp_path_factory.mktemp("damaged"))
    assert train(world, "--workers", "1", base=SHORT) == 0
    stop_after_one_batch(world, world.root / "stopped")
    clip = world.root / "eval_normal" / "2" / "8.pt"
    good = clip.read_bytes()
    clip.write_bytes(b"x")
    assert embed(world) == 2
    clip.write_bytes(good)
    assert train(world, "--model", "shared", base=SHORT, save=world.root / "shared") == 0
    return world


def stop_after_one_batch(world, save):
    """Leave the checkpoint of a shared detector in a folder."""
    args = train_mae.build_parser().parse_args(
        ["--model", "shared", *SHORT, "--data_dir", str(world.data), "--eval_dir", str(world.eval)]
    )
    args.save_dir = save
    settings = read_settings(args.config, args, "shared")
    job = train_mae.open_job(args, settings, "cpu")
    run = ResumableRun(job, SharedTask(job), save_every=0)
    steps = iter(run)
    next(steps), next(steps)
    steps.close()


@pytest.fixture
def world(kept, tmp_path):
    return copy_world(kept, tmp_path / "world")


def change(path, where, value):
    """Put a value at a place such as "found.scores.1" of a torch file; "absent" takes it away."""
    content = load_torch(path)
    *parents, last = where.split(".")
    place = content
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    if isinstance(value, str) and value == "absent":
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    save_torch(content, path)


@pytest.mark.parametrize(
    "where, value, words",
    [
        ("config", None, ["config: found None"]),
        ("found", [1], ["found", "needed"]),
        ("found", "absent", ["key 'found' is missing"]),
        ("found.scores", None, ["found: scores"]),
        ("found.scores.1.2.0", float("nan"), ["scores.1.2.0: found nan"]),
        ("found.scores.1.2.0", 2.0, ["scores.1.2.0: found 2.0"]),
        ("found.scores.0.1.0", -1.0, ["scores.0.1.0: found -1.0"]),
        ("found.scores.1.2.0", None, ["scores.1.2.0: found None"]),
        ("found.scores.1.2", META, ["scores.1.2: found a tensor"]),
        ("found.scores.1.2", [0.5], ["not the scores of all 2 categories", "delete it"]),
        ("found.scores.0", "absent", ["not the scores of all"]),
        ("found.thresholds.1", 7.0, ["thresholds.1: found 7.0"]),
        ("found.thresholds.2", "absent", ["not the scores of all"]),
    ],
)
def test_unfinished_scores(world, capsys, where, value, words):
    change(world.results / "unfinished" / "0.pth", where, value)
    refused(embed(world), capsys, "unfinished/0.pth", *words)
    assert not (world.results / "results.pth").exists()


def test_unfinished_scores_that_are_no_mapping(world, capsys):
    for content in ([1], {}, torch.zeros(3)):
        save_torch(content, world.results / "unfinished" / "0.pth")
        refused(embed(world), capsys, "unfinished/0.pth")


@pytest.mark.parametrize(
    "where, value, words",
    [
        ("identity", None, ["identity: found None"]),
        ("identity", "absent", ["key 'identity' is missing"]),
        ("done", -1, ["done: found -1"]),
        ("done", 10**30, ["done"]),
        ("done", "5", ["done: found '5'"]),
        ("losses", [None], ["losses.0"]),
        ("net", None, ["net: found None"]),
        ("net", {"a": torch.zeros(2)}, ["not a state of this training"]),
        ("net", {"a": META}, ["net.a", "plain tensor"]),
        ("optimizer", {}, ["not a state of this training"]),
        ("optimizer", {"state": 5, "param_groups": [None]}, ["not a state of this training"]),
        ("averaged", 5, ["averaged: found 5"]),
        ("curve", [{"epoch": 0}], ["curve.0"]),
        ("curve", None, ["curve: found None"]),
        ("seconds", float("inf"), ["seconds: found inf"]),
        ("data_sha256", None, ["data_sha256: found None"]),
        ("more", 1, ["unknown key 'more'"]),
    ],
)
def test_checkpoints(kept, tmp_path, capsys, where, value, words):
    shutil.copytree(kept.root / "stopped", tmp_path / "stopped")
    change(tmp_path / "stopped" / "shared.training.pth", where, value)
    status = train(kept, "--model", "shared", base=SHORT, save=tmp_path / "stopped")
    refused(status, capsys, "shared.training.pth", *words)
    assert not (tmp_path / "stopped" / "shared.pth").exists()


@pytest.mark.parametrize(
    "where, value, words",
    [
        ("about.metrics", "absent", ["about: ", "also metrics are needed"]),
        ("about.metrics", 5, ["about.metrics: found 5"]),
        ("about.metrics.val_accuracy", None, ["metrics.val_accuracy: found None"]),
        ("about.metrics.val_accuracy", 1.5, ["metrics.val_accuracy: found 1.5"]),
        ("about.metrics.val_auroc", float("nan"), ["metrics.val_auroc: found nan"]),
        ("about.metrics.val_tpr", "absent", ["metrics.val_tpr"]),
        ("about.metrics.val_unsafe_clips", -1, ["metrics.val_unsafe_clips: found -1"]),
        ("about.category", None, ["about.category: found None"]),
        ("about.curve", [1], ["about.curve: found [1]"]),
        ("about.curve.val_loss", [0.5], ["lists of one length"]),
        ("about.curve.val_auroc", "absent", ["curve.val_auroc"]),
        ("about.curve.train_loss.0", None, ["curve.train_loss.0: found None"]),
    ],
)
def test_finished_detectors(world, capsys, where, value, words):
    change(world.save / "2" / "1.pth", where, value)
    refused(train(world, "--workers", "1", base=SHORT), capsys, "2/1.pth", *words)
    if where.startswith("about.metrics"):  # one that is not asked for is in the table, too
        asked = ["--group_num", "1", "--workers", "1"]
        assert train(world, *asked, base=SHORT) == 2


@pytest.mark.parametrize(
    "where, value, words",
    [
        ("about.curve", [], ["about: curve"]),
        ("about.curve", "absent", ["about: ", "also a curve is needed"]),
        ("about.curve.0.train_loss", None, ["curve.0.train_loss: found None"]),
        ("about.metrics.0.val_auroc", 2.0, ["metrics.0.val_auroc: found 2.0"]),
        ("about.metrics.0.group", "1", ["metrics.0.group: found '1'"]),
    ],
)
def test_finished_shared_detectors(kept, tmp_path, capsys, where, value, words):
    shutil.copytree(kept.root / "shared", tmp_path / "shared")
    change(tmp_path / "shared" / "shared.pth", where, value)
    status = train(kept, "--model", "shared", base=SHORT, save=tmp_path / "shared")
    refused(status, capsys, "shared.pth", *words)
