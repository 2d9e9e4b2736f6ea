"""Detectors of one sampling judge another: each step by the trained step of the nearest level."""

import math
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest

from lvd.errors import InputError
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.rule import SAFE, UNSAFE
from lvd.rules.vote import VoteRule
from lvd.utils.schema import checked
from lvd.x0.levels import levels_of
from lvd.x0.provenance import Sampling, difference_of, map_to_trained
from lvd.x0.schedulers import describe_scheduler
from lvd.x0.step_map import TOLERANCE, levels_of_sampling, map_steps
from tests.worlds.guarded_recordings import STEPS, rigged

STABLE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1)


def ddim(steps, **changes):
    scheduler = diffusers.DDIMScheduler(**{**STABLE, **changes})
    scheduler.set_timesteps(steps)
    return scheduler


def described(scheduler):
    timesteps = scheduler.timesteps.tolist()
    return {
        "steps": len(timesteps),
        "timesteps": timesteps,
        "scheduler": describe_scheduler(scheduler),
    }


@pytest.mark.parametrize("steps", [10, 15, 25, 50, 100])
def test_the_nearest_trained_step_of_ddim_is_that_of_the_nearest_timestep(steps):
    """Levels fall as timesteps rise, and neighbouring trained steps are 20 timesteps apart."""
    trained, scheduler = ddim(50), ddim(steps)
    step_map = map_steps(levels_of(trained), levels_of(scheduler))
    there = trained.timesteps.numpy()
    for timestep, step, distance in zip(
        scheduler.timesteps.tolist(), step_map.trained, step_map.distances, strict=True
    ):
        gap = np.abs(there - timestep)
        if timestep > 200:  # where levels are nearly a straight line of timesteps
            assert gap[step] == gap.min()
        assert distance <= TOLERANCE
    if steps == 50:
        assert step_map.trained == list(range(50)) and set(step_map.distances) == {0}


@pytest.mark.parametrize(
    "steps, horizon, looks",
    [(50, 5, 5), (50, 20, 20), (50, 50, 50), (25, 20, 10), (10, 20, 4), (10, 5, 1), (100, 20, 40)],
)
def test_a_rule_looks_at_the_same_share_of_the_schedule(steps, horizon, looks):
    step_map = map_steps(levels_of(ddim(50)), levels_of(ddim(steps)))
    assert abs(step_map.looks(horizon) - looks) <= (1 if steps == 100 else 0)


def test_a_sampling_that_begins_in_the_middle_is_looked_at_from_there():
    levels = levels_of(ddim(50))
    step_map = map_steps(levels, levels[30:])
    assert step_map.trained == list(range(30, 50)) and step_map.looks(5) == 5


@pytest.mark.parametrize(
    "kind, settings",
    [
        ("EulerDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
        ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
        ("DPMSolverMultistepScheduler", {}),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
        ("UniPCMultistepScheduler", {}),
        ("LCMScheduler", {}),
    ],
)
def test_every_scheduler_of_the_model_finds_a_detector_at_each_step(kind, settings):
    betas = {key: value for key, value in STABLE.items() if key != "steps_offset"}
    scheduler = getattr(diffusers, kind)(**betas, **settings)
    scheduler.set_timesteps(25)
    levels = levels_of(scheduler)
    step_map = map_steps(levels_of(ddim(50)), levels)
    assert step_map.trained == sorted(step_map.trained) and max(step_map.distances) <= TOLERANCE
    # What a file says of it gives the same levels as the scheduler itself.
    assert levels_of_sampling(described(scheduler)) == pytest.approx(levels, abs=1e-4)


def test_flows_are_as_noisy_as_their_share_of_noise():
    shares = [1.0, 0.9, 0.5, 0.1]
    sampling = {
        "scheduler": describe_scheduler(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)),
        "timesteps": [1000 * share for share in shares],
    }
    assert levels_of_sampling(sampling) == pytest.approx(
        [-20.0, 2 * math.log(0.1 / 0.9), 0.0, 2 * math.log(0.9 / 0.1)]
    )
    # Where less than 1% of the sample is the video's, steps are all alike.
    assert map_steps([-20.0, -4.4], [-13.8, -4.0]).trained == [0, 1]
    assert map_steps([-20.0, -4.4], [-13.8, -4.0]).distances == [0, pytest.approx(0.4)]
    # Each is still its own trained step, and the nearest one's.
    assert map_steps([-20.0, -20.0, -11.0, 0.0], [-20.0, -20.0, -11.0, 0.0]).trained == [0, 1, 2, 3]
    assert map_steps([-20.0, -12.0, -11.0, 0.0], [-11.4, -0.5]).trained == [2, 3]
    # But the steps of the same sampling are themselves, and so are those of equal levels.
    noisy = [-20.0, -20.0, -14.0, -11.0, 0.0]
    assert map_steps(noisy, noisy).trained == [0, 1, 2, 3, 4]
    assert map_steps(noisy, noisy).looks(1) == 1
    assert map_steps(noisy, [-14.0, -11.0, 0.5]).trained == [2, 3, 4]
    step_map = map_steps([-9.0, 0.0], [-20.0, 0.5])
    assert step_map.distances[0] == 1 and [step_map.level(k) for k in (0, 1)] == [-10, 0.5]


@pytest.mark.parametrize(
    "recorded",
    [
        {"class": "NoScheduler"},
        {"class": "DDIMScheduler", "num_train_timesteps": 10**9},
        {"class": "DDIMScheduler", "beta_schedule": "of nobody"},
        {"class": "EulerDiscreteScheduler"},  # which has other timesteps of its own
    ],
)
def test_levels_that_cannot_be_told_of_a_file_are_not_guessed(recorded):
    assert levels_of_sampling({"scheduler": recorded, "timesteps": [981, 500, 7]}) is None


def test_karras_sigmas_of_very_many_timesteps_are_not_computed():
    """They would take a minute; no sampling has them."""
    settings = {"num_train_timesteps": 100_000, "use_karras_sigmas": True}
    recorded = {"class": "DPMSolverMultistepScheduler", **settings}
    sampling = {"scheduler": recorded, "timesteps": [float(t) for t in range(20_000, 0, -1)]}
    assert levels_of_sampling(sampling) is None


@pytest.mark.parametrize("wrong", [{"levels": [0.0, 1.0]}, {"steps": 4}, {"timesteps": [1, 0]}])
def test_a_description_has_a_level_for_each_step(wrong):
    sampling = {"steps": 3, "timesteps": [2, 1, 0], "levels": [0.0, 1.0, 2.0]}
    checked(Sampling, sampling, "detectors/1/0.pth")
    with pytest.raises(InputError, match="as many levels as steps and timesteps are needed"):
        checked(Sampling, {**sampling, **wrong}, "detectors/1/0.pth")


def test_levels_that_another_machine_has_computed_are_the_same():
    levels = [-3.0, 0.5, 4.0]
    near, far = [level + 1e-6 for level in levels], [level + 0.1 for level in levels]
    assert difference_of("levels", levels, near) is None
    assert difference_of("levels", levels, far) == ("levels", "[-3, 0.5, 4]", "[-2.9, 0.6, 4.1]")
    assert difference_of("levels", levels, levels[:2])
    members = [
        SimpleNamespace(path="d.pth", about={"sampling": {"steps": 3, "levels": each}})
        for each in (levels, near)
    ]
    assert map_to_trained(members, {"steps": 2, "levels": [0.4, 3.9]}).trained == [1, 2]


def test_a_rule_over_another_horizon_keeps_all_else():
    assert VoteRule("0.6", 20).over(8) == VoteRule("0.6", 8)
    rule = ConfidenceRule(0.9, 20, 0.99, ("a", "b"))
    assert rule.over(8) == ConfidenceRule(0.9, 8, 0.99, ("a", "b"))


@pytest.mark.parametrize(
    "scheduler, steps",
    [
        ("DDIMScheduler", 5),
        ("DDIMScheduler", 4),
        ("DDIMScheduler", 3),
        ("EulerDiscreteScheduler", 5),
        ("DPMSolverMultistepScheduler", 5),
        ("UniPCMultistepScheduler", 5),
    ],
)
@pytest.mark.parametrize("lambda_, score, verdict", [(1, 1.0, UNSAFE), (0.1, 0.0, SAFE)])
def test_a_pipeline_with_other_steps_asks_the_detectors_of_their_level(
    world, tiny, scheduler, steps, lambda_, score, verdict
):
    """The world's detectors know DDIM's timesteps 800, 600, 400, 200 and 0."""
    own, seen = tiny.pipe.scheduler, []
    guard, _ = rigged(world, lambda step, n: seen.append(step) or [[score, 0.0]] * n, lambda_, 4)
    kind = getattr(diffusers, scheduler)
    tiny.pipe.scheduler = kind.from_config(own.config, timestep_spacing="leading")
    watched = tiny.pipe.scheduler
    try:
        with guard.watch(tiny.pipe, "interrupt") as watch:
            tiny.pipe(**tiny.inputs([-1], steps=steps))
    finally:
        tiny.pipe.scheduler = own
    (result,) = watch.results
    assert (result.verdict, result.steps_total) == (verdict, steps)
    bars = np.cumprod(1 - np.linspace(0.0001, 0.02, 1000))
    levels = np.log(bars / (1 - bars))
    asked = [
        int(np.abs(levels[[800, 600, 400, 200, 0]] - levels[round(timestep)]).argmin())
        for timestep in watched.timesteps.tolist()
    ]
    assert seen == [step for step in asked if step < asked[0] + 4]


def test_a_step_without_its_detectors_is_refused(world):
    """A bank of the first steps alone, and a sampling that begins later."""
    guard, _ = rigged(world, lambda step, n: [[0.0, 0.0]] * n)
    trained = levels_of_sampling(guard.members[0].about["sampling"])
    guard.bank.steps = [0, 1, 2, 3]
    guard.check({"steps": STEPS, "levels": trained})
    with pytest.raises(InputError, match="there are no detectors of step 4"):
        guard.check({"steps": 3, "levels": trained[2:]})
