"""train_mae.py --model shared --step_input level: trained, resumed, used and refused."""

import pytest
import torch
import yaml

from lvd.data.sources import FolderClips
from lvd.detectors.bank import load_bank
from lvd.utils.files import load_torch
from lvd.x0.step_map import levels_of_sampling
from tests.worlds.detector_world import STEPS, copy_world, make_world
from tests.worlds.refusals import refused
from tests.worlds.scripts import embed
from tests.worlds.shared_runs import start, train

SHORT = ["--epoch", "2"]
LEVEL = ["--step_input", "level"]
SAMPLING = {
    "steps": STEPS,
    "timesteps": [667, 334, 1],
    "scheduler": {"class": "DDIMScheduler", "steps_offset": 1, "clip_sample": False},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Clips whose sampling is known, and a detector that is told the level."""
    world = make_world(tmp_path_factory.mktemp("level"))
    config = world.data / "config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "sampling": SAMPLING}))
    assert train(world, *SHORT, *LEVEL) == 0
    return world


def test_the_file_keeps_the_levels(world):
    content = load_torch(world.save / "shared.pth")
    levels = levels_of_sampling(SAMPLING)
    assert content["levels"] == levels and len(levels) == STEPS
    assert content["about"]["settings"]["step_input"] == "level"
    assert yaml.safe_load((world.save / "train.yaml").read_text())["step_input"] == "level"
    assert not any("step_embedding" in name for name in content["state_dict"])


def test_it_is_a_bank_like_any_other(world, capsys):
    bank = load_bank(world.save)
    clips = torch.randn(3, 4, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    between = sum(bank.model.levels[:2]) / 2
    assert (bank.score(0, clips, between) - bank.score(0, clips)).abs().max() > 0
    assert embed(world) == 0 and train(world, *SHORT, "--no-train") == 0
    assert "saved detectors on held-out clips" in capsys.readouterr().out


def test_some_of_the_steps_have_their_own_levels(world, tmp_path):
    assert train(world, *SHORT, *LEVEL, "--step_num", "0,2", save=tmp_path) == 0
    levels = levels_of_sampling(SAMPLING)
    assert load_torch(tmp_path / "shared.pth")["levels"] == [levels[0], levels[2]]


def test_a_resumed_run_is_that_of_an_unbroken_one_to_the_bit(world, tmp_path):
    whole = start(world, tmp_path / "whole", step_input="level")
    list(whole)
    broken = start(world, tmp_path / "broken", step_input="level")
    broken.checkpoint.save_every = 0
    steps = iter(broken)
    for _ in range(6):
        next(steps)
    steps.close()
    list(start(world, tmp_path / "broken", step_input="level"))
    one, two = (load_torch(tmp_path / name / "shared.pth") for name in ("whole", "broken"))
    for name, weight in one["state_dict"].items():
        assert torch.equal(weight, two["state_dict"][name]), name
    assert one["levels"] == two["levels"] and one["thresholds"] == two["thresholds"]


def test_a_table_is_the_default_and_goes_unsaid(world, tmp_path):
    assert train(world, *SHORT, save=tmp_path / "usual") == 0
    assert train(world, *SHORT, "--step_input", "table", save=tmp_path / "told") == 0
    content = load_torch(tmp_path / "usual" / "shared.pth")
    assert "levels" not in content and "step_input" not in content["about"]["settings"]
    for name in ("train.yaml", "metrics.csv"):
        usual = (tmp_path / "usual" / name).read_bytes()
        assert usual == (tmp_path / "told" / name).read_bytes() and b"step_input" not in usual


def test_refused(world, tmp_path, capsys):
    refused(train(world, *SHORT), capsys, "train.yaml", "step_input")
    table = ["--no-train", "--step_input", "table"]
    refused(train(world, *SHORT, *table), capsys, "--step_input table", "step_input 'level'")
    grid = ["--model", "grid", "--size", "nano"]
    refused(
        train(world, *grid, *LEVEL, save=tmp_path / "g"), capsys, "--step_input level", "--model"
    )
    words = [*grid, "step_input=level"]
    refused(train(world, *words, save=tmp_path / "g"), capsys, "step_input=level", "--model")
    word = "step_input=both"
    refused(train(world, *SHORT, word, save=tmp_path / "g"), capsys, "step_input 'both'", "table")
    config = tmp_path / "train.yaml"
    config.write_text("size: nano\nstep_input: level\n")
    refused(
        train(world, "--config", str(config), save=tmp_path / "g"), capsys, "'step_input'", "key"
    )


def test_clips_that_do_not_tell_their_level(world, tmp_path, capsys):
    bare = copy_world(world, tmp_path / "bare")
    config = bare.data / "config.yaml"
    known = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({k: v for k, v in known.items() if k != "sampling"}))
    assert not FolderClips(bare.data).sampling
    refused(train(bare, *SHORT, *LEVEL, save=tmp_path / "d"), capsys, "--step_input level")
