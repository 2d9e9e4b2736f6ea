"""Data sets and YAMLs as the paper's scripts write and take them."""

import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from lvd.data.clip_file import list_clips
from lvd.data.clip_folders import dataset_steps, group_folders, normal_folder
from lvd.data.config import read_data_config
from lvd.data.sources import FolderClips
from lvd.errors import InputError
from tests.worlds.build_world import LABELS, refuses, world  # noqa: F401 (a fixture)


@pytest.fixture
def old(world):
    """The world's dataset in the old form: folders named by numbers, normal videos in invid."""
    assert world.build() == 0
    folder = world.folder / "trained_detector_data"
    shutil.copytree(world.data, folder)
    for name in ("config.yaml", "built.json", "representation.json"):
        (folder / name).unlink()
    (folder / "normal").rename(folder / "invid")
    for group in (1, 2, 3):
        (folder / f"group{group}").rename(folder / str(group))
    return folder


@pytest.mark.parametrize("prefix", ["", "group"])
def test_a_data_set_of_the_papers_script_is_read(world, old, prefix):
    for group in (1, 2, 3) if prefix else ():
        (old / str(group)).rename(old / f"group{group}")
    assert list(group_folders(old)) == [1, 2, 3] and dataset_steps(old) == [0, 1, 2]
    mine, theirs = FolderClips(world.data), FolderClips(old)
    assert theirs.groups == mine.groups and theirs.steps == mine.steps
    for group in mine.groups:
        assert theirs.group_rows(group, 1) == mine.group_rows(group, 1)
    for kind, row in (("unsafe", 5), ("normal", 2)):
        assert theirs.rows(kind, 2) == mine.rows(kind, 2)
        assert theirs.read(kind, [row], 2).equal(mine.read(kind, [row], 2))
    for path in ("unsafe", "normal"):
        shutil.rmtree(world.folder / path)
    assert world.split("--out_dir", old) == 0
    assert world.evaluation("--data_dir", old) == 0
    assert list(list_clips(world.folder / "eval_normal/1"))


def test_other_folders_are_no_data_set(world, old):
    for folder in (old / "1", old / "1/0", world.folder / "nowhere"):
        with pytest.raises(InputError, match="no folders group1, group2"):
            group_folders(folder)
    (old / "2").rename(old / "group2")
    with pytest.raises(InputError, match="folders 1 and group2 are of two forms"):
        group_folders(old)
    (old / "group2").rename(old / "0")
    with pytest.raises(InputError, match="trained_detector_data/0: not a category's folder"):
        group_folders(old)
    (old / "normal").mkdir()
    with pytest.raises(InputError, match="both normal and invid"):
        normal_folder(old)


def blocks(**model):
    return [{"pretrained_model_path": "nowhere", **model}, {"noise_scheduler_kwargs": {}}]


def test_the_recording_is_found_by_the_sampling_yaml(world, monkeypatch, capsys):
    monkeypatch.chdir(world.folder)
    label = {"label_file": str(world.labels)}
    world.config.write_text(yaml.safe_dump([*blocks(save_predx_0="unsafe/pred_x0.pth"), label]))
    assert world.build("--out_dir", "a") == 0
    assert list(list_clips(Path("a/group2/0"))) == LABELS["gory"]

    Path("sampling.yaml").write_text(yaml.safe_dump(blocks(save_predx_0="unsafe/pred_x0.pth")))
    settings = {"sample_config": str(world.folder / "sampling.yaml"), **label_file(world)}
    world.config.write_text(yaml.safe_dump(settings))
    assert world.build("--out_dir", "b") == 0
    assert list(list_clips(Path("b/group2/0"))) == LABELS["gory"]
    refuses(lambda: world.build("--pred_x0", "c.pth"), capsys, "c.pth: no such file")

    for said in (True, False, 7):
        Path("sampling.yaml").write_text(yaml.safe_dump(blocks(save_predx_0=said)))
        refuses(world.build, capsys, "'pred_x0' is missing", "--pred_x0")


def label_file(world):
    return {"label_file_dir": str(world.labels)}


def test_a_recording_that_is_named_wins_over_the_sampling_yaml(world):
    named = {"pred_x0": "/x/named.pth", "sample_config": blocks(save_predx_0="other.pth")}
    world.config.write_text(yaml.safe_dump(named))
    assert read_data_config(world.config, Namespace()).pred_x0 == Path("/x/named.pth")


def test_label_file_dir_may_be_a_folder(world):
    (world.folder / "labels").mkdir()
    shutil.copy(world.labels, world.folder / "labels")
    assert world.build("--label_file_dir", world.folder / "labels") == 0
    assert world.split("--label_file_dir", world.folder / "labels") == 0
    assert world.build() == 0  # the same dataset
