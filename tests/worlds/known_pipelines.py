"""What tests of all known pipelines share: x0 by the scheduler's own means, and detectors whose
answers are given."""

import copy
from contextlib import contextmanager
from functools import wraps
from inspect import signature

import torch

from benchmarks.common.pipeline_world import STEPS
from lvd import Guard
from lvd.detectors.detector import build_detector, save_detector
from lvd.x0.provenance import recorded_sampling
from tests.worlds.guarded_recordings import Spy

# The scheduler's tensor → clips [B, C, F, H, W], written down once more.
CLIPS = {
    "BCFHW": lambda x, tiny: x,
    "BFCHW": lambda x, tiny: x.permute(0, 2, 1, 3, 4),
    "BFHWC": lambda x, tiny: x.permute(0, 4, 1, 2, 3),
    "(BF)CHW": lambda x, tiny: x.unflatten(0, (-1, tiny.shape[1])).transpose(1, 2),
}


@contextmanager
def steps_of(scheduler):
    """A list of x0 of each step that a scheduler takes while the block runs, by its own means."""
    kind, found = type(scheduler), []
    step = kind.step

    @wraps(step)
    def told(self, *args, **kwargs):
        given = signature(step).bind(self, *args, **kwargs).arguments
        plain = copy.deepcopy(self)
        plain.__class__ = kind
        if kind.__name__ == "EDMEulerScheduler":  # Cosmos steps twice: for x0, and with it
            found.extend([x0] if (x0 := given.get("pred_original_sample")) is not None else [])
        else:
            found.append(x0_by_its_own_means(plain, step, given))
        return step(self, *args, **kwargs)

    kind.step = told
    try:
        yield found
    finally:
        kind.step = step


def x0_by_its_own_means(scheduler, step, given):
    """What a scheduler itself takes x0 to be before it steps, of the shape of the sample.

    step: of its class; given: {argument: value} of the call.
    """
    out, timestep, x = (given[name] for name in ("model_output", "timestep", "sample"))
    if given.get("per_token_timesteps") is not None:
        scheduler.sigmas = torch.zeros(2)  # one step to the end, for each token from its own sigma
        return step(scheduler, **{k: v for k, v in given.items() if k != "self"})[0]
    if hasattr(scheduler, "convert_model_output"):
        if scheduler.step_index is None:
            scheduler._init_step_index(timestep)
        return scheduler.convert_model_output(out, sample=x)
    if type(scheduler).__name__ == "FlowMapEulerDiscreteScheduler":
        return x - scheduler.sigmas[scheduler.step_index or 0].to(x.dtype) * out
    if type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler":
        sigma = scheduler.sigmas[scheduler.step_index or 0]
        return x + (1 - sigma) * out if scheduler.config.invert_sigmas else x - sigma * out
    return step(scheduler, out, timestep, x).pred_original_sample


def write_detectors(folder, x0):
    """Random detectors of one category, for each step of a recording."""
    for step in range(STEPS):
        detector = build_detector("nano", x0.tensor.shape[2:], "latent", seed=step)
        detector.threshold = 0.5
        detector.about = {
            "category": "odd",
            "categories": ["odd"],
            "group": 1,
            "step": step,
            "sampling": recorded_sampling(x0),
            "dataset": {},
        }
        save_detector(detector, folder / "1" / f"{step}.pth")


def guard_that_says(place, unsafe):
    """A guard of one vote whose detectors give the videos these scores."""
    guard = Guard(place.detectors, 0.5, 1, "cpu")
    Spy(guard, lambda step, found: torch.tensor(unsafe, dtype=torch.float32).view(-1, 1))
    return guard
