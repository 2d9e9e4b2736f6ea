"""Levels of denoising steps against noised samples: alpha and sigma are measured there."""

import copy
import math

import pytest
import torch

from lvd.x0.levels import level_of, levels_of
from lvd.x0.schedulers import timesteps_of
from tests.worlds.oracle import CASES, INVERTED, alpha_and_sigma, make, position_of, set_steps

EACH = [
    pytest.param(name, form, predictions[0], settings, id=f"{name}-{number}")
    for number, (name, form, predictions, settings) in enumerate(CASES)
]


# They cannot noise a sample, or need more than a timestep for it.
CANNOT_NOISE = (
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "LTXEulerAncestralRFScheduler",
    "PiflowScheduler",
    "SCMScheduler",
)


def measured_level(scheduler, form, step):
    """Noise a known x0 as the scheduler does at this step; alpha and sigma by least squares."""
    if type(scheduler).__name__ in CANNOT_NOISE:
        alpha, sigma = alpha_and_sigma(form, position_of(scheduler, form, step))
        return 2 * math.log(max(alpha, 1e-9) / sigma)
    scheduler = copy.copy(scheduler)  # FlowMatchHeun's noising sets the position of its steps
    draw = torch.Generator().manual_seed(step)
    x0, noise = torch.randn(2, 20_000, generator=draw)
    timestep = torch.tensor([timesteps_of(scheduler)[step]], dtype=scheduler.timesteps.dtype)
    # scale_noise knows nothing of inverted sigmas: there sigma is the signal's.
    parts = (noise, x0) if form == INVERTED else (x0, noise)
    if hasattr(scheduler, "add_noise"):
        x = scheduler.add_noise(parts[0][None], parts[1][None], timestep)[0]
    else:
        x = scheduler.scale_noise(parts[0][None], timestep, parts[1][None])[0]
    columns = torch.stack([x0, noise], 1).double()
    alpha, sigma = torch.linalg.lstsq(columns, x.double()[:, None]).solution[:, 0].tolist()
    return 2 * math.log(max(alpha, 1e-9) / sigma)


@pytest.mark.parametrize("steps", (5, 20))
@pytest.mark.parametrize("name, form, prediction, settings", EACH)
def test_the_level_that_noised_samples_have(name, form, prediction, settings, steps):
    scheduler = make(name, prediction, settings)
    set_steps(scheduler, steps)
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
