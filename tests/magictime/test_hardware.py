"""Fitting the sampler to the machine: what may change a video, what may not, and what cannot run
here."""

import os
import shutil

import pytest
import torch

from lvd.x0.file import open_x0_file
from MagicTime.utils import config as sampling_config
from MagicTime.utils import hardware, pipeline
from MagicTime.utils.config import SamplingSettings
from tests.worlds import forked, magictime_world
from tests.worlds.sampler_command import sample

SCRIPT = magictime_world.ROOT / "MagicTime" / "inference_magictime.py"


def recorded(out):
    return open_x0_file(out / "pred_x0.pth").tensor.clone()


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory):
    """(config, x0) of a run of three prompts with all defaults."""
    folder = tmp_path_factory.mktemp("plain")
    config = magictime_world.write_config(folder / "c.yaml", world[0])
    assert sample(config, folder / "out") == 0
    return config, recorded(folder / "out")


@pytest.fixture(scope="module")
def exact(world, tmp_path_factory):
    """(config, x0) of the same three prompts in float64, recorded in float32.

    dtype: float64 is no choice of the sampler's, so these tests add it. Another kernel or batch
    size then rounds by 1e-14, which is still below float32's rounding when the sampling has made it
    larger (magictime_world.WELL_CONDITIONED).
    """
    folder, side = tmp_path_factory.mktemp("exact"), magictime_world.WELL_CONDITIONED
    with pytest.MonkeyPatch.context() as patch:
        choices = (*sampling_config.CHOICES["dtype"], "float64")
        patch.setitem(sampling_config.CHOICES, "dtype", choices)
        config = magictime_world.write_config(
            folder / "c.yaml", world[0], dtype="float64", H=side, W=side
        )
        assert sample(config, folder / "out") == 0
        yield config, recorded(folder / "out")


def same_but_for_rounding(found, expected):
    """Equal in float64, each recorded in float32: rounded by 2**-24 of its size."""
    torch.testing.assert_close(found, expected, rtol=2 * 2**-24, atol=1e-9)


@pytest.mark.parametrize(
    "flags",
    [
        ("--attention", "flash"),
        ("--attention", "math"),
        ("--attention", "cudnn"),
        ("--attention", "efficient"),
        ("--batch_size", 3),
    ],
)
def test_what_changes_no_video(exact, tmp_path, flags):
    """Another prompt differs by more than 1. Kernels that the CPU does not have give way to one
    that it has."""
    config, expected = exact
    assert sample(config, tmp_path / "out", *flags) == 0
    same_but_for_rounding(recorded(tmp_path / "out"), expected)


def test_attention_kernels_are_the_ones_asked_for(monkeypatch):
    """math alone is exclusive; the others are tried first."""
    from torch.backends import cuda

    with hardware.kernels(SamplingSettings(attention="math")):
        assert (
            cuda.math_sdp_enabled()
            and not cuda.flash_sdp_enabled()
            and not cuda.mem_efficient_sdp_enabled()
        )
    with hardware.kernels(SamplingSettings(attention="flash")):
        assert cuda.flash_sdp_enabled() and cuda.math_sdp_enabled() and not cuda.cudnn_sdp_enabled()
    assert cuda.flash_sdp_enabled() and cuda.mem_efficient_sdp_enabled()


def test_offloading(world):
    """The parts' hooks in a ring, with the CPU as the device to visit: each part sends the one
    before it home, and two batches give what they give without."""
    plain, model = magictime_world.load(world[0]), magictime_world.load(world[0])
    hardware._offload(model, torch.device("cpu"))
    hooks = [part._hf_hook for part in (model.text_encoder, model.unet, model.vae)]
    before = [hook.prev_module_hook.model for hook in hooks]
    assert before[0] is model.vae and before[1] is model.text_encoder and before[2] is model.unet
    for seed in (3, 4):
        latents, expected = (
            pipeline.sample(m, ["a"], ["b"], [seed], 4, 32, 32, 2, 3.0) for m in (model, plain)
        )
        assert torch.equal(latents, expected)
        assert torch.equal(
            pipeline.decode(model.vae, latents, device=model.device),
            pipeline.decode(plain.vae, expected),
        )


def test_a_run_may_go_on_with_other_kernels(exact, tmp_path):
    """Such settings do not belong to a folder's identity."""
    config, expected = exact
    assert (
        sample(config, tmp_path / "out", "--limit", 1, "--attention", "math", "--vae_slicing") == 0
    )
    assert sample(config, tmp_path / "out", "--cpu_offload") == 0
    same_but_for_rounding(recorded(tmp_path / "out"), expected)


@pytest.mark.parametrize(
    "flags, said", [(("--dtype", "bfloat16"), "dtype"), (("--vae_tiling",), "vae_tiling")]
)
def test_what_changes_videos_belongs_to_the_folder(plain, tmp_path, capsys, flags, said):
    config, _ = plain
    assert sample(config, tmp_path / "out", "--limit", 1) == 0
    assert sample(config, tmp_path / "out", *flags) == 2
    assert f"made with {said}=" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_starts_from_the_same_noise(world, dtype):
    """Drawn in float32 and rounded: a seed is the same video in every precision, to rounding."""
    model = magictime_world.load(world[0]).to("cpu", dtype)
    expected = torch.randn(1, 4, 4, 4, 4, generator=torch.Generator().manual_seed(5))
    assert torch.equal(pipeline.initial_noise(model, [5], 4, 32, 32), expected.to(dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs(world, tmp_path, dtype):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], dtype=dtype, batch_size=3)
    assert sample(config, tmp_path / "out") == 0
    assert (
        torch.isfinite(recorded(tmp_path / "out")).all()
        and len(list((tmp_path / "out" / "videos").iterdir())) == 3
    )


def test_sliced_and_tiled_decoding(world):
    """Slices are exact (in float64: to its rounding). Tiles of a frame larger than one tile overlap
    and are blended: near, not equal."""
    model = magictime_world.load(world[0])
    model.vae.to(torch.float64)
    latents = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    plain = pipeline.decode(model.vae, latents)
    seen = []
    hook = model.vae.decoder.register_forward_hook(
        lambda module, inputs, output: seen.append(tuple(inputs[0].shape))
    )
    try:
        sliced = SamplingSettings(dtype="float64", vae_slicing=True)
        hardware.place_on_device(model, torch.device("cpu"), sliced)
        torch.testing.assert_close(
            pipeline.decode(model.vae, latents), plain, rtol=1e-10, atol=1e-10
        )
        assert seen == [(1, 4, 12, 12)] * 3
        seen.clear()
        tiled = SamplingSettings(dtype="float64", vae_tiling=True)
        hardware.place_on_device(model, torch.device("cpu"), tiled)
        model.vae.tile_latent_min_size, model.vae.tile_sample_min_size = 8, 64
        assert pipeline.decode(model.vae, latents).shape == plain.shape
        assert max(shape[-1] for shape in seen) == 8
    finally:
        hook.remove()


@pytest.mark.slow
def test_compiled(tmp_path, capsys, monkeypatch):
    """In float32, as it is used; or, with instructions that somebody forced on torch, cleanly
    refused.

    Each of 4 steps is rounded by 1e-5, and at this size a nudge of the noise comes out up to 85
    times as large: 4 x 1e-5 x 85 < 1e-2. Another prompt differs by more than 1.
    """
    # kernels of a run with other instructions would be found again, and crash
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    magictime_world.make_world(tmp_path, unet=magictime_world.TWO_LEVELS)
    side = magictime_world.WELL_CONDITIONED
    config = magictime_world.write_config(tmp_path / "c.yaml", tmp_path, H=side, W=side)
    assert sample(config, tmp_path / "plain", "--limit", 2) == 0
    status = sample(config, tmp_path / "out", "--compile", "--limit", 2)
    # torch.compile writes code for these instructions
    forced = os.environ.get("ATEN_CPU_CAPABILITY")
    if forced and status == 2:
        assert "latents that are not finite in dtype float32" in capsys.readouterr().err
        assert not list((tmp_path / "out" / "videos").iterdir())
        pytest.skip(
            f"torch.compile's code for ATEN_CPU_CAPABILITY={forced} gives numbers that are not "
            "finite here; the sampler refused them"
        )
    assert status == 0
    plain, compiled = recorded(tmp_path / "plain")[:2], recorded(tmp_path / "out")[:2]
    torch.testing.assert_close(compiled, plain, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_compile_without_a_compiler(tmp_path):
    magictime_world.make_world(tmp_path, unet=magictime_world.ONE_LEVEL)
    config = magictime_world.write_config(tmp_path / "c.yaml", tmp_path)
    nothing = {"PATH": "/nowhere", "CXX": "", "CC": ""}
    nothing["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / "cache")
    words = ["--config", config, "--save-path", tmp_path / "out", "--gpu_num", "-1"]
    script = forked.Forked(SCRIPT, [*words, "--compile", "--limit", "1"], [nothing])
    _, said = script.communicate(timeout=600)  # torch looks for a compiler at length
    assert script.returncode == 2 and "Traceback" not in said
    assert "error: compile: torch.compile does not work here" in said


def test_what_is_not_finite_is_no_video(world, tmp_path, capsys):
    """Half precision overflows at this guidance: a black video would look like a finished one."""
    config = magictime_world.write_config(
        tmp_path / "c.yaml", world[0], dtype="float16", guidance_scale=1e6, save_predx_0=False
    )
    assert sample(config, tmp_path / "out") == 2
    assert "row 0 (0000): latents that are not finite in dtype float16" in capsys.readouterr().err
    assert not list((tmp_path / "out" / "videos").iterdir())


def test_both_recordings_must_fit_on_the_disk(world, tmp_path, capsys, monkeypatch):
    """The disk is said to have room for one and a half of two."""
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], save_predx_t=True)
    one = 3 * 4 * 4 * 4 * 4 * 4 * 4
    usage = shutil.disk_usage(tmp_path)._replace(free=one * 3 // 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    for flags in ((), ("--dry-run",)):
        assert sample(config, tmp_path / "out", *flags) == 2
        assert "the recordings need" in capsys.readouterr().err


def test_flags_are_named_in_messages(plain, tmp_path, capsys):
    for flag, value in (("--seed", -5), ("--batch_size", 0), ("--attention", "foo")):
        assert sample(plain[0], tmp_path / "out", flag, value) == 2
        assert f"error: {flag}: " in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(plain, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert sample(plain[0], tmp_path / "file" / "out", "--dry-run") == 2
    assert "is not a folder that may be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"attention": "xformers"}, "attention='xformers', one of auto, flash"),
        ({"compile": "yes"}, "compile='yes'"),
        ({"cpu_offload": 1}, "cpu_offload=1"),
        ({"dtype": "fp8"}, "dtype='fp8'"),
    ],
)
def test_bad_values(world, tmp_path, capsys, changes, said):
    assert (
        sample(
            magictime_world.write_config(tmp_path / "c.yaml", world[0], **changes), tmp_path / "out"
        )
        == 2
    )
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("frames", [20, 32])
def test_more_frames_than_usual(world, tmp_path, frames):
    """The position table has 32 places; the noise of a longer video is its own draw."""
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], L=frames, steps=2)
    assert sample(config, tmp_path / "out", "--limit", 1) == 0
    assert recorded(tmp_path / "out").shape == (3, 2, 4, frames, 4, 4)


def test_too_many_frames(world, tmp_path, capsys):
    assert (
        sample(magictime_world.write_config(tmp_path / "c.yaml", world[0], L=33), tmp_path / "out")
        == 2
    )
    assert "L=33 frames, the motion module reaches 32" in capsys.readouterr().err


def test_dry_run(world, tmp_path, capsys):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    assert sample(config, tmp_path / "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert (
        "pred_x0.pth [3, 4, 4, 4, 4, 4], 0.00 GiB" in said
        and "4 frames of 32 x 32 pixels, 4 steps" in said
    )
    assert not (tmp_path / "out").exists()
