"""How the shipped weights are made: the drawn world, the training loop, the whole script."""

import numpy as np
import pytest
import torch
from torch import nn

from lvd.utils.video import write_mp4
from lvd.x0.file import create_x0_file
from MagicTime.prepare_weights.tiny import contact_sheet, make_tiny, training
from MagicTime.prepare_weights.tiny.world import (
    CATEGORIES,
    COLOURS,
    PLACES,
    Scene,
    caption,
    random_scene,
    render,
)
from tests.worlds import magictime_world  # noqa: F401  (puts the tiny world's folder on the path)


def test_clips_show_what_the_scene_says():
    clip = render(Scene("red", "circle", "at night", "right"))
    assert clip.shape == (8, 64, 64, 3) and clip.dtype == np.uint8
    assert (
        tuple(clip[0, 0, 0]) == PLACES["at night"][0]
        and tuple(clip[0, 63, 0]) == PLACES["at night"][1]
    )
    red = np.abs(clip.astype(int) - COLOURS["red"]).max(-1) < 105  # covered by half or more
    area = red.sum((1, 2))
    assert np.all(np.abs(area - np.pi * 13**2) < 15)  # a circle of radius 13 px, in every frame
    centre = [np.argwhere(frame).mean(0) for frame in red]
    assert np.allclose([c[0] for c in centre], centre[0][0], atol=0.2)
    assert np.allclose(
        np.diff([c[1] for c in centre]), 30 / 7, atol=0.3
    )  # 30 px to the right over 7 intervals


def test_growing_scenes_grow():
    clip = render(Scene("blue", "square", "in the snow", "still", grows=True)).astype(int)
    side = 2 * 0.88 * np.linspace(4, 22, 8)
    area = (np.abs(clip - COLOURS["blue"]).max(-1) < 90).sum((1, 2))
    assert np.allclose(np.sqrt(area), side, atol=1.5)


@pytest.mark.parametrize("effect", CATEGORIES)
def test_every_effect_can_be_seen_in_a_frame_and_in_motion(effect):
    plain = render(Scene("yellow", "star", "at sea", "still")).astype(int)
    clip = render(Scene("yellow", "star", "at sea", "still", effects=(effect,))).astype(int)
    different = (np.abs(clip - plain).max(-1) > 30).mean((1, 2))
    assert (
        different > 0.03
    ).sum() >= 4  # at least half of the frames look different from a plain one
    assert (
        np.all(plain == plain[0]) and (np.abs(np.diff(clip, axis=0)).max(-1) > 30).mean() > 0.02
    )  # and it moves


def test_scenes_and_captions_are_seeded():
    first, again = (
        [caption(random_scene(rng, ("warped",)), rng) for _ in range(20)]
        for rng in (np.random.default_rng(3), np.random.default_rng(3))
    )
    assert first == again and len(set(first)) > 15


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def loss(self, step, rng):
        x = torch.from_numpy(rng.standard_normal((8, 4))).float()
        return ((self.layer(x + 0.1 * torch.randn_like(x)) - x.sum(1, keepdim=True)) ** 2).mean()


def toy():
    torch.manual_seed(1)
    return Toy()


def test_a_killed_stage_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 4)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    model = toy()
    expected = training.train_stage("toy", whole, model, 12, model.loss, lr=0.05, seed=7, ema=0.5)

    broken = toy()

    def until_killed(step, rng):
        if step == 6:
            raise KeyboardInterrupt
        return broken.loss(step, rng)

    with pytest.raises(KeyboardInterrupt):
        training.train_stage("toy", killed, broken, 12, until_killed, lr=0.05, seed=7, ema=0.5)
    resumed = toy()
    steps = []
    result = training.train_stage(
        "toy",
        killed,
        resumed,
        12,
        lambda s, r: (steps.append(s), resumed.loss(s, r))[1],
        lr=0.05,
        seed=7,
        ema=0.5,
    )
    assert steps == list(range(4, 12))
    assert all(torch.equal(a, b) for a, b in zip(result.parameters(), expected.parameters()))
    assert (result.layer.weight - 1).abs().max() < (
        toy().layer.weight - 1
    ).abs().max()  # it learned something


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--clips", "15"], "--clips 15"),
        (["--seed", "-1"], "--seed -1"),
        (["--shorten", "0"], "--shorten 0.0"),
        (["--shorten", "1.5"], "--shorten 1.5"),
        (["--shorten", "nan"], "--shorten nan"),
    ],
)
def test_flags_that_make_no_world(tmp_path, capsys, flags, said):
    assert (
        make_tiny.main(
            ["--work_dir", str(tmp_path / "work"), "--save_dir", str(tmp_path / "Tiny"), *flags]
        )
        == 2
    )
    assert said in capsys.readouterr().err and not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--seed", "8"], "seed=7"),
        (["--clips", "17"], "clips=16"),
        (["--shorten", "0.002"], "shorten=0.001"),
    ],
)
def test_a_work_folder_of_other_flags_is_refused(tmp_path, capsys, flags, said):
    args = [
        "--work_dir",
        str(tmp_path),
        "--save_dir",
        str(tmp_path / "Tiny"),
        "--seed",
        "7",
        "--clips",
        "16",
        "--shorten",
        "0.001",
    ]
    make_tiny.check(make_tiny.build_parser().parse_args(args))
    assert make_tiny.main([*args, *flags]) == 2
    assert said in capsys.readouterr().err and [p.name for p in tmp_path.iterdir()] == [
        "config.yaml"
    ]


def recorded_run(folder, rows):
    """A sampling run's folder with `rows` of two videos recorded."""
    with create_x0_file(folder / "pred_x0.pth", 2, 1, (4, 2, 1, 1), torch.float32, {}) as writer:
        for row in range(rows):
            writer.write_row(
                row,
                torch.zeros(1, 4, 2, 1, 1),
                {"prompt": f"video {row}", "seed": 0, "timesteps": [1]},
            )
            write_mp4(
                folder / "videos" / f"{row:04d}.mp4", np.full((2, 64, 64, 3), 99, np.uint8), 8, 12
            )
    return folder


def test_contact_sheet(tmp_path, capsys):
    run, empty, sheet = (
        recorded_run(tmp_path / "run", 2),
        recorded_run(tmp_path / "empty", 0),
        tmp_path / "sheet.png",
    )
    args = ["--save_path", str(sheet), "--run_dir", str(run)]
    for flag, value in (("--count", "0"), ("--columns", "0"), ("--count", "-1")):
        assert contact_sheet.main([*args, flag, value]) == 2
        assert f"{flag} {value}" in capsys.readouterr().err
    assert contact_sheet.main(["--save_path", str(sheet), "--run_dir", str(empty)]) == 2
    assert "no video" in capsys.readouterr().err and not sheet.exists()
    assert contact_sheet.main(args) == 0 and sheet.exists()


@pytest.mark.slow
def test_the_whole_script(tmp_path, capsys):
    from MagicTime.utils.weights.load import load_magictime

    args = [
        "--work_dir",
        str(tmp_path / "work"),
        "--save_dir",
        str(tmp_path / "Tiny"),
        "--shorten",
        "0.001",
        "--clips",
        "16",
    ]
    assert make_tiny.main(args) == 0
    weights = tmp_path / "Tiny"
    paths = {
        "pretrained_model_path": weights / "Base_Model" / "stable-diffusion-v1-5",
        "motion_module": weights / "Base_Model" / "motion_module" / "motion_module.ckpt",
        "dreambooth_path": weights / "DreamBooth" / "TinyWorld.safetensors",
        "magic_adapter_s_path": weights
        / "Magic_Weights"
        / "magic_adapter_s"
        / "magic_adapter_s.ckpt",
        "magic_adapter_t_path": weights / "Magic_Weights" / "magic_adapter_t",
        "magic_text_encoder_path": weights / "Magic_Weights" / "magic_text_encoder",
    }
    loaded = load_magictime(paths, None)
    trained = torch.load(tmp_path / "work" / "clip.pt", weights_only=True)["average"]
    adapters = torch.load(tmp_path / "work" / "adapters.pt", weights_only=True)["average"]
    name = "down_blocks.0.motion_modules.0.proj_in"
    update = (
        adapters[f"unet.{name}.parametrizations.weight.0.up"]
        @ adapters[f"unet.{name}.parametrizations.weight.0.down"]
    )
    expected = trained[f"unet.{name}.weight"] + 2 * update
    assert torch.allclose(
        loaded.unet.get_submodule(name).weight, expected, atol=2e-3
    )  # float16 files
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "work").glob("*.pt")}
    assert make_tiny.main(args) == 0  # finished stages are loaded, not run again
    assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "work").glob("*.pt")}
