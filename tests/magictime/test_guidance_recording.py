"""`save_guidance`: x0 by the prompt minus x0 by the negative prompt, recorded beside x0."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from lvd.x0.file import open_x0_file
from MagicTime.utils import pipeline
from tests.worlds.magictime_world import inference_block, write_config
from tests.worlds.refusals import refused
from tests.worlds.sampler_command import sample

SCALE, STEPS = 3.0, 4
ON = "save_guidance=true"


@pytest.fixture(scope="module")
def config(world, tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("guidance") / "c.yaml", world[0])


@pytest.fixture(scope="module")
def recorded(config, tmp_path_factory):
    """An unbroken run with guidance."""
    out = tmp_path_factory.mktemp("guidance") / "out"
    assert sample(config, out, ON) == 0
    return out


def sampled(model, prompts=("a red square", "two dots"), keep=None):
    """x_t before each step, the UNet's outputs, and what on_guidance got; `keep`: {step: places}
    that on_step answers."""
    seen = {"x": [pipeline.initial_noise(model, [5, 6][: len(prompts)], 4, 32, 32)]}
    seen |= {"unet": [], "guidance": []}
    hook = model.unet.register_forward_hook(
        lambda module, inputs, output: seen["unet"].append(output.sample.double())
    )

    def on_step(step, timestep, x0, latents):
        seen["x"].append(latents)
        return (keep or {}).get(step)

    def on_guidance(step, direction):
        assert step == len(seen["guidance"])
        seen["guidance"].append(direction)

    seeds = [5, 6][: len(prompts)]
    bad = ["bad"] * len(prompts)
    settings = 4, 32, 32, STEPS, SCALE, "true"
    try:
        pipeline.sample(
            model, list(prompts), bad, seeds, *settings, on_step, on_guidance=on_guidance
        )
    finally:
        hook.remove()
    return seen


def x0_of(kind, x, out, alpha_bar):
    """Predicted x0 of a UNet's output; x_t = alpha x0 + sigma eps and v = alpha eps - sigma x0."""
    alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    return {
        "epsilon": (x - sigma * out) / alpha,
        "v_prediction": alpha * x - sigma * out,
        "sample": out,
    }[kind]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_direction_is_the_difference_of_the_two_x0(model, kind):
    schedule = inference_block(prediction_type=kind)["noise_scheduler_kwargs"]
    seen = sampled(replace(model, scheduler=DDIMScheduler(**schedule)))
    abar = np.cumprod(1 - np.linspace(0.00085, 0.012, 1000))
    timesteps = [step * (1000 // STEPS) + 1 for step in reversed(range(STEPS))]
    for step, timestep in enumerate(timesteps):
        x = seen["x"][step].double()
        by_negative, by_prompt = seen["unet"][step].chunk(2)
        expected = x0_of(kind, x, by_prompt, abar[timestep])
        expected = expected - x0_of(kind, x, by_negative, abar[timestep])
        found = seen["guidance"][step].double()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert found.abs().max() > 1e-3


def test_a_video_that_is_dropped_has_no_direction_any_more(model):
    whole, seen = sampled(model), sampled(model, keep={1: [1]})
    assert [len(each) for each in seen["guidance"]] == [2, 2, 1, 1]
    assert torch.equal(seen["guidance"][1], whole["guidance"][1])
    apart = seen["guidance"][2] - whole["guidance"][2][1:]
    assert apart.abs().max() < 0.05 * whole["guidance"][2].std()


def test_the_file_holds_the_direction(config, recorded, tmp_path):
    """At step 0 all runs are at the same noise, where x0 is linear in the guidance scale."""
    x0 = {}
    for scale in (2.0, SCALE):
        assert sample(config, tmp_path / f"{scale}", f"guidance_scale={scale}") == 0
        x0[scale] = open_x0_file(tmp_path / f"{scale}/pred_x0.pth").tensor[:, 0]
    guidance = open_x0_file(recorded / "guidance.pth")
    assert guidance.rows == [0, 1, 2] and guidance.tensor.shape[:2] == (3, STEPS)
    slope = (x0[SCALE] - x0[2.0]) / (SCALE - 2.0)
    torch.testing.assert_close(guidance.tensor[:, 0], slope, rtol=1e-3, atol=1e-3)
    beside = open_x0_file(recorded / "pred_x0.pth")
    assert guidance.meta == beside.meta and guidance.fingerprint == beside.fingerprint


def test_off_nothing_is_another_byte(config, recorded, tmp_path, capsys):
    assert sample(config, tmp_path / "usual") == 0
    assert sample(config, tmp_path / "off", "save_guidance=false") == 0
    for name in ("config.yaml", "pred_x0.json", "pred_x0.pth"):
        usual = (tmp_path / "usual" / name).read_bytes()
        assert usual == (tmp_path / "off" / name).read_bytes()
        assert b"guidance.pth" not in usual and b"save_guidance" not in usual
    assert not (tmp_path / "off/guidance.pth").exists()
    # and what is recorded beside it changes neither x0 nor the videos
    assert (recorded / "pred_x0.pth").read_bytes() == (tmp_path / "off/pred_x0.pth").read_bytes()
    for path in (tmp_path / "off/videos").iterdir():
        assert path.read_bytes() == (recorded / "videos" / path.name).read_bytes()
    refused(sample(config, tmp_path / "off", ON), capsys, "save_guidance")
    refused(sample(config, recorded), capsys, "save_guidance")


def test_a_stopped_run_goes_on(config, recorded, tmp_path, capsys):
    out = tmp_path / "out"
    assert sample(config, out, ON, "--limit", 2) == 0
    assert open_x0_file(out / "guidance.pth").rows == [0, 1]
    assert sample(config, out, ON) == 0
    whole = open_x0_file(recorded / "guidance.pth").tensor
    assert torch.equal(open_x0_file(out / "guidance.pth").tensor, whole)
    for name in ("guidance.pth", "guidance.json"):  # what is lost is made again
        (out / name).unlink()
    assert sample(config, out, ON) == 0
    assert torch.equal(open_x0_file(out / "guidance.pth").tensor, whole)
    assert "guidance.pth" in capsys.readouterr().out


def test_it_may_lie_elsewhere(config, recorded, tmp_path):
    path = tmp_path / "else/pull.pth"
    assert sample(config, tmp_path / "out", f"save_guidance={path}") == 0
    there, here = open_x0_file(recorded / "guidance.pth"), open_x0_file(path)
    assert torch.equal(here.tensor, there.tensor) and here.fingerprint == there.fingerprint
    said = json.loads(path.with_suffix(".json").read_text())
    assert said["meta"]["config"]["save_guidance"] is True


@pytest.mark.parametrize(
    "words, said",
    [
        ([ON, "guidance_scale=1"], ["save_guidance=True", "guidance_scale=1;", "over 1"]),
        ([ON, "guidance_scale=0.5"], ["save_guidance=True", "guidance_scale=0.5"]),
        (["save_guidance=7"], ["save_guidance=7", "true, false or the path"]),
        (["save_guidance=pull.txt"], ["save_guidance='pull.txt'"]),
        (["save_predx_0=a.pth", "save_guidance=a.pth"], ["a.pth is also that of save_predx_0"]),
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_refused(config, tmp_path, capsys, words, said, dry, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(sample(config, "out", *dry, *words), capsys, *said)
    assert not list(tmp_path.iterdir())
