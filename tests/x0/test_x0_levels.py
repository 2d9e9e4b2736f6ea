"""Levels of denoising steps against noised samples: alpha and sigma are measured there."""

import math

import pytest
import torch

from lvd.x0.levels import level_of, levels_of
from lvd.x0.schedulers import timesteps_of
from tests.worlds.oracle import CASES, INVERTED, make

EACH = [
    pytest.param(name, form, predictions[0], settings, id=f"{name}-{number}")
    for number, (name, form, predictions, settings) in enumerate(CASES)
]


def measured_level(scheduler, form, step):
    """Noise a known x0 as the scheduler does at this step; alpha and sigma by least squares."""
    draw = torch.Generator().manual_seed(step)
    x0, noise = torch.randn(2, 20_000, generator=draw)
    timestep = torch.tensor([timesteps_of(scheduler)[step]], dtype=scheduler.timesteps.dtype)
    if form == INVERTED:  # of which scale_noise knows nothing: its sigma is the signal's
        x0, noise = noise, x0
    if hasattr(scheduler, "add_noise"):
        x = scheduler.add_noise(x0[None], noise[None], timestep)[0]
    else:
        x = scheduler.scale_noise(x0[None], timestep, noise[None])[0]
    if form == INVERTED:
        x0, noise = noise, x0
    parts = torch.stack([x0, noise], 1).double()
    alpha, sigma = torch.linalg.lstsq(parts, x.double()[:, None]).solution[:, 0].tolist()
    return 2 * math.log(max(alpha, 1e-9) / sigma)


@pytest.mark.parametrize("steps", (5, 20))
@pytest.mark.parametrize("name, form, prediction, settings", EACH)
def test_the_level_that_noised_samples_have(name, form, prediction, settings, steps):
    scheduler = make(name, prediction, settings)
    scheduler.set_timesteps(steps)
    levels = levels_of(scheduler)
    assert len(levels) == steps and levels == sorted(levels)
    for step, level in enumerate(levels):
        wanted = measured_level(scheduler, form, step)
        # 1 - sigma and 1 - abar are rounded to float32 there
        assert level == pytest.approx(
            max(min(wanted, 20), -20), abs=0.01 + 5e-7 * math.exp(abs(level) / 2)
        )


def test_levels_are_finite_numbers():
    assert level_of(1.0, 1.0) == 0 and level_of(1.0, 0.1) == pytest.approx(math.log(100))
    assert level_of(0.0, 1.0) == level_of(1e-9, 1.0) == -20
    assert level_of(1.0, 0.0) == level_of(1.0, 1e-9) == 20


def test_another_number_of_steps_keeps_the_level_of_a_timestep():
    few, many = (make("DDIMScheduler", "epsilon", {}) for _ in range(2))
    few.set_timesteps(10)
    many.set_timesteps(50)
    assert levels_of(few) == levels_of(many)[4::5]
