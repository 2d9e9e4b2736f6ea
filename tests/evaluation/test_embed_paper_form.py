"""embed_model.py as the paper calls it: --eval_dir eval_set, --data_dir a folder of normal clips,
--save_dir the results' file."""

import shutil

import pytest

import embed_model
import test_accuracy
from lvd.evaluation.results import load_results
from lvd.utils.files import load_torch, load_yaml, save_torch, save_yaml, sha256
from tests.worlds.detector_world import HELD_NORMAL, HELD_UNSAFE, copy_world
from tests.worlds.refusals import refused


def embed(model_dir, eval_dir, data_dir, save_dir, *flags):
    words = {"model": model_dir, "eval": eval_dir, "data": data_dir, "save": save_dir}
    given = [[f"--{name}_dir", str(path)] for name, path in words.items() if path is not None]
    return embed_model.main([*sum(given, []), "--operating_point", "argmax", *flags])


@pytest.fixture
def copied(world, tmp_path):
    """A copy of the world, whose files may be changed."""
    return copy_world(world, tmp_path / "copy")


def test_the_papers_command_gives_the_same_votes(world, tmp_path, capsys):
    labels = ["--label_file_dir", str(world.labels)]
    for normal in (world.data / "normal", world.root / "eval_normal", None):
        save = tmp_path / str(normal and normal.name) / "votes.pth"
        assert embed(world.save, world.root / "eval_set", normal, save, *labels) == 0
        assert f"wrote {save}" in capsys.readouterr().out
        for mine, usual in (
            (save, "results.pth"),
            (save.with_name("votes.scores.pth"), "scores.pth"),
        ):
            assert mine.read_bytes() == (world.results / usual).read_bytes()
        assert sorted(path.name for path in save.parent.iterdir()) == [
            "votes.config.yaml",
            "votes.inputs.json",
            "votes.pth",
            "votes.scores.pth",
        ]
    assert embed(world.save, world.root / "eval_set", None, save, *labels) == 0
    assert "votes found finished" in capsys.readouterr().out
    folder = tmp_path / "folder"
    assert embed(world.save, world.root / "eval_set", world.data / "normal", folder, *labels) == 0
    assert (folder / "results.pth").read_bytes() == save.read_bytes()

    flags = ["--data_dir", str(save), "--eta", "3", "--metrics", "--resamples", "100"]
    assert test_accuracy.main([*flags, "--save_dir", str(tmp_path / "m")]) == 0
    assert (
        "calibrated probability" in (tmp_path / "m/score_metrics.txt").read_text()
    )  # of votes.scores.pth


def test_normal_clips_of_another_recording_are_new_to_the_detectors(copied, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(copied.data / "normal", other / "normal")
    shutil.copy(copied.data / "representation.json", other)
    config = {**load_yaml(copied.data / "config.yaml"), "normal_pred_x0_made_by": "another"}
    save_yaml(config, other / "config.yaml")
    assert embed(copied.save, copied.root / "eval_set", other / "normal", tmp_path / "v.pth") == 0
    votes, _ = load_results(tmp_path / "v.pth")
    assert list(votes["0"]) == ["0", "1", "2", "3", "4"]  # the first, as many as unsafe ones
    assert list(votes["1"]) == [str(row) for row in HELD_UNSAFE]
    config = load_yaml(tmp_path / "v.config.yaml")
    assert config["other_normal_pred_x0_made_by"] == "another"

    (other / "config.yaml").unlink()  # not known: rows are taken for those of the detectors'
    assert embed(copied.save, copied.root / "eval_set", other / "normal", tmp_path / "w.pth") == 0
    assert list(load_results(tmp_path / "w.pth")[0]["0"]) == [str(row) for row in HELD_NORMAL]


def test_without_held_out_normal_rows_it_is_not_known_what_was_trained_on(copied, tmp_path, capsys):
    save_torch(HELD_UNSAFE, copied.eval)
    words = (copied.save, copied.root / "eval_set", copied.data / "normal", tmp_path / "v.pth")
    refused(embed(*words), capsys, "eval.pth", "no normal rows", "--allow_other_eval")
    assert embed(*words, "--allow_other_eval") == 0
    assert list(load_results(tmp_path / "v.pth")[0]["0"]) == ["0", "1", "2", "3", "4"]


def test_the_eval_file_is_the_one_that_the_folder_was_built_with(copied, tmp_path, capsys):
    clips, normal = copied.root / "eval_set", copied.root / "eval_normal"
    elsewhere = tmp_path / "split.pth"
    shutil.move(copied.eval, elsewhere)
    refused(
        embed(copied.save, clips, normal, tmp_path / "v"), capsys, "--eval_dir", "no ", "eval.pth"
    )
    config = load_yaml(clips / "config.yaml")
    save_yaml(
        {**config, "eval_path": str(elsewhere), "eval_sha256": sha256(elsewhere)},
        clips / "config.yaml",
    )
    assert embed(copied.save, clips, normal, tmp_path / "v") == 0
    shutil.move(elsewhere, copied.eval)  # found beside, by its hash
    assert embed(copied.save, clips, normal, tmp_path / "w") == 0
    save_torch({**load_torch(copied.eval), "seed": 1}, copied.eval)
    refused(
        embed(copied.save, clips, normal, tmp_path / "x"), capsys, "not the one it was built with"
    )


@pytest.mark.parametrize(
    "normal, words",
    [
        ("eval_set", ["--data_dir", "unsafe clips"]),
        ("train_detector_data/group1", ["--data_dir", "unsafe clips"]),
        (".", ["--data_dir", "no step folders", "normal clips by step"]),
        ("nowhere", ["--data_dir", "nowhere", "no step folders"]),
    ],
)
def test_folders_that_are_no_normal_clips(world, tmp_path, capsys, normal, words):
    status = embed(world.save, world.root / "eval_set", world.root / normal, tmp_path / "v.pth")
    refused(status, capsys, *words)
    assert not any(tmp_path.iterdir())


def test_unsafe_clips_that_are_not_held_out(copied, tmp_path, capsys):
    shutil.copy(copied.data / "group1/0/2.pt", copied.root / "eval_set/0")
    words = (copied.save, copied.root / "eval_set", copied.data / "normal", tmp_path / "v.pth")
    refused(embed(*words), capsys, "eval_set/0", "row 2 is not held out in")


def test_a_file_of_another_kind_is_not_written_over(world, tmp_path, capsys):
    (tmp_path / "notes").write_text("mine")
    words = (world.save, world.root / "eval_set", world.data / "normal", tmp_path / "notes")
    refused(embed(*words), capsys, "--save_dir", "ends in .pth")
    assert (tmp_path / "notes").read_text() == "mine"
