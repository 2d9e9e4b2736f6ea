"""Predicted x0 of a denoising step, in closed form, for the schedulers of diffusers.

Predicted x0 is the finished sample that the model implies at a step. It follows from what
`scheduler.step` is given: the noisy sample x_t, the model's (guided) output and the scheduler's
own tables. Pipelines discard it, and some schedulers never compute it.

Sources: `pred_original_sample` of the schedulers of diffusers; "predicted x0" in equation 12 of
DDIM (arXiv 2010.02502); v-prediction of progressive distillation (arXiv 2202.00512, section 4).
"""

import torch

from lvd.errors import InputError
from lvd.x0.schedulers import (
    ALPHAS,
    ANGLE,
    DATA_FLOW,
    EDM,
    FLOWS,
    GRID_FLOW,
    SIGMAS,
    class_name,
    is_clipped,
    is_thresholded,
    need_scheduler,
    own_settings,
)


def predicted_x0(
    scheduler, model_output, timestep, sample, per_token_timesteps=None, pred_original_sample=None
):
    """Return x0 as the scheduler's next `step(model_output, timestep, sample)` implies it.

    Noise that the step itself adds to the sample first (s_churn) is left out: the model has not
    seen it.

    Args:
        scheduler: a scheduler of lvd.x0.schedulers.SCHEDULERS, before it takes the step.
        model_output: what the model predicts, after guidance; of sample's shape, with twice the
            channels where the model predicts the variance too.
        timestep: as `step` takes it, a number or a tensor.
        sample: x_t, of any shape.
        per_token_timesteps: as FlowMatchEulerDiscreteScheduler.step takes them.
        pred_original_sample: x0 itself, as EDMEulerScheduler.step takes it.

    Returns:
        A tensor of sample's shape, float32 or wider, clipped or thresholded where the scheduler
        does so.

    Raises:
        InputError: no closed form is known here for the scheduler's class or prediction_type.
    """
    form = need_scheduler(scheduler)
    if pred_original_sample is not None:
        return _at_least_float32(pred_original_sample)
    settings = own_settings(scheduler)
    x = _at_least_float32(sample)
    out = _of_this_step(form, settings, _at_least_float32(model_output), x)
    if per_token_timesteps is not None:
        return _of_tokens(settings, out, x, per_token_timesteps)
    prediction = settings.get("prediction_type")
    if form == ALPHAS:
        abar = scheduler.alphas_cumprod[int(timestep)]
        x0 = _of_alphas(prediction, out, x, abar**0.5, (1 - abar) ** 0.5)
    elif form == ANGLE:
        angle = scheduler.timesteps[_index(scheduler, timestep)].to(x.device, x.dtype)
        x0 = _of_angle(prediction, out, x, angle)
    else:
        sigma = _sigma(scheduler, timestep, x)
        if form in FLOWS:
            x0 = _of_flow(form, settings, out, x, sigma)
        elif form == SIGMAS:
            x0 = _of_sigmas(prediction, out, x, sigma)
        elif form == EDM:
            x0 = _of_edm(prediction, out, x, sigma, settings["sigma_data"])
        elif prediction == "flow_prediction":
            x0 = x - sigma * out
        else:
            x0 = _of_alphas(prediction, out, x, *scheduler._sigma_to_alpha_sigma_t(sigma))
    if is_thresholded(settings):
        return scheduler._threshold_sample(x0)
    if is_clipped(settings):
        return x0.clamp(-settings["clip_sample_range"], settings["clip_sample_range"])
    return x0


def _of_this_step(form, settings, out, x):
    """The part of the model's output that tells of x0 at this step."""
    if form == GRID_FLOW:  # [..., predictions * channels]; the last one is of x_t itself
        return out[..., -x.shape[-1] :]
    variance_is_learned = str(settings.get("variance_type", "")).startswith("learned")
    if variance_is_learned and out.shape[1] == 2 * x.shape[1]:
        return out[:, : x.shape[1]]  # the rest is the predicted variance
    return out


def _sigma(scheduler, timestep, x):
    """The sigma of the step that the scheduler is about to take, looked up as it does itself."""
    name = class_name(scheduler)
    if name == "FlowMapEulerDiscreteScheduler":  # any timestep, also between its own
        index = scheduler.index_for_timestep(timestep)
        if index is None:
            sigma = torch.as_tensor(timestep) / scheduler.config.num_train_timesteps
            return sigma.to(x.device, x.dtype).reshape(*sigma.shape, *[1] * (x.dim() - sigma.dim()))
    elif name == "HeliosDMDScheduler":
        index = int((scheduler.timesteps - int(timestep)).abs().argmin())
    else:
        index = _index(scheduler, timestep)
    return scheduler.sigmas[index].to(x.device, x.dtype)


def _index(scheduler, timestep):
    """The position in its tables of the step that the scheduler is about to take."""
    if scheduler.step_index is not None:
        return scheduler.step_index
    if class_name(scheduler) == "HeliosScheduler":  # it asks for nothing else
        return 0
    if scheduler.begin_index is not None:
        return scheduler.begin_index
    if torch.is_tensor(timestep):
        timestep = timestep.to(scheduler.timesteps.device)
    if class_name(scheduler) == "PiflowScheduler":
        return int((scheduler.timesteps == timestep).nonzero()[0])
    return scheduler.index_for_timestep(timestep)


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


def _of_edm(prediction, out, x, sigma, sigma_data):
    """The output is scaled and x_t added to it. The scaled model input is made of v by a sign."""
    if prediction not in ("epsilon", "v_prediction"):
        raise InputError(f"prediction_type {prediction}: epsilon or v_prediction is needed")
    size = (sigma**2 + sigma_data**2) ** 0.5
    scaled = out * sigma * sigma_data / size
    return x * (sigma_data / size) ** 2 + (scaled if prediction == "epsilon" else -scaled)


def _of_angle(prediction, out, x, angle):
    if prediction != "trigflow":
        raise InputError(f"prediction_type {prediction}: trigflow is needed")
    return angle.cos() * x - angle.sin() * out


def _of_flow(form, settings, out, x, sigma):
    """Solve x_t = (1 - sigma) x0 + sigma noise for x0, with noise - x0 or its negative."""
    if form == DATA_FLOW:
        return x + sigma * out
    if settings.get("invert_sigmas"):
        return x + (1 - sigma) * out
    return x - sigma * out


def _of_tokens(settings, out, x, timesteps):
    """Each token has a sigma of its own, 0 where it is not denoised.

    `step` goes by (sigma - next sigma) times the output, so pipelines give it x0 - noise. With
    stochastic_sampling it takes noise - x0, as without tokens.
    """
    if settings.get("invert_sigmas"):
        raise InputError(
            "per_token_timesteps with invert_sigmas: such steps go towards noise; "
            "invert_sigmas=False is needed"
        )
    sigma = (timesteps / settings["num_train_timesteps"])[..., None]
    return x - sigma * out if settings.get("stochastic_sampling") else x + sigma * out


def _at_least_float32(tensor):
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
