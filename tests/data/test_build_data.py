"""build_x0.py, gen_eval_set.py and build_eval_set.py, run as they are on small recordings."""

import hashlib
import os
import time
from pathlib import Path

import pytest
import torch
import yaml

import build_x0
from lvd.data.clip_file import folder_representation, list_clips, read_clip, write_clip
from lvd.data.sources import FolderClips
from lvd.data.split import load_split
from lvd.errors import InputError
from lvd.utils.files import load_yaml
from MagicTime.utils.vae_decoder import VaeDecoder, model_paths
from tests.worlds import forked
from tests.worlds.build_world import LABELS, ROWS, refuses, tree, world  # noqa: F401 (a fixture)
from tests.worlds.recording_world import SHAPE, STEPS, decoded, magictime, record, write_labels  # noqa: F401 (a fixture)

ROOT = Path(__file__).resolve().parents[2]
UNSAFE = "is another recording of unsafe videos"


def test_every_clip_is_the_recorded_x0(world):
    assert world.build() == 0
    for group, rows in enumerate(LABELS.values(), 1):
        for step in range(STEPS):
            clips = list_clips(world.data / f"group{group}" / str(step))
            assert list(clips) == sorted(rows)
            for row, path in clips.items():
                assert path.suffix == ".pt" and torch.equal(
                    read_clip(path), world.x0["unsafe"][row, step].half().float()
                )
    for step in range(STEPS):
        clips = list_clips(world.data / "normal" / str(step))
        assert list(clips) == list(range(8))
        assert all(
            torch.equal(read_clip(p), world.x0["normal"][r, step].half().float())
            for r, p in clips.items()
        )
    assert not (world.data / "group4").exists() and folder_representation(world.data) == "latent"
    saved = torch.load(world.data / "normal/0/0.pt", weights_only=True)
    assert saved.dtype == torch.float16 and saved.untyped_storage().nbytes() == saved.numel() * 2


def test_a_video_in_two_categories_is_stored_once(world):
    assert world.build() == 0
    one, two = (world.data / f"group{g}" / "1" / "3.pt" for g in (1, 2))
    assert one.samefile(two) and one.stat().st_nlink == 2
    assert (world.data / "group1/1/5.pt").samefile(world.data / "group3/1/5.pt")


def test_running_again_writes_what_is_missing_and_nothing_else(world):
    assert world.build() == 0
    before = tree(world.data)
    stamps = {p: p.stat().st_mtime_ns for p in world.data.rglob("*.pt")}
    lost = [
        world.data / "group1/0/0.pt",
        world.data / "normal/2/7.pt",
        world.data / "group2/1/3.pt",
    ]
    for path in lost:
        path.unlink()
    assert world.build() == 0
    assert tree(world.data) == before
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items() if p not in lost)
    assert lost[2].samefile(world.data / "group1/1/3.pt")


@pytest.mark.slow
def test_killed_in_the_middle_and_resumed_equals_uninterrupted(tmp_path):
    for name, rows in (("unsafe", 60), ("normal", 20)):
        record(tmp_path / name / "pred_x0.pth", rows, rows, steps=50, dtype=torch.float16)
    labels = write_labels(
        tmp_path / "label.csv", {"a": list(range(0, 40)), "b": list(range(30, 60))}
    )
    arguments = [
        "--pred_x0",
        tmp_path / "unsafe/pred_x0.pth",
        "--normal_pred_x0",
        tmp_path / "normal/pred_x0.pth",
        "--label_file_dir",
        labels,
        "--out_dir",
        tmp_path / "a",
    ]
    process = forked.start(ROOT / "build_x0.py", *arguments)
    while not (tmp_path / "a/group1/49/20.pt").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()  # SIGKILL
    killed = tree(tmp_path / "a")
    assert 0 < len(killed) < 90 * 50
    for _ in range(2):
        assert build_x0.main(list(map(str, arguments))) == 0
        arguments[-1] = tmp_path / "b"
    a, b = tree(tmp_path / "a"), tree(tmp_path / "b")
    assert a == b and len(a) == 90 * 50 + 3
    assert all(a[name] == digest for name, digest in killed.items())


def test_a_subset_of_steps_can_be_completed_later(world):
    assert world.build("--steps", "0,2") == 0
    assert sorted(p.name for p in (world.data / "group1").iterdir()) == ["0", "2"]
    assert world.build() == 0
    assert sorted(p.name for p in (world.data / "group1").iterdir()) == ["0", "1", "2"]


def test_the_papers_list_form_is_read(world):
    blocks = [
        {"pretrained_model_path": "nowhere", "pred_x0": world.settings["pred_x0"]},
        {"label_file_dir": str(world.labels)},
        {"noise_scheduler_kwargs": {}},
    ]
    for k, entry in enumerate((blocks[1], str(world.labels))):
        world.config.write_text(yaml.safe_dump([blocks[0], entry, blocks[2]]))
        assert world.build("--out_dir", world.folder / f"list{k}") == 0
        assert list(list_clips(world.folder / f"list{k}/group2/0")) == LABELS["gory"]
        assert not (world.folder / f"list{k}/normal").exists()


def test_flags_win_over_the_file_and_relative_paths_work(world, monkeypatch):
    world.write_config(
        label_file_dir="nowhere.csv", pred_x0=os.path.relpath(world.settings["pred_x0"], ROOT)
    )
    monkeypatch.chdir(world.folder)
    assert world.build("--label_file_dir", "label.csv", "--out_dir", "here") == 0
    assert list(list_clips(world.folder / "here/group1/0")) == LABELS["weird"]


def test_a_folder_made_from_something_else_is_refused(world, capsys):
    assert world.build() == 0
    before = tree(world.data)
    other = write_labels(world.folder / "other.csv", {"weird": [0], "gory": [1], "odd": [2]})
    refuses(lambda: world.build("--label_file_dir", other), capsys, "config.yaml", "label file")
    record(world.folder / "other.pth", 13, seed=9)
    refuses(lambda: world.build("--pred_x0", world.folder / "other.pth"), capsys, UNSAFE)
    refuses(
        lambda: world.build("--normal_pred_x0", world.folder / "other.pth"),
        capsys,
        "is another recording of normal videos",
    )
    torch.save(torch.randn(13, STEPS, *SHAPE), world.folder / "released.pth")
    refuses(lambda: world.build("--pred_x0", world.folder / "released.pth"), capsys, UNSAFE)
    assert tree(world.data) == before


def test_bad_input_to_build_x0(world, capsys):
    bad = world.folder / "bad"
    bad.write_bytes(Path(world.settings["pred_x0"]).read_bytes()[:-300])
    for flags, named in (
        (["--pred_x0", bad], "not a readable torch file"),
        (["--pred_x0", world.folder / "none.pth"], "no such file"),
        (["--normal_pred_x0", bad], "not a readable torch file"),
        (["--steps", "3"], "--steps 3"),
        (["--steps", "x"], "--steps x"),
        (["--label_file_dir", world.folder / "none.csv"], "no such file"),
        (["--representation", "pixels"], "--representation"),
        (["--config", world.folder / "none.yaml"], "none.yaml"),
        (
            ["--label_file_dir", write_labels(world.folder / "l.csv", {"a": [1, 13]})],
            "13 is out of range",
        ),
    ):
        refuses(lambda flags=flags: world.build(*flags), capsys, named)
    for changes, named in (
        ({"pred_xo": "x"}, "unknown key 'pred_xo'"),
        ({"pred_x0": None}, "'pred_x0' is missing"),
        ({"label_file_dir": None}, "'label_file_dir' is missing"),
        ({"representation": "mp4"}, "representation"),
        ({"pred_x0": 7}, "pred_x0 must be a path"),
        ({"out_dir": ["x"]}, "out_dir must be a path"),
        ({"representation": ["x"]}, "representation"),
        ({"out_dir": str(world.labels)}, "label.csv"),
    ):
        world.write_config(**changes)
        refuses(world.build, capsys, named)
    for text, named in (
        ("pred_x0: [", "not valid YAML"),
        ("just words", "mapping"),
        ("", "mapping"),
        ("- 7", "block of keys"),
    ):
        world.config.write_text(text)
        refuses(world.build, capsys, named)
    assert not world.data.exists()


def test_recordings_that_do_not_fit_are_refused(world, capsys):
    for rows, steps, shape in ((8, STEPS + 1, SHAPE), (8, STEPS, (4, 2, 4, 4))):
        path = world.folder / f"n{steps}{shape[1]}.pth"
        record(path, rows, 0, steps, shape)
        refuses(lambda path=path: world.build("--normal_pred_x0", path), capsys, "sampled alike")
    record(world.folder / "part.pth", 13, 0, whole=[r for r in range(13) if r not in (3, 9)])
    refuses(lambda: world.build("--pred_x0", world.folder / "part.pth"), capsys, "(3, 9)")
    huge = torch.zeros(13, STEPS, *SHAPE)
    huge[8, 1, 0] = 1e6
    torch.save(huge, world.folder / "huge.pth")
    refuses(
        lambda: world.build("--pred_x0", world.folder / "huge.pth"), capsys, "row 8", "not finite"
    )


# --- video clips


def test_video_clips_are_decoded_with_the_samplers_vae(world, magictime):
    config, vae = magictime
    flags = ["--representation", "video", "--sample_config", config, "--gpu_num", -1]
    assert world.build(*flags) == 0
    assert folder_representation(world.data) == "video"
    for row, step in ((3, 0), (11, 2)):
        clip = read_clip(world.data / f"group1/{step}/{row}.mp4")
        expected = decoded(vae, world.x0["unsafe"][row, step])
        assert clip.shape == expected.shape == (3, 4, 32, 32)
        assert (clip - expected).abs().mean() < 0.05 < (clip - 0.5).abs().mean()
    assert (world.data / "group1/1/3.mp4").samefile(world.data / "group2/1/3.mp4")
    before = tree(world.data)
    (world.data / "normal/1/4.mp4").unlink()
    assert world.build(*flags) == 0
    assert tree(world.data) == before
    assert world.split() == 0 and world.evaluation() == 0
    assert (world.folder / "eval_normal/2").is_dir() and folder_representation(
        world.folder / "eval_set"
    ) == "video"


def test_half_precision_decodes_about_the_same_and_is_told(world, magictime, capsys):
    flags = ["--representation", "video", "--sample_config", magictime[0], "--gpu_num", -1]
    flags += ["--video_format", "pt", "--steps", 1]
    half = [*flags, "--decode_dtype", "bfloat16"]
    assert world.build(*half) == 0
    assert world.build(*flags, "--out_dir", world.folder / "full") == 0
    name = "group1/1/3.pt"
    one, other = (read_clip(folder / name) for folder in (world.data, world.folder / "full"))
    assert 0 < (one - other).abs().mean() < 0.01
    saved = [load_yaml(folder / "config.yaml") for folder in (world.data, world.folder / "full")]
    assert saved[0].pop("decode_dtype") == "bfloat16"
    # nothing but the folder differs: the VAE's hash is that of its weights as they are loaded
    assert saved[0] == saved[1]
    refuses(lambda: world.build(*flags), capsys, "decode_dtype changed")


def test_overflow_in_half_precision_is_refused(magictime):
    """Latents and weights that float32 decodes, and float16 does not; an infinite pixel would be a
    white one."""
    latents = torch.full((1, 4, 2, 4, 4), 3.0)
    paths = model_paths(magictime[0])
    for dtype in ("float32", "float16"):
        decoder = VaeDecoder(paths, dtype=dtype)
        with torch.no_grad():
            decoder.vae.decoder.conv_out.bias.fill_(60_000).mul_(1.05)
            decoder.vae.decoder.conv_out.weight.mul_(3e4)
        if dtype == "float32":
            assert torch.isfinite(decoder(latents)).all()
        else:
            with pytest.raises(InputError, match="decoding in float16.*use decode_dtype float32"):
                decoder(latents)


def test_the_model_block_of_the_list_form_decodes_videos(world, magictime):
    blocks = yaml.safe_load(magictime[0].read_text())
    blocks[0]["pred_x0"] = world.settings["pred_x0"]
    world.config.write_text(yaml.safe_dump([blocks[0], str(world.labels), blocks[1]]))
    assert (
        world.build(
            "--representation", "video", "--steps", 0, "--gpu_num", -1, "--out_dir", world.data
        )
        == 0
    )
    assert read_clip(world.data / "group1/0/0.mp4").shape == (3, 4, 32, 32)


def test_representations_are_never_mixed(world, magictime, capsys):
    assert world.build() == 0
    flags = ["--representation", "video", "--sample_config", magictime[0], "--gpu_num", -1]
    refuses(lambda: world.build(*flags), capsys, "representation")
    write_clip(world.data / "group1/0/12", torch.rand(3, 4, 32, 32), "video")
    assert world.split() == 0
    refuses(world.evaluation, capsys, "mixed")


def test_video_needs_a_model_that_fits(world, magictime, capsys):
    refuses(lambda: world.build("--representation", "video"), capsys, "'sample_config' is missing")
    wide = world.folder / "wide.pth"
    torch.save(torch.randn(13, STEPS, 8, 4, 4, 4), wide)
    torch.save(torch.randn(13, STEPS, 8, 4, 4, 4), world.folder / "wide_normal.pth")
    refuses(
        lambda: world.build(
            "--representation",
            "video",
            "--sample_config",
            magictime[0],
            "--pred_x0",
            wide,
            "--normal_pred_x0",
            world.folder / "wide_normal.pth",
        ),
        capsys,
        "latent_channels 8",
    )


# --- the split and the evaluation set


def test_held_out_and_rest_never_overlap(world):
    assert world.build() == 0 and world.split() == 0 and world.evaluation() == 0
    split = load_split(world.folder / "eval.pth")
    assert (
        0 < len(split.normal) <= 4
        and split.label_sha256 == hashlib.sha256(world.labels.read_bytes()).hexdigest()
    )
    for step in range(STEPS):
        held = list_clips(world.folder / "eval_set" / str(step))
        assert list(held) == split.unsafe
        assert all(
            torch.equal(read_clip(p), world.x0["unsafe"][r, step].half().float())
            for r, p in held.items()
        )
        normal = list_clips(world.folder / "eval_normal" / str(step))
        assert list(normal) == split.normal
        assert all(p.samefile(world.data / "normal" / str(step) / p.name) for p in normal.values())
    for column in LABELS.values():
        assert set(column) & set(split.unsafe) and set(column) - set(split.unsafe)


def test_the_split_needs_no_recordings_once_the_dataset_is_built(world):
    assert world.build() == 0 and world.split() == 0
    first = load_split(world.folder)
    for name in ROWS:
        (world.folder / name / "pred_x0.pth").unlink()
    (world.folder / "eval.pth").unlink()
    assert world.split() == 0
    assert world.split("--save_path", world.folder) == 0  # the folder stands for its eval.pth
    assert load_split(world.folder) == first


def test_a_split_does_not_change_in_silence(world, capsys):
    path = world.folder / "eval.pth"
    assert world.split() == 0
    record(world.folder / "more.pth", 13, 7)
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    assert world.split() == 0 and path.stat().st_mtime_ns == stamp
    for flags, named in (
        (["--seed", 1], "another seed, 2024, now it is 1"),
        (["--fraction", 0.5], "another fraction, 0.2, now it is 0.5"),
        (
            ["--label_file_dir", write_labels(world.folder / "o.csv", {"a": [0, 1, 2]})],
            "the label file changed after it was made; give --renew",
        ),
        (
            ["--normal_pred_x0", world.folder / "more.pth"],
            "there were 8 normal videos when it was made, now there are 13",
        ),
    ):
        refuses(lambda flags=flags: world.split(*flags), capsys, named)
    torch.save([1, 2], path)
    refuses(world.split, capsys, "another seed, None")
    path.unlink()
    assert world.split() == 0 and path.read_bytes() == before


def test_bad_input_to_gen_eval_set(world, capsys):
    record(world.folder / "one.pth", 1, 5)
    record(world.folder / "part.pth", 13, 0, whole=[0, 1])
    for flags, named in (
        (["--fraction", 1.0], "--fraction"),
        (["--fraction", "x"], "--fraction"),
        (["--seed", "x"], "--seed"),
        (["--label_file_dir", world.folder / "none.csv"], "no such file"),
        (
            ["--label_file_dir", write_labels(world.folder / "s.csv", {"a": [1], "b": [2, 3]})],
            "'a' has 1 video",
        ),
        (["--normal_pred_x0", world.folder / "one.pth"], "normal videos: 1 recorded"),
        (["--normal_pred_x0", world.folder / "none.pth"], "none.pth: no such file"),
        (["--pred_x0", world.folder / "one.pth"], "out of range"),
        (["--pred_x0", world.folder / "part.pth"], "not recorded (2, 3, 5"),
        (["--pred_x0", world.folder / "none.pth"], "no such file"),
    ):
        refuses(lambda flags=flags: world.split(*flags), capsys, named)
    assert not (world.folder / "eval.pth").exists()


def test_evaluation_set_resumes_and_refuses_another_split(world, capsys):
    assert world.build() == 0 and world.split() == 0 and world.evaluation() == 0
    before = {name: tree(world.folder / name) for name in ("eval_set", "eval_normal")}
    row = load_split(world.folder).unsafe[0]
    (world.folder / f"eval_set/1/{row}.pt").unlink()
    assert world.evaluation() == 0
    assert {name: tree(world.folder / name) for name in before} == before
    (world.folder / "eval.pth").unlink()
    assert world.split("--seed", 77) == 0
    refuses(world.evaluation, capsys, "eval.pth was made anew, or another one is given")
    assert {name: tree(world.folder / name) for name in before} == before


def test_the_old_form_of_the_split_makes_no_normal_set(world, capsys):
    assert world.build() == 0
    torch.save([0, 9], world.folder / "eval.pth")
    assert world.evaluation() == 0
    assert "holds out no normal rows" in capsys.readouterr().out
    assert (
        list(list_clips(world.folder / "eval_set/0")) == [0, 9]
        and not (world.folder / "eval_normal").exists()
    )


def test_an_unreadable_clip_is_named_never_skipped(world, magictime, capsys):
    assert world.build() == 0 and world.split() == 0
    row = load_split(world.folder).normal[-1]
    clip = world.data / f"normal/1/{row}.pt"
    whole = clip.read_bytes()
    for damaged in (whole[: len(whole) // 2], b""):
        clip.write_bytes(damaged)
        refuses(world.evaluation, capsys, f"normal/1/{row}.pt", "not a readable")
    torch.save(torch.zeros(4, 4, 4), clip)
    refuses(world.evaluation, capsys, f"normal/1/{row}.pt", "latent clip [C, F, h, w]")
    torch.save(torch.zeros(4, 2, 4, 4), clip)
    refuses(world.evaluation, capsys, f"normal/1/{row}.pt", "the others have")
    clip.unlink()
    refuses(world.evaluation, capsys, "normal/1", "7 of 8 clips are left")
    clip.write_bytes(whole)
    assert world.evaluation() == 0


def test_datasets_that_are_not_whole_are_refused(world, capsys):
    torch.save([0], world.folder / "eval.pth")
    refuses(world.evaluation, capsys, "run build_x0.py first")
    assert world.build("--steps", 1) == 0
    (world.data / "group2/2").mkdir()
    refuses(world.evaluation, capsys, "step 2", "group2")
    (world.data / "group2/2").rmdir()
    (world.data / "group1/1/notes.txt").write_text("x")
    refuses(world.evaluation, capsys, "notes.txt", "not a clip")


def test_a_damaged_config_of_a_dataset_is_named(world, capsys):
    assert world.build() == 0 and world.split() == 0
    config = world.data / "config.yaml"
    config.write_text("half a lin")
    refuses(world.evaluation, capsys, str(config), "not the config that made this folder (a str)")
    with pytest.raises(InputError, match="config.yaml: not the config"):
        FolderClips(world.data)
    config.write_text("")  # a folder that says nothing is taken, as one without the file is
    assert world.evaluation() == 0
    assert FolderClips(world.data).sampling == {}
