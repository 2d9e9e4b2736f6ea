"""The same command with more prompts: as if they had been there from the beginning."""

import json
import shutil

import pytest
import torch

from lvd.utils.files import load_yaml
from lvd.x0 import shards
from lvd.x0.file import open_x0_file
from MagicTime.utils import more_prompts
from MagicTime.utils.output_folder import OutputFolder
from tests.worlds import forked
from tests.worlds.guard_world import PROMPTS as GUARDED
from tests.worlds.guard_world import SCRIPT, facts, guard_flags, lines_of, make_home
from tests.worlds.magictime_world import write_config
from tests.worlds.refusals import refused
from tests.worlds.sampler_command import command, sample

PROMPTS = ["a red square", "two dots", "a wave", "a car", "three red dots"]
RECORDINGS = ("pred_x0.pth", "pred_x_t.pth", "guidance.pth")
SETTINGS = dict(steps=2, save_predx_t=True, save_guidance=True, fps=4)


def config_of(folder, world, prompts=PROMPTS, **changes):
    return write_config(folder / "c.yaml", world[0], **{**SETTINGS, "prompt": prompts, **changes})


@pytest.fixture(scope="module")
def at_once(world, tmp_path_factory):
    """A run of all prompts."""
    folder = tmp_path_factory.mktemp("at_once")
    assert sample(config_of(folder, world), folder / "out") == 0
    return folder / "out"


@pytest.fixture(scope="module")
def begun(world, tmp_path_factory):
    """A run of the first two prompts."""
    folder = tmp_path_factory.mktemp("begun")
    assert sample(config_of(folder, world, PROMPTS[:2]), folder / "out") == 0
    return folder / "out"


def files(out):
    """{name: bytes} of a folder; of sidecars without the fingerprints that they have had."""
    found = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in [name for name in found if name.suffix == ".json" and len(found[name]) > 500]:
        said = json.loads(found[name])
        said.pop("earlier_fingerprints", None)
        found[name] = json.dumps(said)
    return found


def stamps(out):
    return {path: path.stat().st_mtime_ns for path in (out / "videos").iterdir()}


def test_a_grown_folder_is_one_of_all_prompts(world, begun, at_once, tmp_path, capsys):
    out = shutil.copytree(begun, tmp_path / "out")
    before, fingerprints = (
        stamps(out),
        [open_x0_file(out / name).fingerprint for name in RECORDINGS],
    )
    config = config_of(tmp_path, world)
    assert sample(config, out, "--dry-run") == 0
    assert load_yaml(out / "config.yaml")["prompts"] == 2
    assert sample(config, out, "--limit", 4) == 0
    assert "2 new, 4 of 5 prompts done" in capsys.readouterr().out
    assert sample(config, out) == 0
    assert "1 new, 5 of 5 prompts done" in capsys.readouterr().out
    assert files(out) == files(at_once)
    assert before.items() <= stamps(out).items()
    for name, fingerprint in zip(RECORDINGS, fingerprints, strict=True):
        whole = open_x0_file(at_once / name).fingerprint
        assert open_x0_file(out / name).fingerprints == [fingerprint, whole]


@pytest.mark.parametrize("done", [1, 3])
def test_broken_off_while_the_recordings_grow(world, begun, at_once, tmp_path, monkeypatch, done):
    """Of three recordings so many have grown; config.yaml still tells of the old prompts."""
    out, grow = shutil.copytree(begun, tmp_path / "out"), more_prompts.grow_x0_file
    left = iter(range(done))

    def interrupted(*given):
        if next(left, None) is None:
            raise KeyboardInterrupt
        grow(*given)

    monkeypatch.setattr(more_prompts, "grow_x0_file", interrupted)
    if done == 3:
        monkeypatch.setattr(OutputFolder, "claim_for_more", interrupted)
    config = config_of(tmp_path, world)
    assert sample(config, out) == 130
    assert load_yaml(out / "config.yaml")["prompts"] == 2
    monkeypatch.undo()
    assert all(open_x0_file(out / name).rows == [0, 1] for name in RECORDINGS)
    assert sample(config_of(tmp_path, world, PROMPTS[:2]), out) == 2  # fewer than there are rows
    assert sample(config_of(tmp_path, world), out) == 0
    assert files(out) == files(at_once)


def test_in_shards(world, at_once, tmp_path, monkeypatch):
    """Two rows a shard, old ones and new ones; the values are those of one file."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 2 * 2 * 4**4 * 4)
    for count in (3, 5):
        assert sample(config_of(tmp_path, world, PROMPTS[:count]), tmp_path / "out") == 0
    for name in RECORDINGS:
        found, whole = open_x0_file(tmp_path / "out" / name), open_x0_file(at_once / name)
        assert len(found.files) == 3 and len(found.fingerprints) == 2
        torch.testing.assert_close(found.tensor[:], whole.tensor, rtol=1e-3, atol=1e-3)
        assert torch.equal(found.tensor[3:], whole.tensor[3:])
        assert found.info == whole.info and found.fingerprint == whole.fingerprint


@pytest.mark.slow
def test_by_two_processes(world, begun, at_once, tmp_path):
    out = shutil.copytree(begun, tmp_path / "out")
    done = forked.run(SCRIPT, *command(config_of(tmp_path, world), out), processes=2)
    assert done.returncode == 0 and "3 new, 5 of 5" in done.stdout, done.stderr
    assert files(out) == files(at_once)


@pytest.mark.parametrize(
    "prompts, said",
    [
        (
            ["a red square", "two dogs", "a wave"],
            ["row 1 was recorded with prompt 'two dots', now it is 'two dogs'"],
        ),
        (
            ["a wave", *PROMPTS],
            ["row 0 was recorded with prompt 'a red square', now it is 'a wave'"],
        ),
        (["a red square"], ["made with 2 prompts, now there are 1", "--limit 1"]),
    ],
)
def test_other_prompts_are_refused(world, begun, tmp_path, capsys, prompts, said):
    before = files(begun)
    refused(sample(config_of(tmp_path, world, prompts), begun), capsys, *said)
    assert files(begun) == before


@pytest.mark.parametrize(
    "change, said",
    [
        ({"guidance_scale": 2.0}, "guidance_scale=3.0"),
        ({"seed": [8]}, "seed=[7]"),
        ({"seed_per_prompt": False, "seed": [7, 8, 9, 10, 11]}, "seed=[7]"),
        ({"n_prompt": ["worse"]}, "n_prompt=['bad']"),
    ],
)
def test_other_settings_are_refused(world, begun, tmp_path, capsys, change, said):
    before = files(begun)
    refused(sample(config_of(tmp_path, world, **change), begun), capsys, said)
    assert files(begun) == before


def test_lists_with_an_entry_for_each_prompt_go_on(world, tmp_path):
    """Without a recording config.yaml alone tells what the folder was begun with."""
    seeds, negatives, out = [3, 1, 4, 1, 5], ["a", "b", "c", "d", "e"], tmp_path / "out"
    plain = dict(save_predx_0=False, save_predx_t=False, save_guidance=False, steps=1, format="gif")
    for count in (2, 5):
        lists = {"seed": seeds[:count], "seed_per_prompt": False, "n_prompt": negatives[:count]}
        config = config_of(tmp_path, world, PROMPTS[:count], **plain, **lists)
        assert sample(config, out) == 0
    found = load_yaml(out / "config.yaml")
    assert (found["seed"], found["n_prompt"], found["prompts"]) == (seeds, negatives, 5)
    assert len(list((out / "videos").iterdir())) == 5


def test_other_prompts_without_a_recording(world, tmp_path, capsys):
    plain = dict(save_predx_0=False, save_predx_t=False, save_guidance=False, steps=1, format="gif")
    config = config_of(tmp_path, world, PROMPTS[:2], **plain)
    assert sample(config, tmp_path / "out", "--limit", 1) == 0
    config = config_of(tmp_path, world, ["x", *PROMPTS[1:]], **plain)
    said = "made with 2 prompts, and the first 2 of these 5 are others"
    refused(sample(config, tmp_path / "out"), capsys, said)


def test_drawn_seeds_stay_and_new_ones_are_drawn(world, tmp_path, capsys):
    changes = dict(
        seed=[-1], seed_per_prompt=False, save_predx_t=False, save_guidance=False, steps=1
    )
    out, seeds = tmp_path / "out", tmp_path / "out/seeds.json"
    assert sample(config_of(tmp_path, world, PROMPTS[:2], **changes), out) == 0
    first = json.loads(seeds.read_text())
    config = config_of(tmp_path, world, **changes)
    seeds.write_text(json.dumps(first[:1]))
    assert "seeds.json: 2 whole numbers" in refused(sample(config, out), capsys)
    seeds.write_text(json.dumps([*first, 77, 78, 79]))  # a run that was killed in between
    assert sample(config, out) == 0
    info = open_x0_file(out / "pred_x0.pth").info
    assert [info[row]["seed"] for row in range(5)] == [*first, 77, 78, 79]


def test_under_a_guard(world, tmp_path):
    """Verdicts of the new rows are added; those of the old stay, stopped videos included."""
    home = make_home(world, tmp_path)
    out, all_prompts = tmp_path / "grown", home.config.read_text()
    write_config(home.config, world[0], prompt=GUARDED[:3], batch_size=3)
    assert sample(home.config, out, *guard_flags(home)) == 0
    first = lines_of(out)
    write_config(home.config, world[0], prompt=["another", *GUARDED[1:]], batch_size=3)
    assert sample(home.config, out, *guard_flags(home)) == 2
    home.config.write_text(all_prompts)
    assert sample(home.config, out, *guard_flags(home)) == 0
    assert lines_of(out)[:3] == first and facts(out) == facts(home.out)
    assert {row["row"] for row in first if row["stopped"]}
    videos = [sorted(path.name for path in (at / "videos").iterdir()) for at in (out, home.out)]
    assert videos[0] == videos[1]
    assert (out / "pred_x0.pth").read_bytes() == (home.out / "pred_x0.pth").read_bytes()
