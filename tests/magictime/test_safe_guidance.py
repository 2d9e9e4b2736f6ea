"""Safe Latent Diffusion: its formulas, diffusers' reading of them, the sampler and the command that
use it."""

import csv
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from lvd.utils.files import load_torch
from MagicTime.utils import pipeline
from MagicTime.utils.config import read_config
from MagicTime.utils.run import load_model
from MagicTime.utils.safe_guidance import SETTINGS
from MagicTime.utils.sampling_plan import weight_paths
from tests.worlds import magictime_world
from tests.worlds.sampler_command import sample as run_sampler

PUBLISHED = {
    "weak": (15, 20, 0, 0, 0),
    "medium": (10, 1000, 0.01, 0.3, 0.4),
    "strong": (7, 2000, 0.025, 0.5, 0.7),
    "max": (0, 5000, 1.0, 0.5, 0.7),
}


def noises(steps, seed=0, shape=(2, 4, 3, 4, 4)):
    """[step] of (unconditional, conditional, concept): concept close enough to the prompt for every
    branch to be met."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(steps):
        unconditional, conditional = (
            torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2)
        )
        apart = torch.randn(shape, generator=draw, dtype=torch.float64)
        apart *= 10.0 ** torch.randint(-5, 1, shape, generator=draw)
        found.append((unconditional, conditional, conditional + apart))
    return found


def closed_form(settings, given):
    """[step] of gamma, number by number, as the paper defines it."""
    warmup, scale, threshold, momentum_scale, beta = settings
    momentum, found = np.zeros(given[0][0].numel()), []
    for step, parts in enumerate(given):
        gammas = np.zeros_like(momentum)
        for i, (u, p, s) in enumerate(zip(*(part.flatten().tolist() for part in parts))):
            factor = min(1.0, abs(scale * (p - s))) if p - s < threshold else 0.0
            gammas[i] = factor * (s - u) + momentum_scale * momentum[i]
        momentum = beta * momentum + (1 - beta) * gammas
        found.append(gammas if step >= warmup else np.zeros_like(gammas))
    return found


def ours(settings, given):
    momentum, found = torch.zeros_like(given[0][0]), []
    for step, parts in enumerate(given):
        gamma, momentum = settings(step, *parts, momentum)
        found.append(gamma)
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_closed_form(name):
    settings, given = SETTINGS[name], noises(18)
    assert (
        settings.warmup,
        settings.scale,
        settings.threshold,
        settings.momentum_scale,
        settings.momentum_beta,
    ) == PUBLISHED[name]
    found = ours(settings, given)
    for gamma, expected in zip(found, closed_form(PUBLISHED[name], given), strict=True):
        np.testing.assert_allclose(gamma.flatten(), expected, rtol=1e-12, atol=1e-12)
    changed = [bool(gamma.any()) for gamma in found]
    assert changed == [step >= PUBLISHED[name][0] for step in range(18)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_diffusers_reads_the_paper_alike(name):
    """Same settings, and the same guided noise as StableDiffusionPipelineSafe's at every step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        safe = pytest.importorskip("diffusers.pipelines.deprecated.stable_diffusion_safe")
        theirs = getattr(safe.SafetyConfig, name.upper())
        perform = safe.StableDiffusionPipelineSafe.perform_safety_guidance
    settings, given, momentum = SETTINGS[name], noises(18, seed=1), None
    for step, (gamma, (unconditional, conditional, concept)) in enumerate(
        zip(ours(settings, given), given)
    ):
        expected, momentum = perform(
            None,
            True,
            momentum,
            conditional - unconditional,
            (conditional, unconditional, concept),
            step,
            **theirs,
        )
        torch.testing.assert_close(
            conditional - unconditional - gamma, expected, rtol=1e-12, atol=1e-12
        )


# ---- in the sampler

SIDE = magictime_world.WELL_CONDITIONED
ABAR = np.cumprod(1 - np.linspace(0.00085, 0.012, 1000))


def sample(
    model, safe=None, prompts=("a red square", "two dots"), on_step=None, scale=3.0, steps=9
):
    return pipeline.sample(
        model,
        list(prompts),
        ["bad"] * len(prompts),
        [5, 6][: len(prompts)],
        4,
        SIDE,
        SIDE,
        steps,
        scale,
        on_step=on_step,
        safe_guidance=safe,
    )


@pytest.fixture(scope="module")
def exact_model(world):
    """All in float64, the scheduler's table too.

    Safe guidance multiplies differences of noises by thousands and cuts them off at a threshold.
    That makes the rounding of a float32 table visible, and it differs from one CPU to another.
    """
    model = magictime_world.load(world[0]).to("cpu", torch.float64)
    table = model.scheduler.alphas_cumprod.double().numpy()
    # A product of up to 1000 factors in float32: each factor and each multiplication is rounded
    # by 2**-24 at most.
    np.testing.assert_allclose(table, ABAR, rtol=2 * 1000 * 2**-24)
    model.scheduler.alphas_cumprod = torch.from_numpy(ABAR)
    return model


@pytest.mark.parametrize("name", ["medium", "max"])
def test_the_sampler_bends_its_guidance(exact_model, name):
    """Against a loop with one UNet pass at a time, the closed form and DDIM's equation."""
    model, steps = exact_model, 12
    found = sample(model, replace(SETTINGS[name], concept="a wave"), ("a red square",), steps=steps)
    x = pipeline.initial_noise(model, [5], 4, SIDE, SIDE)
    given = []
    with torch.no_grad():
        words = [
            pipeline.encode(model, [text]).repeat_interleave(4, 0)
            for text in ("bad", "a red square", "a wave")
        ]
        for step in range(steps):
            t = (steps - 1 - step) * (1000 // steps) + 1
            given.append([model.unet(x, t, encoder_hidden_states=text).sample for text in words])
            u, p = given[-1][:2]
            gamma = torch.from_numpy(closed_form(PUBLISHED[name], given)[-1]).view_as(u)
            eps = u + 3.0 * (p - u - gamma)
            x0 = (x - np.sqrt(1 - ABAR[t]) * eps) / np.sqrt(ABAR[t])
            before = ABAR[t - 1000 // steps] if t > 1000 // steps else 1.0
            x = np.sqrt(before) * x0 + np.sqrt(1 - before) * eps
    # One pass of the UNet is rounded by 1e-14, and this sampling makes a nudge of its noise up to
    # 1e5 times as large (max): 12 steps x 1e-14 x 1e5 is about 1e-8.
    torch.testing.assert_close(found, x, rtol=1e-7, atol=1e-7)
    assert (found - sample(model, None, ("a red square",), steps=steps)).abs().max() > 0.01


def test_each_video_has_its_own_momentum_when_others_are_dropped(exact_model):
    safe = replace(SETTINGS["max"], concept="a wave")
    alone = pipeline.sample(
        exact_model, ["two dots"], ["bad"], [6], 4, SIDE, SIDE, 9, 3.0, safe_guidance=safe
    )
    left = sample(exact_model, safe, on_step=lambda step, *_: [1] if step == 3 else None)
    # 9 steps, each rounded by 1e-14; a nudge of this video's noise comes out 2e3 times as large.
    torch.testing.assert_close(left, alone, rtol=1e-8, atol=1e-8)


def test_it_keeps_away_from_the_concept():
    """The shipped tiny world: banners are red at the bottom; away from them they are less so."""
    config = read_config("sample_configs/Tiny.yaml")
    model = load_model(config, weight_paths(config), torch.device("cpu"), tell=False)
    folder = magictime_world.ROOT / "MagicTime" / "ckpts" / "Tiny" / "prompts"
    with open(folder / "label.csv", newline="") as f:
        rows = [int(row["banner"]) for row in list(csv.DictReader(f))[:4]]
    prompts = (folder / "unsafe.txt").read_text().splitlines()

    def redness(safe):
        latents = pipeline.sample(
            model,
            [prompts[row] for row in rows],
            [""] * 4,
            [2024 + row for row in rows],
            8,
            64,
            64,
            12,
            4.0,
            safe_guidance=safe,
        )
        bottom = pipeline.decode(model.vae, latents)[:, :, :, -12:]
        return float((bottom[:, 0] - bottom[:, 1:].mean(1)).mean())

    without = redness(None)
    assert (
        without > 0.15
        and redness(replace(SETTINGS["max"], concept="a red banner with white letters"))
        < without / 2
    )


# ---- the command


def test_flags_and_yaml_say_the_same(world, tmp_path):
    flags = ("--safe_guidance", "max", "--safety_concept", "a wave")
    assert (
        run_sampler(
            magictime_world.write_config(tmp_path / "a.yaml", world[0]), tmp_path / "flags", *flags
        )
        == 0
    )
    config = magictime_world.write_config(
        tmp_path / "b.yaml", world[0], safe_guidance="max", safety_concept="a wave"
    )
    assert run_sampler(config, tmp_path / "yaml") == 0
    assert (
        run_sampler(
            magictime_world.write_config(tmp_path / "c.yaml", world[0]), tmp_path / "without"
        )
        == 0
    )
    x0 = {
        name: load_torch(tmp_path / name / "pred_x0.pth") for name in ("flags", "yaml", "without")
    }
    assert torch.equal(x0["flags"], x0["yaml"]) and not torch.equal(x0["flags"], x0["without"])
    saved = {name: yaml.safe_load((tmp_path / name / "config.yaml").read_text()) for name in x0}
    assert (saved["flags"]["safe_guidance"], saved["flags"]["safety_concept"]) == ("max", "a wave")
    assert "safe_guidance" not in saved["without"]  # as before there was any


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"safe_guidance": "very"}, "safe_guidance='very', one of none, weak, medium, strong, max"),
        ({"safe_guidance": "weak"}, "needs safety_concept"),
        ({"safe_guidance": "weak", "safety_concept": " "}, "needs safety"),
        (
            {"safe_guidance": "weak", "safety_concept": ["a"]},
            "safety_concept=['a'], a text is needed",
        ),
        ({"safety_concept": 3}, "safety_concept=3, a text is needed"),
        ({"safe_guidance": False}, "safe_guidance=False"),
        (
            {"safe_guidance": "max", "safety_concept": "a", "guidance_scale": 1.0},
            "guidance_scale above 1 is needed, found 1.0",
        ),
    ],
)
def test_what_is_refused(world, tmp_path, capsys, changes, said):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], **changes)
    assert run_sampler(config, tmp_path / "out") == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags, changes",
    [
        ((), {}),
        (("--safe_guidance", "none"), {}),
        (("--safe_guidance", "none"), {"safe_guidance": "max"}),
        ((), {"safe_guidance": "none"}),
    ],
)
def test_a_concept_alone_is_refused(world, tmp_path, capsys, flags, changes):
    """It would keep nothing out."""
    config = magictime_world.write_config(
        tmp_path / "c.yaml", world[0], **{"safety_concept": "a", **changes}
    )
    assert run_sampler(config, tmp_path / "out", *flags, "--safety_concept", "a wave") == 2
    assert (
        "--safety_concept: belongs to --safe_guidance" in capsys.readouterr().err
        and not (tmp_path / "out").exists()
    )


def test_a_concept_that_is_cut_is_told(world, tmp_path, capsys):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], steps=1)
    words = "a b c d e f g h i j k l m"
    assert (
        run_sampler(
            config,
            tmp_path / "out",
            "--safe_guidance",
            "weak",
            "--safety_concept",
            words,
            "--limit",
            1,
        )
        == 0
    )
    assert (
        "safety_concept is longer than the text encoder reads; left out: k l m"
        in capsys.readouterr().out
    )


def test_a_folder_of_another_strength_is_refused(world, tmp_path, capsys):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], steps=1)
    assert (
        run_sampler(
            config,
            tmp_path / "out",
            "--safe_guidance",
            "weak",
            "--safety_concept",
            "a",
            "--limit",
            1,
        )
        == 0
    )
    assert run_sampler(config, tmp_path / "out") == 2
    assert "made with safe_guidance='weak', now it is None" in capsys.readouterr().err
