"""Noise schedulers: how a video is denoised, from the sampling YAML to each step.

MagicTime samples by DDIM. The others are schedulers of diffusers for the same model: the betas, and
all else that says what the model learned (noise_scheduler_kwargs), stay the same; how the steps are
spaced and joined is theirs.
"""

from inspect import signature
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator

from lvd.errors import InputError, words_of
from lvd.utils.schema import Finite, Schema, checked
from lvd.x0.predicted import predicted_x0

DDIM = "ddim"
# What a sampling YAML calls them → classes of diffusers.
SCHEDULERS = {
    DDIM: "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}
NOISY = (SCHEDULERS["euler_a"], SCHEDULERS["lcm"])  # these draw new noise at every step
# Settings that only some classes have, and the value that changes nothing where one lacks them.
WITHOUT_EFFECT = {"clip_sample": False, "thresholding": False, "set_alpha_to_one": True}
LCM_STEPS = 50  # the least that LCM chooses its steps from, as in its paper

Beta = Annotated[Finite, Field(gt=0, lt=1)]
Size = Annotated[Finite, Field(gt=0, le=1e6)]
TrainTimesteps = Annotated[int, Field(ge=1, le=100_000)]


class NoiseSchedule(Schema):
    """noise_scheduler_kwargs: the arguments of diffusers' DDIMScheduler, with its defaults."""

    num_train_timesteps: TrainTimesteps = 1000
    beta_start: Beta = 0.0001
    beta_end: Beta = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: list[Beta] | None = None
    clip_sample: bool = True
    set_alpha_to_one: bool = True
    steps_offset: Annotated[int, Field(ge=0, le=100_000)] = 0
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    thresholding: bool = False
    dynamic_thresholding_ratio: Annotated[Finite, Field(gt=0, le=1)] = 0.995
    clip_sample_range: Size = 1.0
    sample_max_value: Size = 1.0
    timestep_spacing: Literal["linspace", "leading", "trailing"] = "leading"
    rescale_betas_zero_snr: bool = False

    @model_validator(mode="after")
    def _one_beta_a_timestep(self):
        if self.trained_betas is not None and len(self.trained_betas) != self.num_train_timesteps:
            raise ValueError(
                f"{len(self.trained_betas)} trained_betas for {self.num_train_timesteps} "
                "num_train_timesteps; as many are needed"
            )
        return self


def make_scheduler(kwargs, path, steps, name=DDIM):
    """Make the noise scheduler from the YAML alone.

    The base folder's scheduler file is not read, as in MagicTime.

    Args:
        kwargs: arguments of diffusers' DDIMScheduler.
        path: of the YAML, for messages.
        steps: denoising steps.
        name: of SCHEDULERS.

    Returns:
        A scheduler of diffusers with its timesteps set.

    Raises:
        InputError: an argument that the scheduler does not take, too many steps, or a step at which
            x0 cannot be predicted.
    """
    import diffusers

    where = f"{path} (noise_scheduler_kwargs)"
    checked(NoiseSchedule, kwargs, where)
    kind = getattr(diffusers, SCHEDULERS[name])
    if name != DDIM:
        kwargs = _arguments_of(kind, name, kwargs, steps, where)
    try:
        scheduler = kind(**kwargs)
        scheduler.set_timesteps(steps)
    except (NotImplementedError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{where}: {words_of(error, 160)}") from error
    _need_timesteps(scheduler, path, steps)
    _need_signal(scheduler, where)
    return scheduler


def _arguments_of(kind, name, kwargs, steps, where):
    """Return the arguments of a scheduler's class that say the same as those of DDIMScheduler."""
    settings = NoiseSchedule(**kwargs).model_dump()
    accepted = signature(kind.__init__).parameters
    for key, value in WITHOUT_EFFECT.items():
        if key not in accepted and settings[key] != value:
            raise InputError(
                f"{where}: {key}={str(settings[key]).lower()}, which scheduler {name} does not "
                f"have; {key}: {str(value).lower()} or scheduler: {DDIM} is needed"
            )
    if name == "euler_a" and settings["prediction_type"] == "sample":
        raise InputError(
            f"{where}: prediction_type=sample, which scheduler {name} does not have; epsilon, "
            "v_prediction or another scheduler is needed"
        )
    arguments = {key: value for key, value in settings.items() if key in accepted}
    if name == "lcm":
        most = settings["num_train_timesteps"]
        arguments["original_inference_steps"] = min(max(LCM_STEPS, steps), most)
    return arguments


def _need_timesteps(scheduler, path, steps):
    """Refuse more steps than the noise schedule has room for."""
    timesteps = scheduler.timesteps.tolist()
    last = scheduler.config.num_train_timesteps - 1
    if max(timesteps) > last:
        raise InputError(
            f"{path}: steps={steps} reach timestep {max(timesteps):g}, the noise schedule ends at "
            f"{last}; fewer steps are needed"
        )
    if len(set(timesteps)) != steps:
        raise InputError(
            f"{path}: steps={steps} make {len(set(timesteps))} different timesteps of the noise "
            f"schedule's {last + 1}; another number of steps is needed"
        )


def _need_signal(scheduler, where):
    """Refuse steps at which nothing is known of x0."""
    config = scheduler.config
    timesteps = scheduler.timesteps.long()
    shares = scheduler.alphas_cumprod[timesteps]
    nothing = shares.min() <= 0
    if config.rescale_betas_zero_snr:  # some classes put a tiny number in place of the last 0
        nothing = nothing or int(timesteps.max()) == config.num_train_timesteps - 1
    if config.prediction_type == "epsilon" and nothing:
        raise InputError(
            f"{where}: at timestep {int(timesteps.max())} nothing of the video is left in the "
            "noise (zero terminal SNR), where epsilon says nothing of x0; prediction_type "
            "v_prediction, or rescale_betas_zero_snr false, is needed"
        )


def take_step(scheduler, noise, timestep, latents, generators):
    """Take one denoising step.

    Args:
        scheduler: of `make_scheduler`.
        noise: what the UNet predicts, after guidance [B, C, F, h, w].
        timestep: of the step, a number of the scheduler's timesteps.
        latents: x_t [B, C, F, h, w].
        generators: [torch.Generator] of length B, one a video. A scheduler that draws noise draws
            from them, so that a video does not depend on the others of its batch.

    Returns:
        (latents after the step, in their dtype; predicted x0 [B, C, F, h, w]).
    """
    if type(scheduler).__name__ == SCHEDULERS[DDIM]:
        result = scheduler.step(noise, timestep, latents)
        return result.prev_sample, result.pred_original_sample
    # In float32: noise that is drawn is the same in every dtype, as the initial noise is.
    at_least = torch.promote_types(latents.dtype, torch.float32)
    wide_noise, wide_latents = noise.to(at_least), latents.to(at_least)
    x0 = predicted_x0(scheduler, wide_noise, timestep, wide_latents)
    drawn = {"generator": generators} if type(scheduler).__name__ in NOISY else {}
    result = scheduler.step(wide_noise, timestep, wide_latents, **drawn)
    return result.prev_sample.to(latents.dtype), x0


def keep_videos(scheduler, kept):
    """Make a scheduler that remembers earlier steps forget the videos that were dropped.

    Args:
        scheduler: between two steps.
        kept: places of the videos that go on.
    """
    outputs = getattr(scheduler, "model_outputs", None)  # of the multistep solvers
    if outputs is not None:
        scheduler.model_outputs = [None if each is None else each[kept] for each in outputs]
    last = getattr(scheduler, "last_sample", None)  # UniPC's
    if last is not None:
        scheduler.last_sample = last[kept]


def alpha_bar_of(scheduler, step, timestep):
    """Return the video's share of the variance at a step: x_t = sqrt(abar) x0 + ... noise.

    Schedulers that know sigma, the noise beside an x0 of scale 1, have abar = 1 / (1 + sigma^2).

    Args:
        scheduler: of `make_scheduler`.
        step: its number, from 0.
        timestep: of the step.
    """
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        return 1 / (1 + sigmas[step].item() ** 2)
    return scheduler.alphas_cumprod[int(timestep)].item()
