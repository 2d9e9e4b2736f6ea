"""MagicTime/inference_magictime.py as a user runs it: what it writes, how it goes on after a kill,
what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from lvd.errors import InputError
from lvd.utils.video import read_mp4
from lvd.x0.file import open_x0_file
from MagicTime import inference_magictime
from MagicTime.utils.config import WEIGHTS, read_config
from MagicTime.utils.prompts import read_prompts, read_source
from MagicTime.utils.run import Run
from tests.worlds import forked, magictime_world
from tests.worlds.refusals import refused
from tests.worlds.sampler_command import command, sample

SCRIPT = magictime_world.ROOT / "MagicTime" / "inference_magictime.py"


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    """(folder, config path) of a finished run of three prompts, batches of two."""
    folder = tmp_path_factory.mktemp("finished")
    config = magictime_world.write_config(
        folder / "c.yaml", world[0], save_predx_t=True, format="both"
    )
    assert sample(config, folder / "out", "--filmstrips", 2) == 0
    return folder / "out", config


def test_what_a_run_writes(finished):
    out, _ = finished
    names = [f"000{i}.{kind}" for i in range(3) for kind in ("gif", "mp4")]
    assert sorted(p.name for p in (out / "videos").iterdir()) == names
    for i in range(3):
        assert read_mp4(out / "videos" / f"000{i}.mp4").shape == (4, 32, 32, 3)
    x0, x_t = open_x0_file(out / "pred_x0.pth"), open_x0_file(out / "pred_x_t.pth")
    assert x0.rows == x_t.rows == [0, 1, 2]
    assert (
        x0.tensor.shape == x_t.tensor.shape == (3, 4, 4, 4, 4, 4)
        and x0.tensor.dtype == torch.float32
    )
    assert x0.info[1] == {"prompt": "two dots", "seed": 8, "timesteps": [751, 501, 251, 1]}
    assert x0.meta["x0_mode"] == "true" and x0.meta["scaling_factor"] == 0.18215
    torch.testing.assert_close(
        x0.tensor[:, -1], x_t.tensor[:, -1]
    )  # the last x0 is the finished video
    assert yaml.safe_load((out / "config.yaml").read_text())["seed"] == [7]
    assert sorted(p.name for p in (out / "filmstrips").iterdir()) == ["0000.png", "0001.png"]
    assert not [p for p in out.rglob("*") if "partial" in p.name]


def test_the_video_shows_the_latents(finished, model):
    """H.264 at high quality and halved chroma: close to the decoded latents, not equal."""
    from MagicTime.utils.pipeline import decode, to_bytes

    out, _ = finished
    latents = open_x0_file(out / "pred_x_t.pth").tensor[2, -1]
    expected = to_bytes(decode(model.vae, latents)).astype(float)
    found = read_mp4(out / "videos" / "0002.mp4").astype(float)
    assert abs(expected.mean(-1) - found.mean(-1)).mean() < 12 < expected.std()


def test_a_repeated_command_makes_nothing_new(finished, capsys):
    out, config = finished
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    assert sample(config, out) == 0
    assert "0 new, 3 of 3" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before


def test_what_is_lost_is_made_again_bit_for_bit(finished, tmp_path):
    """Gone: a video. Garbage: the data of a row that the sidecar does not call whole."""
    out, config = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "videos" / "0000.mp4").unlink()
    sidecar = json.loads((copy / "pred_x0.json").read_text())
    del sidecar["rows"]["2"]
    (copy / "pred_x0.json").write_text(json.dumps(sidecar))
    mapped = open_x0_file(copy / "pred_x0.pth").tensor
    mapped[2] = 7.0
    del mapped
    assert sample(config, copy) == 0
    for name in (
        "pred_x0.pth",
        "pred_x_t.pth",
        "videos/0000.mp4",
        "videos/0002.mp4",
        "videos/0002.gif",
    ):
        assert (copy / name).read_bytes() == (out / name).read_bytes(), name


@pytest.mark.slow
def test_resume_after_a_kill(world, tmp_path):
    """Killed when some videos are there: the same command ends with what an unbroken run has."""
    config = magictime_world.write_config(
        tmp_path / "c.yaml", world[0], steps=12, prompt=[f"prompt {i}" for i in range(12)]
    )
    process = forked.start(SCRIPT, *command(config, tmp_path / "killed"))
    deadline = time.time() + 120
    while (
        not (tmp_path / "killed" / "videos" / "0002.mp4").exists()
        and time.time() < deadline
        and process.poll() is None
    ):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < len(open_x0_file(tmp_path / "killed" / "pred_x0.pth").rows) < 12
    assert sample(config, tmp_path / "killed") == 0
    assert sample(config, tmp_path / "unbroken") == 0
    names = ["pred_x0.pth", *(f"videos/{i:04d}.mp4" for i in range(12))]
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (
            tmp_path / "unbroken" / name
        ).read_bytes(), name


def test_limit_then_the_rest(world, tmp_path, capsys):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    assert sample(config, tmp_path / "out", "--limit", 1) == 0
    assert open_x0_file(tmp_path / "out" / "pred_x0.pth").rows == [0]
    assert sample(config, tmp_path / "out", "--batch_size", 3) == 0
    assert "2 new, 3 of 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limit", "said", "of_all"),
    [(None, "3", False), (2, "2 now, the first of 3", True), (9, "3", False)],
)
def test_a_dry_run_says_how_many_are_sampled_now(world, tmp_path, capsys, limit, said, of_all):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    flags = ["--limit", limit] if limit else []
    assert sample(config, tmp_path / "out", "--dry-run", *flags) == 0
    shown = capsys.readouterr().out
    assert f"prompts: {said}" in shown and ("and for all prompts" in shown) == of_all
    assert "pred_x0.pth [3, " in shown  # the file is made for all prompts at once


def test_x0_in_released_mode_and_half_precision(world, tmp_path, finished):
    config = magictime_world.write_config(
        tmp_path / "c.yaml", world[0], x0_mode="released", x0_dtype="float16", format="gif"
    )
    assert sample(config, tmp_path / "out") == 0
    x0 = open_x0_file(tmp_path / "out" / "pred_x0.pth")
    assert x0.tensor.dtype == torch.float16 and x0.meta["x0_mode"] == "released"
    true = open_x0_file(finished[0] / "pred_x0.pth").tensor
    assert (x0.tensor[:, 0].float() - true[:, 0]).abs().max() > 0.1
    assert [p.suffix for p in (tmp_path / "out" / "videos").iterdir()] == [".gif"] * 3


def test_x0_is_not_recorded_when_not_wanted(world, tmp_path):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], save_predx_0=False)
    assert sample(config, tmp_path / "out", "--limit", 1) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.yaml", "videos"]


# ---- seeds


def seeds_of_run(world, folder, **changes):
    config = magictime_world.write_config(folder / "c.yaml", world[0], steps=1, **changes)
    assert sample(config, folder / "out") == 0
    x0 = open_x0_file(folder / "out" / "pred_x0.pth")
    return [x0.info[row]["seed"] for row in x0.rows]


@pytest.mark.parametrize(
    "seed, per_prompt, expected",
    [([5], False, [5, 5, 5]), (5, True, [5, 6, 7]), ([9, 8, 2], False, [9, 8, 2])],
)
def test_seed_rules(world, tmp_path, seed, per_prompt, expected):
    assert seeds_of_run(world, tmp_path, seed=seed, seed_per_prompt=per_prompt) == expected


def test_fresh_seeds_are_recorded_and_kept_by_a_resumed_run(world, tmp_path):
    first = seeds_of_run(world, tmp_path, seed=[-1], seed_per_prompt=False)
    assert (
        len(set(first)) == 3 and json.loads((tmp_path / "out" / "seeds.json").read_text()) == first
    )
    (tmp_path / "out" / "videos" / "0001.mp4").unlink()
    assert seeds_of_run(world, tmp_path, seed=[-1], seed_per_prompt=False) == first


def test_a_file_of_drawn_seeds_that_does_not_fit(world, tmp_path, capsys):
    """Left over from another run: never mistaken for the config's seeds."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "seeds.json").write_text("[1, 2, 3]")
    assert seeds_of_run(world, tmp_path, seed=[5], seed_per_prompt=False) == [5, 5, 5]
    for text in ("{}", "[1, 2]", '["a", 2, 3]'):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / "seeds.json").write_text(text)
        config = magictime_world.write_config(
            tmp_path / "d.yaml", world[0], seed=[-1], seed_per_prompt=False
        )
        assert "seeds.json: 3 whole numbers" in refused(sample(config, tmp_path / "two"), capsys)


def test_two_runs_do_not_share_a_folder(world, tmp_path, capsys):
    """Not even without a recording, whose own lock would tell."""
    config = read_config(
        magictime_world.write_config(tmp_path / "c.yaml", world[0], save_predx_0=False)
    )
    prompts = read_source(config.settings, config.path)
    first, second = (Run(config, prompts, tmp_path / "out", torch.device("cpu")) for _ in range(2))
    first.load()
    with pytest.raises(InputError, match="another running process is writing into this folder"):
        second.load()
    assert first.sample(1) == 1
    second.load()
    assert second.sample(1) == 0


# ---- where it runs, and what the original's YAML looks like


def test_a_yaml_of_the_original_from_inside_magictime(world, tmp_path, monkeypatch):
    """None of our own keys, weights by relative paths, no --save-path."""
    ours = ("seed_per_prompt", "batch_size", "x0_dtype")
    block = magictime_world.model_block(world[0])
    weights = {
        key: os.path.relpath(block[key], magictime_world.ROOT / "MagicTime") for key in WEIGHTS
    }
    config = magictime_world.write_config(
        tmp_path / "Original.yaml", world[0], **dict.fromkeys(ours, ...), **weights
    )
    monkeypatch.chdir(magictime_world.ROOT / "MagicTime")
    out = os.path.relpath(tmp_path / "out", ".")
    assert (
        inference_magictime.main(
            ["--config", str(config), "--gpu_num", "-1", "--limit", "1", "--save-path", out]
        )
        == 0
    )
    x0 = open_x0_file(tmp_path / "out" / "pred_x0.pth")
    assert x0.tensor.dtype == torch.float16 and x0.info[0]["seed"] == 7


@pytest.mark.parametrize(
    "folder, script",
    [(".", "MagicTime/inference_magictime.py"), ("MagicTime", "inference_magictime.py")],
)
def test_help_from_both_folders(folder, script):
    shown = subprocess.run(
        [sys.executable, script, "--help"],
        cwd=magictime_world.ROOT / folder,
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0 and "example:" in shown.stdout


@pytest.mark.parametrize("name", ["RealisticVision", "ToonYou", "RcnzCartoon", "Tiny"])
def test_sample_configs_are_readable(name):
    config = read_config(f"sample_configs/{name}.yaml")
    assert config.settings.steps == 50
    assert config.unet.motion == {"heads": 8, "max_length": 32, "mid_block": False}
    if name != "Tiny":
        sizes = {
            key: getattr(config.settings, key)
            for key in ("H", "W", "L", "guidance_scale", "n_prompt")
        }
        negative = ["worst quality, low quality, letterboxed"]
        assert sizes == {"H": 512, "W": 512, "L": 16, "guidance_scale": 8.5, "n_prompt": negative}


# ---- bad input


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"stepz": 50}, "unknown key 'stepz'"),
        ({"steps": ...}, "'steps' is missing"),
        ({"H": ...}, "'H' is missing"),
        ({"pretrained_model_path": ...}, "'pretrained_model_path' is missing"),
        ({"pretrained_model_path": ""}, "is empty"),
        ({"pretrained_model_path": "nowhere"}, "pretrained_model_path=nowhere"),
        ({"motion_module": "no.ckpt"}, "motion_module=no.ckpt"),
        ({"H": 40}, "H=40, a multiple of 32"),
        ({"W": 8}, "W=8"),
        ({"L": 33}, "L=33 frames"),
        ({"L": 0}, "L=0"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"steps": 1001}, "1001"),
        ({"steps": 1000}, "timestep 1000"),
        ({"guidance_scale": "high"}, "guidance_scale"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"x0_mode": "old"}, "x0_mode='old'"),
        ({"x0_dtype": "int8"}, "x0_dtype"),
        ({"format": "avi"}, "format='avi'"),
        ({"save_predx_0": "yes"}, "save_predx_0"),
        ({"seed": [1, 2], "seed_per_prompt": False}, "seed has 2 entries, 1 or 3"),
        ({"seed": ["a"]}, "seed 'a'"),
        ({"seed": [-1]}, "seed_per_prompt"),
        ({"n_prompt": ["a", "b"]}, "n_prompt has 2"),
        ({"prompt": []}, "file_path or a list of prompts"),
        ({"prompt": ["a", " "]}, "prompts"),
        ({"file_path": "none.txt"}, "none.txt"),
        ({"scheduler": {"beta_schedule": "wavy"}}, "wavy"),
        ({"scheduler": {"gamma": 1}}, "unknown key 'gamma'"),
    ],
)
def test_bad_yaml(world, tmp_path, capsys, changes, said):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], **changes)
    message = refused(sample(config, tmp_path / "out"), capsys)
    assert said in message and ("prepare_weights/download.py" in message) == (
        "nowhere" in said or "no.ckpt" in said
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("use_inflated_groupnorm", False, "use_inflated_groupnorm"),
        ("motion_module_resolutions", [1, 2], "resolutions=[1, 2]"),
        ("motion_module_type", "Fancy", "Fancy"),
        ("nonsense", 1, "unknown key 'nonsense'"),
        ("motion_module_kwargs", {"temporal_position_encoding_max_len": 3}, "reaches 3"),
        ("motion_module_kwargs", {"num_attention_heads": 0}, "heads=0"),
    ],
)
def test_bad_unet_block(world, tmp_path, capsys, key, value, said):
    blocks = [magictime_world.model_block(world[0]), magictime_world.inference_block()]
    blocks[1]["unet_additional_kwargs"][key] = value
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(blocks))
    assert said in refused(sample(tmp_path / "c.yaml", tmp_path / "out"), capsys)


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "a list of two blocks"),
        ("a: 1", "a list of two blocks"),
        ("- a: [", "not valid YAML"),
        ("- 1\n- 2", "a mapping"),
    ],
)
def test_bad_yaml_file(tmp_path, capsys, text, said):
    (tmp_path / "c.yaml").write_text(text)
    assert said in refused(sample(tmp_path / "c.yaml", tmp_path / "out"), capsys)
    for name in (tmp_path / "absent.yaml", "absent.yaml"):
        message = refused(sample(name, tmp_path / "out"), capsys)
        assert (
            f"{name}: no such file (looked in the current folder, MagicTime/ and the repository "
            "root)" in message
        )
        assert "MagicTime/sample_configs" in message


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "no prompts"),
        (b"\n\n", "no prompts"),
        (b"a\n\nb\n", "line 2 is blank"),
        (b"a\n  \nb", "line 2 is blank"),
        (b"a\nb\xff\n", "UTF-8"),
    ],
)
def test_bad_prompt_file(world, tmp_path, capsys, content, said):
    (tmp_path / "p.txt").write_bytes(content)
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    message = refused(sample(config, tmp_path / "out", "--file_path", tmp_path / "p.txt"), capsys)
    assert said in message and "p.txt" in message


def test_good_prompt_file(tmp_path):
    (tmp_path / "p.txt").write_bytes("\ufeffone\r\nzwei \u2028 drei\r\n".encode())
    assert read_prompts(tmp_path / "p.txt") == ["one", "zwei \u2028 drei"]


def test_wrong_flags(world, tmp_path, capsys):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    assert "--limit 0" in refused(sample(config, tmp_path / "out", "--limit", 0), capsys)
    assert "--config" in refused(inference_magictime.main([]), capsys)
    assert "--frobnicate" in refused(sample(config, tmp_path / "out", "--frobnicate"), capsys)


def test_folder_of_another_config_is_refused_and_kept(finished, world, tmp_path, capsys):
    out, _ = finished
    before = (out / "pred_x0.json").read_bytes()
    for change, said in (
        ({"guidance_scale": 2.0}, "guidance_scale=3.0"),
        (
            {"prompt": ["x", "two dots", "z"]},
            "row 0 was recorded with prompt 'a red square', now it is 'x'; ",
        ),
    ):
        config = magictime_world.write_config(
            tmp_path / "c.yaml", world[0], save_predx_t=True, format="both", **change
        )
        assert said in refused(sample(config, out), capsys)
    assert (out / "pred_x0.json").read_bytes() == before


def test_truncated_recording_is_refused(finished, tmp_path, capsys):
    out, config = finished
    shutil.copytree(out, tmp_path / "copy")
    path = tmp_path / "copy" / "pred_x0.pth"
    path.write_bytes(path.read_bytes()[:5000])
    (tmp_path / "copy" / "videos" / "0000.mp4").unlink()
    assert "pred_x0.pth" in refused(sample(config, tmp_path / "copy"), capsys)


def test_broken_weights_leave_the_folder_free(world, tmp_path, capsys):
    """After a bad file is replaced, the same command works in the same folder."""
    config = magictime_world.write_config(
        tmp_path / "c.yaml", world[0], dreambooth_path=str(tmp_path / "d.safetensors")
    )
    good = magictime_world.model_block(world[0])["dreambooth_path"]
    (tmp_path / "d.safetensors").write_bytes(b"not weights")
    assert "d.safetensors" in refused(sample(config, tmp_path / "out"), capsys)
    shutil.copy(good, tmp_path / "d.safetensors")
    assert sample(config, tmp_path / "out", "--limit", 1) == 0


def test_replaced_weights_are_noticed(world, tmp_path, capsys):
    """A file of the same size, a file in the base folder: neither mixes with the videos that are
    there."""
    shutil.copytree(world[0] / "ckpts", tmp_path / "ckpts")
    config = magictime_world.write_config(tmp_path / "c.yaml", tmp_path, steps=1)
    assert sample(config, tmp_path / "out", "--limit", 1) == 0
    for key, name in (
        ("dreambooth_path", ""),
        ("pretrained_model_path", "vae/diffusion_pytorch_model.safetensors"),
    ):
        path = Path(magictime_world.model_block(tmp_path)[key]) / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        capsys.readouterr()
        said = refused(sample(config, tmp_path / "out"), capsys)
        assert f"after this folder was made, the files of {key} (" in said and "changed" in said
        path.write_bytes(whole)
    assert sample(config, tmp_path / "out", "--limit", 1) == 0


def test_a_run_of_another_kind_of_device_is_refused(finished, tmp_path, capsys):
    """Its noise would differ. The folder's config says cuda, as a GPU run writes it."""
    out, config = finished
    shutil.copytree(out, tmp_path / "out")
    path = tmp_path / "out" / "config.yaml"
    found = yaml.safe_load(path.read_text())
    assert found["device"] == "cpu"
    path.write_text(yaml.safe_dump(found | {"device": "cuda"}))
    assert "made with device='cuda', now it is 'cpu'" in refused(
        sample(config, tmp_path / "out"), capsys
    )


@pytest.mark.parametrize(
    "size, said",
    [(2, "batch_size=2: does not fit"), (1, "H=32, W=32, L=4: one video does not fit")],
)
def test_a_full_memory_says_what_helps(world, tmp_path, capsys, size, said):
    """The device's error is raised by hand from inside the UNet."""

    def full(*_):
        raise torch.OutOfMemoryError("full")

    config = read_config(
        magictime_world.write_config(tmp_path / "c.yaml", world[0], batch_size=size)
    )
    run = Run(
        config, read_source(config.settings, config.path), tmp_path / "out", torch.device("cpu")
    )
    run.load().unet.register_forward_pre_hook(full)
    with pytest.raises(InputError) as error:
        run.sample()
    assert said in str(error.value) and ("batch" in str(error.value)) == (size > 1)


def test_gpu_falls_back_to_the_cpu_with_one_line(world, tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    assert (
        inference_magictime.main(
            ["--config", str(config), "--save-path", str(tmp_path / "out"), "--limit", "1"]
        )
        == 0
    )
    assert "using the CPU" in capsys.readouterr().err
