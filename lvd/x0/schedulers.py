"""The schedulers of diffusers that x0 is known of: how each writes x_t, and what its steps are.

How x0 follows from a step is in lvd.x0.predicted, which settings change x0 in lvd.x0.meaning.
"""

import math
import numbers
from functools import lru_cache
from inspect import signature

import torch

from lvd.errors import InputError

# How each scheduler writes x_t in terms of x0 and noise, and what its model predicts. A class that
# is not listed is refused: a wrong formula would show noise to the detectors. abar_t is diffusers'
# alphas_cumprod[t].
ALPHAS = "sqrt(abar_t) x0 + sqrt(1 - abar_t) noise, abar by timestep"
SIGMAS = "x0 + sigma noise, sigma by step"
SCALED = "alpha x0 + alpha' noise, from sigma by step: sqrt(1 + sigma^2) or, for flows, 1 - sigma"
EDM = "x0 + sigma noise, x0 = c_skip x_t + c_out output (arXiv 2206.00364, table 1)"
FLOW = (
    "(1 - sigma) x0 + sigma noise, velocity predicted; invert_sigmas (Mochi): sigma x0 + (1 - "
    "sigma) noise; sigmas above 1 (Cosmos 2): x0 + sigma noise"
)
MEAN_FLOW = "(1 - sigma) x0 + sigma noise, mean velocity between this step and the next predicted"
GRID_FLOW = "(1 - sigma) x0 + sigma noise, velocities of the next sigmas predicted side by side"
DATA_FLOW = "(1 - sigma) x0 + sigma noise, velocity towards x0 predicted"
ANGLE = "cos(t) x0 + sin(t) sigma_data noise, its derivative by t over sigma_data predicted"
SCHEDULERS = {
    "DDIMScheduler": ALPHAS,
    "DDIMParallelScheduler": ALPHAS,
    "DDPMScheduler": ALPHAS,
    "DDPMParallelScheduler": ALPHAS,
    "PNDMScheduler": ALPHAS,
    "LCMScheduler": ALPHAS,
    "TCDScheduler": ALPHAS,
    "CogVideoXDDIMScheduler": ALPHAS,
    "CogVideoXDPMScheduler": ALPHAS,
    "EulerDiscreteScheduler": SIGMAS,
    "EulerAncestralDiscreteScheduler": SIGMAS,
    "LMSDiscreteScheduler": SIGMAS,
    "HeunDiscreteScheduler": SIGMAS,
    "KDPM2DiscreteScheduler": SIGMAS,
    "KDPM2AncestralDiscreteScheduler": SIGMAS,
    "DPMSolverSDEScheduler": SIGMAS,
    "DPMSolverMultistepScheduler": SCALED,
    "DPMSolverSinglestepScheduler": SCALED,
    "UniPCMultistepScheduler": SCALED,
    "DEISMultistepScheduler": SCALED,
    "SASolverScheduler": SCALED,
    "HeliosScheduler": SCALED,
    "EDMEulerScheduler": EDM,
    "EDMDPMSolverMultistepScheduler": EDM,
    "FlowMatchEulerDiscreteScheduler": FLOW,
    "FlowMatchHeunDiscreteScheduler": FLOW,
    "FlowMatchLCMScheduler": FLOW,
    "LTXEulerAncestralRFScheduler": FLOW,
    "HeliosDMDScheduler": FLOW,
    "FlowMapEulerDiscreteScheduler": MEAN_FLOW,
    "PiflowScheduler": GRID_FLOW,
    "MiniMaxH3Scheduler": DATA_FLOW,
    "SCMScheduler": ANGLE,
}
FLOWS = (FLOW, MEAN_FLOW, GRID_FLOW, DATA_FLOW)
# Why other classes of diffusers are not in the table.
TOKENS = "it decides tokens, of which there is no predicted x0"
BACKWARDS = "it goes from the video to noise"
IMAGES = "it is for images alone"
SOUND = "it is for sound alone"
REFUSED = {
    "AmusedScheduler": TOKENS,
    "BlockRefinementScheduler": TOKENS,
    "DiscreteDDIMScheduler": TOKENS,
    "EntropyBoundScheduler": TOKENS,
    "VQDiffusionScheduler": TOKENS,
    "DDIMInverseScheduler": BACKWARDS,
    "DPMSolverMultistepInverseScheduler": BACKWARDS,
    "CMStochasticIterativeScheduler": IMAGES,
    "DDPMWuerstchenScheduler": IMAGES,
    "KarrasVeScheduler": IMAGES,
    "RePaintScheduler": IMAGES,
    "ScoreSdeVeScheduler": IMAGES,
    "UnCLIPScheduler": IMAGES,
    "CosineDPMSolverMultistepScheduler": SOUND,
    "IPNDMScheduler": SOUND,
    "RFD4ProteinaScheduler": "it is for proteins",
}
# These do not clip x0, though they may have the setting clip_sample.
NO_CLIP = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "PNDMScheduler", "TCDScheduler")


def need_scheduler(scheduler):
    """Return how the scheduler writes x_t: one of the forms above, such as ALPHAS.

    Raises:
        InputError: x0 is not known here of the scheduler's class or of its settings.
    """
    name = class_name(scheduler)
    if name in REFUSED:
        raise InputError(f"{name}: {REFUSED[name]}; a scheduler of a video pipeline is needed")
    if name not in SCHEDULERS:
        raise InputError(
            f"{name}: no closed form of x0 is known for this scheduler; one of the "
            f"{len(SCHEDULERS)} in lvd.x0.schedulers.SCHEDULERS is needed, such as DDIMScheduler"
        )
    settings = own_settings(scheduler)
    if name.startswith("Helios") and settings["stages"] > 1:
        raise InputError(
            f"{name}: its {settings['stages']} stages end in smaller videos that are still noisy, "
            "not in x0; stages=1 is needed"
        )
    return form_of(settings)


def form_of(settings):
    """Return how a scheduler writes x_t, of {"class": its name, setting: value, ...}, or None."""
    name = settings.get("class")
    if name == "HeliosScheduler" and settings.get("scheduler_type") == "euler":
        return FLOW
    return SCHEDULERS.get(name)


def class_name(scheduler):
    """Return the name of the scheduler's class, the same while it is watched."""
    return type(scheduler).__name__


def describe_scheduler(scheduler):
    """Return {"class": its name, setting: value, ...} as plain JSON.

    This is what x0 depends on: recordings and detectors keep it.
    """
    description = {"class": class_name(scheduler)}
    for key, value in scheduler.config.items():
        if not key.startswith("_"):
            description[key] = plain(value)
    return description


def own_settings(scheduler):
    """Return {"class": its name, setting: value, ...} of the settings that its class knows.

    `from_config` keeps the others too, of which the scheduler takes no notice.
    """
    config = scheduler.config
    known = _known_settings(type(scheduler).__init__)
    own = {name: config[name] for name in known if name in config}
    return {"class": class_name(scheduler), **own}


@lru_cache(maxsize=100)
def _known_settings(init):
    return tuple(signature(init).parameters)


def is_thresholded(settings):
    """Tell of {"class": name, setting: value, ...} whether x0 is thresholded."""
    if settings["class"] in NO_CLIP or settings.get("predict_x0") is False:  # UniPC of noise
        return False
    return bool(settings.get("thresholding"))


def is_clipped(settings):
    """Tell of {"class": name, setting: value, ...} whether x0 is clipped, if not thresholded."""
    return settings["class"] not in NO_CLIP and bool(settings.get("clip_sample"))


def timesteps_of(scheduler):
    """Return [timestep of each denoising step], whole or decimal numbers.

    The further model calls of a step, as PNDM and Heun have them, are not steps of their own.
    """
    timesteps = scheduler.timesteps.tolist()
    return [timesteps[position] for position in positions_of(scheduler)]


def positions_of(scheduler):
    """Return the position in `scheduler.timesteps` of each denoising step's first model call."""
    name = class_name(scheduler)
    calls = list(range(len(scheduler.timesteps)))
    if name == "PNDMScheduler":
        return [call for call in calls if begins_pndm_step(call, scheduler)]
    if name in ("LTXEulerAncestralRFScheduler", "SCMScheduler"):
        return calls[: scheduler.num_inference_steps]  # their timesteps may include the end
    return calls[:: scheduler.order]  # 2: Heun's and its like


def begins_step(scheduler):
    """Tell whether the scheduler's next call of `step` begins a denoising step."""
    if class_name(scheduler) == "PNDMScheduler":
        return begins_pndm_step(scheduler.counter, scheduler)
    return getattr(scheduler, "state_in_first_order", True)


def only_asks(scheduler, given):
    """Tell whether a call of `step`, with {argument: value}, is only to ask for x0.

    The pipelines of Cosmos call EDMEulerScheduler.step twice a step: for x0 with and without the
    prompt, and then with the guided x0, `pred_original_sample`. In between they turn it back.
    """
    if class_name(scheduler) != "EDMEulerScheduler":
        return False
    return given.get("pred_original_sample") is None


def signal_and_noise(scheduler, position):
    """Return alpha and sigma of x_t = alpha x0 + sigma noise, two floats.

    Args:
        scheduler: a scheduler of the table above, after `set_timesteps`.
        position: in `scheduler.timesteps`.
    """
    form = need_scheduler(scheduler)
    if form == ALPHAS:
        abar = float(scheduler.alphas_cumprod[int(scheduler.timesteps[position])])
        return abar**0.5, (1 - abar) ** 0.5
    if form == ANGLE:
        angle = float(scheduler.timesteps[position])
        return math.cos(angle), math.sin(angle) * scheduler.config.sigma_data
    sigma = scheduler.sigmas[position].double()
    if form == SCALED:
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(sigma)
        return float(alpha), float(sigma)
    if form in (SIGMAS, EDM) or (form == FLOW and adds_noise(scheduler.sigmas)):
        return 1.0, float(sigma)
    if own_settings(scheduler).get("invert_sigmas"):
        return float(sigma), 1 - float(sigma)
    return 1 - float(sigma), float(sigma)


def adds_noise(sigmas):
    """Tell of a flow scheduler whether its samples are x0 + sigma noise all the same.

    No share of noise is above 1. Cosmos 2 gives FlowMatchEulerDiscreteScheduler sigmas from 80 to
    0.002, and scales what its model reads by 1 / (sigma + 1) itself; x0 = x_t - sigma output holds
    for both.

    Args:
        sigmas: of all its steps, a tensor or a list.
    """
    return float(torch.as_tensor(sigmas).max()) > 1


def begins_pndm_step(call, scheduler):
    """Tell whether this call (a number from 0) of PNDMScheduler.step begins a denoising step.

    Its first three steps take four model calls each. With skip_prk_steps, as in Stable Diffusion,
    the first step takes two.
    """
    if call < len(scheduler.prk_timesteps):
        return call % 4 == 0
    return call != 1 or len(scheduler.prk_timesteps) > 0


def plain(value):
    """Return the value as JSON holds it."""
    if value is None or isinstance(value, (bool, str, numbers.Integral)):
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return str(value)
