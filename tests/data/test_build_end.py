"""build_x0.py: a dataset counts as whole when its build came to the end; names that build and split
refuse."""

import shutil

import torch

from lvd.data.clip_file import list_clips
from lvd.utils.files import load_json
from tests.worlds.build_world import refuses, world  # noqa: F401 (a fixture)
from tests.worlds.recording_world import SHAPE, STEPS


def test_folders_before_the_first_category_are_refused(world, capsys):
    assert world.build() == 0 and world.split() == 0
    (world.data / "group0").mkdir()
    refuses(world.evaluation, capsys, "group0", "group1")


def test_the_split_is_a_pth_file_beside_its_config(world, capsys):
    refuses(
        lambda: world.split("--save_path", world.folder / "split.yaml"),
        capsys,
        "--save_path",
        ".pth",
    )
    assert not (world.folder / "split.yaml").exists()


def test_a_dataset_is_whole_only_when_its_build_came_to_the_end(world, capsys):
    """An unfinished build has no note; one step more needs its own end; lost clips take a step
    back."""
    huge = torch.zeros(13, STEPS, *SHAPE)
    huge[11] = float("inf")  # the last unsafe row
    torch.save(huge, world.folder / "huge.pth")
    refuses(lambda: world.build("--pred_x0", world.folder / "huge.pth"), capsys, "not finite")
    assert (world.data / "config.yaml").exists() and list_clips(world.data / "group1/0")
    torch.save([0], world.folder / "eval.pth")
    (world.data / "normal/0").mkdir(parents=True)
    refuses(
        world.evaluation, capsys, "step 0 is not built to its end", "run build_x0.py to the end"
    )
    shutil.rmtree(world.data)

    assert world.build("--steps", "0,2") == 0
    assert load_json(world.data / "built.json") == {
        "steps": [0, 2],
        "videos": {"group1": 5, "group2": 3, "group3": 3, "normal": 8},
    }
    assert world.build("--steps", "1") == 0 and load_json(world.data / "built.json")["steps"] == [
        0,
        1,
        2,
    ]
    (world.data / "built.json").write_text("[1]")
    refuses(world.build, capsys, "built.json", "needed; delete it")
    (world.data / "built.json").unlink()
    assert world.build() == 0 and load_json(world.data / "built.json")["steps"] == [0, 1, 2]
    (world.data / "normal/1/4.pt").unlink()
    for name in ("unsafe", "normal"):
        (world.folder / name / "pred_x0.pth").unlink()
    (world.data / "normal/0/4.pt").unlink()
    (world.folder / "eval.pth").unlink()
    refuses(world.split, capsys, "normal/0", "7 of 8 clips")
    (world.data / "config.yaml").unlink()  # made by something else: taken as it is
    assert world.split() == 0
