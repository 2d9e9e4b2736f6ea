"""`scheduler:` of a sampling YAML: six schedulers of diffusers for one model."""

from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
import yaml

from lvd.x0.file import open_x0_file
from lvd.x0.provenance import full_scheduler, recorded_sampling
from MagicTime.utils import pipeline
from MagicTime.utils.schedulers import SCHEDULERS, alpha_bar_of, make_scheduler, take_step
from tests.worlds import magictime_world
from tests.worlds.refusals import refused
from tests.worlds.sampler_command import sample

KWARGS = magictime_world.inference_block()["noise_scheduler_kwargs"]
SCALE, STEPS = 3.0, 4
PROMPTS = ["a red square", "two dots", "a wave"]
SEEDS = [5, 6, 7]
OTHERS = [name for name in SCHEDULERS if name != "ddim"]
every_scheduler = pytest.mark.parametrize("name", SCHEDULERS)
every_other = pytest.mark.parametrize("name", OTHERS)


def made(name, steps=STEPS, **kwargs):
    return make_scheduler({**KWARGS, **kwargs}, "c.yaml", steps, name)


@pytest.fixture(scope="module")
def exact(world):
    """The world's model in float64, see test_sampler."""
    return magictime_world.load(world[0]).to("cpu", torch.float64)


def sampled(model, name, places=(0, 1, 2), keep=None):
    """latents, and x0 [step][B, ...], of the prompts at `places`; keep: {step: places to go on
    with}."""
    model = replace(model, scheduler=made(name))
    seen = []

    def on_step(step, timestep, x0, latents):
        seen.append(x0)
        return (keep or {}).get(step)

    prompts, seeds = [PROMPTS[k] for k in places], [SEEDS[k] for k in places]
    side = magictime_world.WELL_CONDITIONED
    settings = 4, side, side, STEPS, SCALE, "true"
    latents = pipeline.sample(model, prompts, ["bad"] * len(places), seeds, *settings, on_step)
    return latents, seen


@pytest.fixture(scope="module")
def together(exact):
    """{name: (latents, x0)} of the three prompts as one batch."""
    return {name: sampled(exact, name) for name in SCHEDULERS}


@pytest.mark.parametrize("steps", [1, 10, 15, 25, 50, 100])
@every_scheduler
def test_one_model_whatever_the_scheduler(name, steps):
    """Betas, prediction type and clipping are the YAML's; x0 is known at as many timesteps as
    asked."""
    scheduler = made(name, steps)
    usual = diffusers.DDIMScheduler(**KWARGS)
    assert type(scheduler).__name__ == SCHEDULERS[name]
    assert torch.equal(scheduler.alphas_cumprod, usual.alphas_cumprod)
    for key in ("steps_offset", "timestep_spacing", "prediction_type", "beta_schedule"):
        assert scheduler.config[key] == usual.config[key], key
    assert not scheduler.config.get("clip_sample")
    timesteps = scheduler.timesteps.tolist()
    assert len(set(timesteps)) == steps and timesteps == sorted(timesteps, reverse=True)
    for step, timestep in enumerate(timesteps):
        expected = usual.alphas_cumprod[int(timestep)].item()
        assert alpha_bar_of(scheduler, step, timestep) == pytest.approx(expected, rel=1e-5)


def usual_loop(model, name, place):
    """One video as diffusers' own pipelines sample it, after `from_config` swapped the scheduler.

    Returns:
        latents, and [x0 as the scheduler itself computes it] of each step.
    """
    ddim = diffusers.DDIMScheduler(**KWARGS)
    kind = getattr(diffusers, SCHEDULERS[name])
    scheduler = kind.from_config(ddim.config, timestep_spacing="leading")  # where DDIM's is unsaid
    scheduler.set_timesteps(STEPS)
    generator = torch.Generator().manual_seed(SEEDS[place])
    side = magictime_world.WELL_CONDITIONED // 8
    x = torch.randn(1, 4, 4, side, side, generator=generator).double() * scheduler.init_noise_sigma
    words = pipeline.encode(model, ["bad", PROMPTS[place]]).repeat_interleave(4, 0)
    seen = []
    for t in scheduler.timesteps:
        doubled = scheduler.scale_model_input(torch.cat([x, x]), t)
        negative, positive = model.unet(doubled, t, encoder_hidden_states=words).sample.chunk(2)
        noise = negative + SCALE * (positive - negative)
        noisy = {"generator": generator} if name in ("euler_a", "lcm") else {}
        before, result = x, scheduler.step(noise, t, x, **noisy)
        x = result.prev_sample
        if name == "lcm":  # what it shows is mixed with x_t
            skip, out = scheduler.get_scalings_for_boundary_condition_discrete(t)
            seen.append((result.denoised - skip * before) / out)
        elif name in ("dpm++", "unipc"):
            seen.append(scheduler.model_outputs[-1])
        else:
            seen.append(result.pred_original_sample)
    return x, seen


@every_scheduler
def test_videos_are_those_of_diffusers(exact, together, name):
    latents, x0 = together[name]
    with torch.no_grad():
        expected, expected_x0 = usual_loop(exact, name, 1)
    torch.testing.assert_close(latents[1:2], expected, rtol=1e-5, atol=1e-5)
    for step in range(STEPS):
        torch.testing.assert_close(x0[step][1:2], expected_x0[step], rtol=1e-5, atol=1e-4)


@every_scheduler
def test_a_video_does_not_depend_on_its_batch(exact, together, name):
    """Neither on its place in it, nor on the videos that leave it half way."""
    latents, x0 = together[name]
    for places, keep in (((2,), {}), ((1, 0, 2), {1: [0, 2], 2: [1]})):
        found, seen = sampled(exact, name, places, keep)
        place = len(found) - 1 if keep else 0
        torch.testing.assert_close(found[place], latents[2], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(seen[-1][place], x0[-1][2], rtol=1e-8, atol=1e-8)


def test_schedulers_give_different_videos_of_one_noise(together):
    """But for Euler's: at the same timesteps it is DDIM in other words."""
    finals = {name: latents for name, (latents, _) in together.items()}
    by_euler = finals.pop("euler")
    torch.testing.assert_close(by_euler, finals["ddim"], rtol=1e-3, atol=1e-3)
    finals = list(finals.values())
    for k, one in enumerate(finals):
        assert all((one - other).abs().max() > 0.1 for other in finals[:k])


@pytest.mark.parametrize("name", ["euler_a", "lcm"])
def test_drawn_noise_is_the_same_in_every_dtype(name):
    """float32's draws, rounded: bfloat16 alone would draw other numbers."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        scheduler = made(name)
        timestep = scheduler.timesteps.tolist()[0]
        scheduler.scale_model_input(torch.zeros(1), timestep)
        noise, latents = torch.zeros(2, 2, 4, 2, 2, dtype=dtype).unbind()
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        found[dtype], _ = take_step(scheduler, noise, timestep, latents, generators)
    assert found[torch.float32].std() > 0.1
    assert torch.equal(found[torch.float32].bfloat16(), found[torch.bfloat16])


@every_other
def test_the_direction_of_guidance(model, name):
    """At step 0 all guidance scales are at the same noise, where x0 is linear in them."""
    x0, directions = [], []

    def on_step(step, timestep, value, latents):
        x0.append(value)
        return []

    def on_guidance(step, direction):
        directions.append(direction)

    for scale in (2.0, SCALE):
        one = replace(model, scheduler=made(name))
        settings = 4, 32, 32, STEPS, scale, "true", on_step
        pipeline.sample(one, PROMPTS, ["bad"] * 3, SEEDS, *settings, on_guidance=on_guidance)
    slope = (x0[1] - x0[0]) / (SCALE - 2.0)
    torch.testing.assert_close(directions[0], slope, rtol=1e-3, atol=1e-3)


def written(path, world, name, **kwargs):
    """A sampling YAML with this scheduler."""
    blocks = [magictime_world.model_block(world[0]), magictime_world.inference_block(**kwargs)]
    path.write_text(yaml.safe_dump([{**blocks[0], "scheduler": name}, blocks[1]]))
    return path


@pytest.mark.parametrize("name", ["euler_a", "dpm++", "lcm"])
def test_a_recording_tells_its_scheduler(world, tmp_path, capsys, name):
    config, out = written(tmp_path / "c.yaml", world, name), tmp_path / "out"
    assert sample(config, out, "--limit", 2) == 0  # and goes on
    assert sample(config, out) == 0
    recording = open_x0_file(out / "pred_x0.pth")
    assert recording.rows == [0, 1, 2] and recording.tensor.isfinite().all()
    sampling = recorded_sampling(recording)
    scheduler = made(name)
    assert sampling["scheduler"] == {
        "class": SCHEDULERS[name],
        **{k: v for k, v in scheduler.config.items() if not k.startswith("_")},
    }
    assert sampling["scheduler"] == full_scheduler(sampling["scheduler"])
    assert sampling["timesteps"] == scheduler.timesteps.tolist()
    saved = yaml.safe_load((out / "config.yaml").read_text())
    assert saved["scheduler"] == name
    capsys.readouterr()
    refused(sample(config, out, "scheduler=ddim"), capsys, "scheduler", name)


def test_ddim_is_the_default_and_goes_unsaid(world, tmp_path, capsys):
    """Folders from before `scheduler:` existed go on: not a byte of what they are known by is
    another one."""
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    told = written(tmp_path / "told.yaml", world, "ddim")
    assert sample(config, tmp_path / "one", "--limit", 2) == 0
    assert sample(told, tmp_path / "one") == 0
    assert sample(told, tmp_path / "two") == 0
    for name in ("config.yaml", "pred_x0.json", "pred_x0.pth"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    sidecar = yaml.safe_load((tmp_path / "one/pred_x0.json").read_text())
    keys = ["config", "x0_mode", "scaling_factor", "prompts_sha256", "versions"]
    assert list(sidecar["meta"]) == keys and "scheduler" not in sidecar["meta"]["config"]
    capsys.readouterr()
    refused(sample(config, tmp_path / "one", "scheduler=euler"), capsys, "scheduler")


@pytest.mark.parametrize(
    "words, said",
    [
        (["scheduler=pndm"], ["scheduler='pndm'", ", ".join(SCHEDULERS)]),
        (["scheduler=[ddim]"], ["scheduler=['ddim']", "one of ddim"]),
        (["scheduler=true"], ["scheduler=True", "one of ddim"]),
        (["x0_mode=released", "scheduler=euler"], ["x0_mode=released", "scheduler=euler"]),
        (["scheduler=lcm", "steps=1001"], ["1001", "1000"]),
        (["scheduler=unipc", "steps=1000"], ["steps=1000", "different timesteps"]),
        (
            ["scheduler=euler", "noise_scheduler_kwargs.clip_sample=true"],
            ["clip_sample=true", "scheduler euler", "false"],
        ),
        (
            ["scheduler=euler_a", "noise_scheduler_kwargs.thresholding=true"],
            ["thresholding=true", "scheduler euler_a"],
        ),
        (
            ["scheduler=dpm++", "noise_scheduler_kwargs.set_alpha_to_one=false"],
            ["set_alpha_to_one=false", "scheduler dpm++"],
        ),
        (
            ["scheduler=euler_a", "noise_scheduler_kwargs.prediction_type=sample"],
            ["prediction_type=sample", "euler_a"],
        ),
    ],
)
def test_refused(world, tmp_path, capsys, words, said):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    refused(sample(config, tmp_path / "out", "--dry-run", *words), capsys, *said)


@every_other
def test_no_signal_is_refused_by_all(world, tmp_path, capsys, name):
    """Some classes put a tiny number in place of the last zero, and x0 would be noise."""
    block = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "steps_offset": 0}
    config = written(tmp_path / "c.yaml", world, name, **block)
    refused(sample(config, tmp_path / "out", "--dry-run"), capsys, "zero terminal SNR")
    fine = "noise_scheduler_kwargs.prediction_type=v_prediction"
    assert sample(config, tmp_path / "out", "--dry-run", fine) == 0


def test_a_clipped_x0_is_recorded_clipped(model):
    """LCM clips as DDIM does."""
    one = replace(model, scheduler=made("lcm", clip_sample=True, clip_sample_range=0.5))
    seen = []

    def on_step(step, timestep, x0, latents):
        seen.append(x0)

    pipeline.sample(one, PROMPTS, ["bad"] * 3, SEEDS, 4, 32, 32, STEPS, SCALE, "true", on_step)
    assert np.isclose(max(x0.abs().max() for x0 in seen), 0.5)
