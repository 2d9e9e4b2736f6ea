"""`save_predx_0` and `save_predx_t` of the sampling YAML as the paths of the files to write, as in
the paper's YAMLs."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch

from lvd.utils.files import load_yaml
from lvd.x0.file import open_x0_file
from MagicTime.utils.config import read_config
from tests.worlds import forked
from tests.worlds.magictime_world import ROOT, write_config
from tests.worlds.refusals import refused
from tests.worlds.sampler_command import command, sample

PATHS = {"save_predx_0": "somewhere/predx_0.pth", "save_predx_t": "else/deep/predx_t.pth"}


@pytest.fixture(scope="module")
def usual(world, tmp_path_factory):
    """A run that records into its own folder."""
    folder = tmp_path_factory.mktemp("usual")
    config = write_config(
        folder / "c.yaml", world[0], save_predx_0=True, save_predx_t=True, batch_size=1
    )
    assert sample(config, folder / "out") == 0
    return folder / "out"


@pytest.fixture
def config(world, tmp_path, monkeypatch):
    """The YAML with paths, whose relative ones count from the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_config(tmp_path / "c.yaml", world[0], **PATHS, batch_size=1)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_recordings_lie_where_the_yaml_says(config, tmp_path, usual, capsys):
    assert sample(config, "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "somewhere/predx_0.pth and else/deep/predx_t.pth [3, 4," in said
    assert not (tmp_path / "somewhere").exists()

    assert sample(config, "out", "--limit", 1) == 0
    assert open_x0_file("somewhere/predx_0.pth").rows == [0]
    assert names(tmp_path / "somewhere") == ["predx_0.json", "predx_0.pth"]
    assert sample(config, "out", "--filmstrips", 1) == 0
    said = capsys.readouterr().out
    assert "wrote somewhere/predx_0.pth" in said and "wrote else/deep/predx_t.pth" in said
    assert "2 new, 3 of 3 prompts done" in said and (tmp_path / "out/filmstrips/0000.png").exists()
    assert names(tmp_path / "out") == ["config.yaml", "filmstrips", "videos"]
    for path, usual_name in zip(PATHS.values(), ("pred_x0.pth", "pred_x_t.pth")):
        here, there = open_x0_file(path), open_x0_file(usual / usual_name)
        assert torch.equal(here.tensor, there.tensor) and here.rows == [0, 1, 2]
        assert here.meta == there.meta and here.info == there.info
        assert here.fingerprint == there.fingerprint
    assert load_yaml("out/config.yaml")["save_predx_0"] == "somewhere/predx_0.pth"

    shutil.rmtree("somewhere")  # what is lost is made again
    assert sample(config, "out") == 0
    lost = open_x0_file("somewhere/predx_0.pth")
    assert torch.equal(lost.tensor, open_x0_file(usual / "pred_x0.pth").tensor)


@pytest.mark.slow
def test_processes_fill_the_same_file(config, tmp_path):
    script = ROOT / "MagicTime" / "inference_magictime.py"
    done = forked.run(script, *command(config, "out"), processes=2)
    assert done.returncode == 0, done.stderr
    for path in PATHS.values():
        recording = open_x0_file(path)
        assert recording.rows == [0, 1, 2] and recording.tensor.flatten(2).any(-1).all()
    assert names(tmp_path / "somewhere") == ["predx_0.json", "predx_0.pth"]


def test_a_word_and_another_key_may_give_the_path(config):
    said = {"save_path": "x", "save_predx_0": "${save_path}/a.pth", "save_predx_t": False}
    settings = read_config(config, overrides=said).settings
    assert settings.save_predx_0 == "x/a.pth" and settings.save_predx_t is False


@pytest.mark.parametrize(
    "words, said",
    [
        (["save_predx_0='true'"], "save_predx_0='true', true, false or the path"),
        (["save_predx_0=7"], "save_predx_0=7, true, false or the path"),
        (["save_predx_0=[a.pth]"], "save_predx_0=['a.pth'], true"),
        (["save_predx_0=a.txt"], "save_predx_0='a.txt', true"),
        (["save_predx_0=folder.pth"], "save_predx_0: folder.pth is a folder"),
        (["save_predx_0=other.pth"], "save_predx_0: other.pth is a file that is no recording"),
        (["save_predx_0=notes.pth"], "notes.json: not the sidecar"),
        (["save_predx_0=file/a.pth"], "file is not a folder that may be written"),
        (["save_predx_t=somewhere/predx_0.pth"], "somewhere/predx_0.pth is also that of save_pr"),
        (["save_predx_t=./somewhere/../somewhere/predx_0.pt"], "is also that of save_predx_0"),
        (["save_predx_0=true", "save_predx_t=out/pred_x0.pth"], "also that of save_predx_0"),
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_paths_that_are_refused(config, tmp_path, capsys, words, said, dry):
    Path("folder.pth").mkdir()
    Path("file").write_text("")
    torch.save([1], "other.pth")
    Path("notes.json").write_text(json.dumps({"my": "notes"}))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    refused(sample(config, "out", *dry, *words), capsys, said)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_another_runs_recording_is_not_written_into(config, capsys):
    assert sample(config, "out") == 0
    before = Path("somewhere/predx_0.pth").read_bytes()
    refused(sample(config, "other", "seed=9"), capsys, "somewhere/predx_0.json", "seed")
    assert Path("somewhere/predx_0.pth").read_bytes() == before


def test_typed_prompts_have_recordings_of_their_own(config, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("a red square\n"))
    refused(sample(config, "out", "--human"), capsys, "c.yaml: save_predx_0", "--human")
