"""Levels of denoising steps against noised samples: alpha and sigma are measured there."""

import copy
import inspect
import json
import math

import pytest
import torch

from benchmarks.common import tiny_pipelines
from lvd.x0.levels import level_of, levels_of
from lvd.x0.schedulers import SCHEDULERS, describe_scheduler, timesteps_of
from lvd.x0.step_map import levels_of_sampling
from tests.worlds.oracle import CASES, FLOW, INVERTED, alpha_and_sigma, make, position_of, set_steps

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


def told_by_a_file(scheduler):
    """The levels that follow from what a recording without levels says of its sampling."""
    described = json.loads(json.dumps(describe_scheduler(scheduler)))
    return levels_of_sampling({"scheduler": described, "timesteps": timesteps_of(scheduler)})


@pytest.mark.parametrize("name, form, prediction, settings", EACH)
def test_a_file_tells_the_same_levels_or_none(name, form, prediction, settings):
    """Also of sigmas that the pipeline chose itself, where the scheduler takes them."""
    scheduler = make(name, prediction, settings)
    set_steps(scheduler, 20)
    found = told_by_a_file(scheduler)
    assert found is None or found == pytest.approx(levels_of(scheduler), abs=1e-3)
    assert found or name in ("MiniMaxH3Scheduler", "SCMScheduler")  # they count steps in their way
    if "sigmas" not in inspect.signature(scheduler.set_timesteps).parameters:
        return
    try:
        scheduler.set_timesteps(sigmas=[1.0, 0.73, 0.31, 0.0])
    except (TypeError, ValueError, AttributeError):  # it takes no such sigmas
        return
    found = told_by_a_file(scheduler)
    assert found is None or found == pytest.approx(levels_of(scheduler), abs=1e-3)
    if form == FLOW and name.startswith("FlowM"):
        assert found


def test_every_scheduler_has_a_case():
    assert {name for name, *_ in CASES} == set(SCHEDULERS)


def test_sigmas_of_cosmos_2_are_above_1():
    """Its samples are x0 + sigma noise, though its scheduler is one of flows: the pipeline scales
    what the model reads by 1 / (sigma + 1)."""
    scheduler = tiny_pipelines.build("Cosmos2VideoToWorldPipeline").pipe.scheduler
    scheduler.set_timesteps(sigmas=[k / 9 for k in range(10)])
    sigmas = scheduler.sigmas[:10].tolist()
    assert sigmas[0] == pytest.approx(80) and sigmas[-1] == pytest.approx(0.002)
    wanted = [-2 * math.log(sigma) for sigma in sigmas]
    assert levels_of(scheduler) == pytest.approx(wanted)
    assert told_by_a_file(scheduler) == pytest.approx(wanted, abs=1e-4)


def test_levels_are_finite_numbers():
    assert level_of(1.0, 1.0) == 0 and level_of(1.0, 0.1) == pytest.approx(math.log(100))
    assert level_of(0.0, 1.0) == level_of(1e-9, 1.0) == -20
    assert level_of(1.0, 0.0) == level_of(1.0, 1e-9) == 20


def test_another_number_of_steps_keeps_the_level_of_a_timestep():
    few, many = (make("DDIMScheduler", "epsilon", {}) for _ in range(2))
    few.set_timesteps(10)
    many.set_timesteps(50)
    assert levels_of(few) == levels_of(many)[4::5]
