"""Predicted x0 of a denoising step, in closed form, for the schedulers of diffusers.

Predicted x0 is the finished sample that the model implies at a step. It follows from what
`scheduler.step` is given: the noisy sample x_t, the model's (guided) output and the scheduler's
own tables. Pipelines discard it, and some schedulers never compute it.

Sources: `pred_original_sample` of the schedulers of diffusers; "predicted x0" in equation 12 of
DDIM (arXiv 2010.02502); v-prediction of progressive distillation (arXiv 2202.00512, section 4).
"""

import numbers
from inspect import Parameter, signature

import torch

from lvd.errors import InputError

# How each scheduler writes x_t in terms of x0 and noise. A class that is not listed is refused: a
# wrong formula would show noise to the detectors. abar_t is diffusers' alphas_cumprod[t].
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
# These do not clip x0, though they may have the setting clip_sample.
NO_CLIP = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "PNDMScheduler", "TCDScheduler")


def predicted_x0(scheduler, model_output, timestep, sample, per_token_timesteps=None):
    """Return x0 as the scheduler's next `step(model_output, timestep, sample)` implies it.

    Args:
        scheduler: a scheduler of the table above, before it takes the step.
        model_output: what the model predicts, after guidance; of sample's shape, with twice the
            channels where the model predicts the variance too.
        timestep: as `step` takes it, a number or a tensor.
        sample: x_t, of any shape.
        per_token_timesteps: as FlowMatchEulerDiscreteScheduler.step takes them.

    Returns:
        A tensor of sample's shape, float32 or wider, clipped or thresholded where the scheduler
        does so.

    Raises:
        InputError: no closed form is known here for the scheduler's class or prediction_type.
    """
    kind = need_scheduler(scheduler)
    config = scheduler.config
    out = _at_least_float32(model_output)
    x = _at_least_float32(sample)
    variance_is_learned = str(config.get("variance_type", "")).startswith("learned")
    if variance_is_learned and out.shape[1] == 2 * x.shape[1]:
        out = out[:, : x.shape[1]]  # the rest is the predicted variance
    if kind == FLOW:
        sigma = _sigma(scheduler, timestep, x)
        if per_token_timesteps is not None:
            sigma = (per_token_timesteps / config.num_train_timesteps)[..., None]
        if config.get("invert_sigmas"):
            return x + (1 - sigma) * out
        return x - sigma * out
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
    """Return how the scheduler writes x_t: ALPHAS, SIGMAS, SCALED or FLOW.

    Raises:
        InputError: the scheduler's class is not in the table.
    """
    name = class_name(scheduler)
    if name not in SCHEDULERS:
        raise InputError(
            f"{name}: no closed form of x0 is known for this scheduler, only for "
            f"{', '.join(SCHEDULERS)}"
        )
    return SCHEDULERS[name]


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


def full_scheduler(recorded):
    """Return all settings of a scheduler of which only some are recorded.

    The others are the defaults of its class. Settings that the class does not know are left out:
    `from_config` keeps those of another scheduler. Nothing is made of what a file says: a class
    that x0 is not known of here is left as it is.
    """
    import diffusers

    name = recorded.get("class") if isinstance(recorded, dict) else None
    is_known = isinstance(name, str) and name in SCHEDULERS
    kind = getattr(diffusers, name, None) if is_known else None
    if kind is None:
        return recorded
    full = {"class": name}
    for setting, parameter in settings_of(kind).items():
        if setting in recorded:
            full[setting] = recorded[setting]
        elif parameter.default is not Parameter.empty:
            full[setting] = plain(parameter.default)
    return full


def settings_of(kind):
    """Return {setting: parameter} of what a scheduler's class is made with."""
    return signature(kind.__init__).parameters


# The settings that tell how much noise the model's timesteps mean. Flows have none of them.
BETAS = (
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "trained_betas",
    "rescale_betas_zero_snr",
    "snr_shift_scale",
)


def meaning_of(description):
    """Return the settings of a scheduler that change what x0 means, and no others.

    With equal meanings, the same model says the same of x0 at a noise level, whatever the class
    of the scheduler, the number of its steps, their spacing and the order of the solver.

    Args:
        description: what `describe_scheduler` returns; settings that are missing have the
            defaults of the class.

    Returns:
        {setting: value}: prediction_type, where every flow is "flow_prediction"; unless it is a
        flow, the settings of BETAS that are in use; clip_sample_range where x0 is clipped;
        dynamic_thresholding_ratio and sample_max_value where it is thresholded. The whole
        description where x0 of the class is not known here.
    """
    full = full_scheduler(description)
    kind = SCHEDULERS.get(full.get("class"))
    if kind is None:
        return dict(full)
    meaning = {"prediction_type": _prediction(kind, full)}
    if not (kind == FLOW or full.get("use_flow_sigmas")):
        meaning.update(_betas(full))
    if _is_thresholded(full):
        for setting in ("dynamic_thresholding_ratio", "sample_max_value"):
            meaning[setting] = full.get(setting)
    elif _is_clipped(full):
        meaning["clip_sample_range"] = full.get("clip_sample_range")
    return meaning


def _prediction(kind, full):
    if kind == FLOW:
        return "inverted_flow_prediction" if full.get("invert_sigmas") else "flow_prediction"
    prediction = full.get("prediction_type")
    return "sample" if prediction == "original_sample" else prediction


def _betas(full):
    """The settings of BETAS that are in use, of a full description."""
    if full.get("trained_betas") is not None:
        used = {"trained_betas": full["trained_betas"]}
    else:
        used = {name: full.get(name) for name in ("num_train_timesteps", "beta_schedule")}
        if full.get("beta_schedule") in ("linear", "scaled_linear", "sigmoid"):
            used |= {name: full.get(name) for name in ("beta_start", "beta_end")}
    used["rescale_betas_zero_snr"] = bool(full.get("rescale_betas_zero_snr"))
    used["snr_shift_scale"] = full.get("snr_shift_scale", 1.0)
    return used


def _is_thresholded(full):
    """Tell of a full description whether x0 is thresholded."""
    return full["class"] not in NO_CLIP and bool(full.get("thresholding"))


def _is_clipped(full):
    """Tell of a full description whether x0 is clipped."""
    return full["class"] not in NO_CLIP and bool(full.get("clip_sample"))


def timesteps_of(scheduler):
    """Return [timestep of each denoising step], whole or decimal numbers.

    PNDM's extra model calls are not steps of their own.
    """
    timesteps = scheduler.timesteps.tolist()
    return [timesteps[position] for position in positions_of(scheduler)]


def positions_of(scheduler):
    """Return the position in `scheduler.timesteps` of each denoising step's first model call."""
    calls = range(len(scheduler.timesteps))
    if class_name(scheduler) != "PNDMScheduler":
        return list(calls)
    return [call for call in calls if begins_pndm_step(call, scheduler)]


def signal_and_noise(scheduler, position):
    """Return alpha and sigma of x_t = alpha x0 + sigma noise, two floats.

    Args:
        scheduler: a scheduler of the table above, after `set_timesteps`.
        position: in `scheduler.timesteps`.
    """
    kind = need_scheduler(scheduler)
    if kind == ALPHAS:
        abar = float(scheduler.alphas_cumprod[int(scheduler.timesteps[position])])
        return abar**0.5, (1 - abar) ** 0.5
    sigma = scheduler.sigmas[position].double()
    if kind == SCALED:
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(sigma)
        return float(alpha), float(sigma)
    if kind == SIGMAS:
        return 1.0, float(sigma)
    if scheduler.config.get("invert_sigmas"):
        return float(sigma), 1 - float(sigma)
    return 1 - float(sigma), float(sigma)


def begins_pndm_step(call, scheduler):
    """Tell whether this call (a number from 0) of PNDMScheduler.step begins a denoising step.

    Its first three steps take four model calls each. With skip_prk_steps, as in Stable Diffusion,
    the first step takes two.
    """
    if call < len(scheduler.prk_timesteps):
        return call % 4 == 0
    return call != 1 or len(scheduler.prk_timesteps) > 0


def _sigma(scheduler, timestep, x):
    """The sigma of the step that the scheduler is about to take, looked up as it does itself."""
    index = scheduler.step_index
    if index is None:
        index = scheduler.begin_index
    if index is None:
        if torch.is_tensor(timestep):
            timestep = timestep.to(scheduler.timesteps.device)
        index = scheduler.index_for_timestep(timestep)
    return scheduler.sigmas[index].to(x.device, x.dtype)


def _of_alphas(prediction, out, x, alpha, sigma):
    """Solve x_t = alpha x0 + sigma noise for x0; v = alpha noise - sigma x0."""
    if prediction == "epsilon":
        if not alpha > 0:
            raise InputError(
                "scheduler: nothing of the video is left in the noise at this step (zero terminal "
                "SNR), where epsilon says nothing of x0; prediction_type v_prediction is needed"
            )
        return (x - sigma * out) / alpha
    if prediction == "v_prediction":
        return alpha * x - sigma * out
    return _of_sample(prediction, out)


def _of_sigmas(prediction, out, x, sigma):
    """Solve x_t = x0 + sigma noise for x0; v is that of the model input x_t / sqrt(1 + sigma^2)."""
    if prediction == "epsilon":
        return x - sigma * out
    if prediction == "v_prediction":
        return x / (sigma**2 + 1) - out * sigma / (sigma**2 + 1) ** 0.5
    if prediction == "original_sample":  # another name of it
        return out
    return _of_sample(prediction, out)


def _of_sample(prediction, out):
    if prediction != "sample":
        raise InputError(
            f"prediction_type {prediction}: epsilon, v_prediction, sample or a flow is needed"
        )
    return out


def _clipped(scheduler, x0):
    config = scheduler.config
    if class_name(scheduler) in NO_CLIP:
        return x0
    if config.get("thresholding"):
        return scheduler._threshold_sample(x0)
    if config.get("clip_sample"):
        return x0.clamp(-config.clip_sample_range, config.clip_sample_range)
    return x0


def _at_least_float32(tensor):
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def plain(value):
    """Return the value as JSON holds it."""
    if value is None or isinstance(value, (bool, str, numbers.Integral)):
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return str(value)
