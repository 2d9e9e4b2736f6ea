"""Predicted x0 at every step of any diffusers sampler, without a copy of its pipeline:
`scheduler.step` is watched.

x0 is the finished sample that the model predicts at a step, in closed form from what the scheduler
is given: x_t, the model's (guided) output and the scheduler's own tables. Pipelines discard it;
schedulers of the second kind below never compute it as such.
"""

import numbers

import torch

from lvd.errors import InputError

# How each scheduler writes x_t in terms of x0 and noise; a class that is not listed is refused, not
# guessed.
ALPHAS = "sqrt(abar_t) x0 + sqrt(1 - abar_t) noise, abar by timestep"
SIGMAS = "x0 + sigma noise, sigma by step"
SCALED = "alpha x0 + alpha' noise, from sigma by step: sqrt(1 + sigma^2) or, for flows, 1 - sigma"
FLOW = (
    "(1 - sigma) x0 + sigma noise, velocity predicted; invert_sigmas (Mochi): sigma x0 + (1 - "
    "sigma) noise"
)
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
    "DPMSolverMultistepScheduler": SCALED,
    "DPMSolverSinglestepScheduler": SCALED,
    "UniPCMultistepScheduler": SCALED,
    "DEISMultistepScheduler": SCALED,
    "SASolverScheduler": SCALED,
    "FlowMatchEulerDiscreteScheduler": FLOW,
    "FlowMatchLCMScheduler": FLOW,
}
# CogVideoX's have the setting clip_sample, but do not clip.
NO_CLIP = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "PNDMScheduler", "TCDScheduler")


def predicted_x0(scheduler, model_output, timestep, sample, per_token_timesteps=None):
    """x0 as the scheduler's next `step(model_output, timestep, sample)` sees it, float32 (or
    wider), of sample's shape.

    Clipped or thresholded where the scheduler does so. per_token_timesteps: as FlowMatchEuler's
    step takes them. InputError for a scheduler class or prediction type without a closed form here.
    """
    kind, config = need_scheduler(scheduler), scheduler.config
    out, x = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (model_output, sample))
    if out.shape[1] == 2 * x.shape[1] and str(config.get("variance_type", "")).startswith(
        "learned"
    ):
        out = out[:, : x.shape[1]]  # the rest is the predicted variance
    if kind == FLOW:
        sigma = _sigma(scheduler, timestep, x)
        if per_token_timesteps is not None:
            sigma = (per_token_timesteps / config.num_train_timesteps)[..., None]
        return x + (1 - sigma) * out if config.get("invert_sigmas") else x - sigma * out
    if kind == SIGMAS:
        return _of_sigmas(config.prediction_type, out, x, _sigma(scheduler, timestep, x))
    if kind == ALPHAS:
        abar = scheduler.alphas_cumprod[int(timestep)]
        x0 = _of_alphas(config.prediction_type, out, x, abar**0.5, (1 - abar) ** 0.5)
    elif config.prediction_type == "flow_prediction":
        x0 = x - _sigma(scheduler, timestep, x) * out
    else:
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(_sigma(scheduler, timestep, x))
        x0 = _of_alphas(config.prediction_type, out, x, alpha, sigma)
    return _clipped(scheduler, x0)


def need_scheduler(scheduler):
    """How the scheduler writes x_t (a key of the table above); InputError for a class that is not
    in it."""
    name = class_name(scheduler)
    if name not in SCHEDULERS:
        raise InputError(
            f"{name}: no closed form of x0 is known for this scheduler, only for "
            f"{', '.join(SCHEDULERS)}"
        )
    return SCHEDULERS[name]


def class_name(scheduler):
    return type(scheduler).__name__


def describe_scheduler(scheduler):
    """{"class": name, and its settings}, plain JSON: what its x0 depend on, for the provenance of a
    recording."""
    settings = {
        key: _plain(value) for key, value in scheduler.config.items() if not key.startswith("_")
    }
    return {"class": class_name(scheduler), **settings}


def timesteps_of(scheduler):
    """[timestep of each denoising step], whole or decimal numbers. PNDM's extra model calls are no
    steps of their own."""
    found = scheduler.timesteps.tolist()
    if class_name(scheduler) == "PNDMScheduler":
        counts = [pndm_counts(call, scheduler) for call in range(len(found))]
        found = [timestep for timestep, counted in zip(found, counts, strict=True) if counted]
    return found


def pndm_counts(call, scheduler):
    """Is this call of PNDM's step a denoising step's own? Its first three steps take four model
    calls each, or, as in Stable Diffusion, its first step two."""
    if call < len(scheduler.prk_timesteps):
        return call % 4 == 0
    return call != 1 or len(scheduler.prk_timesteps) > 0


def _sigma(scheduler, timestep, x):
    """The scheduler's sigma of the step that it is about to take, as it finds it itself."""
    at = scheduler.step_index
    if at is None:
        at = scheduler.begin_index
    if at is None:
        at = scheduler.index_for_timestep(
            timestep.to(scheduler.timesteps.device) if torch.is_tensor(timestep) else timestep
        )
    return scheduler.sigmas[at].to(x.device, x.dtype)


def _of_alphas(prediction, out, x, alpha, sigma):
    """x_t = alpha x0 + sigma noise."""
    if prediction == "epsilon":
        return (x - sigma * out) / alpha
    if prediction == "v_prediction":
        return alpha * x - sigma * out
    return _of_sample(prediction, out)


def _of_sigmas(prediction, out, x, sigma):
    """x_t = x0 + sigma noise; v is that of x_t / sqrt(1 + sigma^2), which is what the model sees."""
    if prediction == "epsilon":
        return x - sigma * out
    if prediction == "v_prediction":
        return x / (sigma**2 + 1) - out * sigma / (sigma**2 + 1) ** 0.5
    return _of_sample("sample" if prediction == "original_sample" else prediction, out)


def _of_sample(prediction, out):
    if prediction != "sample":
        raise InputError(
            f"prediction_type {prediction}: epsilon, v_prediction, sample or a flow is needed"
        )
    return out


def _clipped(scheduler, x0):
    config = scheduler.config
    if config.get("thresholding") and class_name(scheduler) not in NO_CLIP:
        return scheduler._threshold_sample(x0)
    if config.get("clip_sample") and class_name(scheduler) not in NO_CLIP:
        return x0.clamp(-config.clip_sample_range, config.clip_sample_range)
    return x0


def _plain(value):
    if value is None or isinstance(value, (bool, str, numbers.Integral)):
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else str(value)
