"""A model that knows the true x0, for each scheduler: the predicted x0 must be the true one."""

import inspect
import math

import diffusers
import pytest
import torch

X0 = 0.3 * torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

# CASES: scheduler, form, predictions, settings. The form says how alpha and sigma of x_t =
# alpha x0 + sigma noise follow from a position in the scheduler's tables. It is written apart from
# lvd.x0.schedulers.
BY_TIMESTEP, BY_SIGMA, SCALED, FLOW, INVERTED = (
    "abar",
    "sigma",
    "scaled sigma",
    "flow",
    "inverted flow",
)
EDM, DATA_FLOW, GRID_FLOW, ANGLE = "edm", "flow to the data", "ten flows side by side", "angle"
SIGMA_DATA = 0.5
ALL, DIFFUSION = ("epsilon", "v_prediction", "sample"), ("epsilon", "v_prediction")
CASES = [
    ("DDIMScheduler", BY_TIMESTEP, ALL, dict(clip_sample=False, **BETAS)),
    (
        "DDIMScheduler",
        BY_TIMESTEP,
        ("v_prediction",),
        dict(clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing"),
    ),
    ("DDIMParallelScheduler", BY_TIMESTEP, ALL, dict(clip_sample=False)),
    ("DDPMScheduler", BY_TIMESTEP, ALL, dict(clip_sample=False, **BETAS)),
    ("DDPMParallelScheduler", BY_TIMESTEP, ALL, dict(clip_sample=False)),
    ("PNDMScheduler", BY_TIMESTEP, DIFFUSION, dict(skip_prk_steps=True, steps_offset=1, **BETAS)),
    ("PNDMScheduler", BY_TIMESTEP, DIFFUSION, dict(skip_prk_steps=False)),
    ("LCMScheduler", BY_TIMESTEP, ALL, {}),
    ("TCDScheduler", BY_TIMESTEP, ALL, {}),
    (
        "CogVideoXDDIMScheduler",
        BY_TIMESTEP,
        ALL,
        dict(snr_shift_scale=3.0, clip_sample=True),
    ),  # which it does not do
    (
        "CogVideoXDPMScheduler",
        BY_TIMESTEP,
        ALL,
        dict(timestep_spacing="trailing", clip_sample=True),
    ),
    ("EulerDiscreteScheduler", BY_SIGMA, ALL, BETAS),
    (
        "EulerDiscreteScheduler",
        BY_SIGMA,
        ("v_prediction",),
        dict(use_karras_sigmas=True, timestep_type="continuous", sigma_min=0.002, sigma_max=700.0),
    ),
    ("EulerAncestralDiscreteScheduler", BY_SIGMA, DIFFUSION, BETAS),
    ("LMSDiscreteScheduler", BY_SIGMA, ALL, BETAS),
    ("DPMSolverMultistepScheduler", SCALED, ALL, BETAS),
    (
        "DPMSolverMultistepScheduler",
        SCALED,
        ALL,
        dict(algorithm_type="sde-dpmsolver++", use_karras_sigmas=True),
    ),
    (
        "DPMSolverMultistepScheduler",
        SCALED,
        ("epsilon",),
        dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min"),
    ),
    (
        "DPMSolverMultistepScheduler",
        FLOW,
        ("flow_prediction",),
        dict(use_flow_sigmas=True, flow_shift=3.0),
    ),
    ("DPMSolverSinglestepScheduler", SCALED, ALL, BETAS),
    ("DPMSolverSinglestepScheduler", FLOW, ("flow_prediction",), dict(use_flow_sigmas=True)),
    ("UniPCMultistepScheduler", SCALED, ALL, BETAS),
    (
        "UniPCMultistepScheduler",
        FLOW,
        ("flow_prediction",),
        dict(use_flow_sigmas=True, flow_shift=3.0),
    ),
    ("DEISMultistepScheduler", SCALED, ALL, BETAS),
    ("SASolverScheduler", SCALED, ALL, BETAS),
    ("FlowMatchEulerDiscreteScheduler", FLOW, (None,), dict(shift=7.0)),
    ("FlowMatchEulerDiscreteScheduler", FLOW, (None,), dict(stochastic_sampling=True)),
    ("FlowMatchEulerDiscreteScheduler", INVERTED, (None,), dict(invert_sigmas=True)),  # Mochi's
    ("FlowMatchLCMScheduler", FLOW, (None,), {}),
    ("HeunDiscreteScheduler", BY_SIGMA, ALL, dict(use_karras_sigmas=True, **BETAS)),
    ("HeunDiscreteScheduler", BY_SIGMA, ALL, dict(clip_sample=False, timestep_spacing="trailing")),
    ("KDPM2DiscreteScheduler", BY_SIGMA, DIFFUSION, BETAS),
    ("KDPM2AncestralDiscreteScheduler", BY_SIGMA, DIFFUSION, BETAS),
    ("DPMSolverSDEScheduler", BY_SIGMA, DIFFUSION, dict(noise_sampler_seed=0, **BETAS)),
    ("EDMEulerScheduler", EDM, DIFFUSION, {}),
    ("EDMDPMSolverMultistepScheduler", EDM, DIFFUSION, {}),
    (
        "EDMDPMSolverMultistepScheduler",
        EDM,
        DIFFUSION,
        dict(algorithm_type="sde-dpmsolver++", sigma_schedule="exponential"),
    ),
    ("FlowMatchHeunDiscreteScheduler", FLOW, (None,), dict(shift=3.0)),
    ("LTXEulerAncestralRFScheduler", FLOW, (None,), {}),
    ("FlowMapEulerDiscreteScheduler", FLOW, (None,), dict(shift=5.0)),
    ("HeliosScheduler", FLOW, ("flow_prediction",), dict(stages=1, stage_range=[0, 1])),
    ("HeliosScheduler", FLOW, (None,), dict(stages=1, stage_range=[0, 1], scheduler_type="euler")),
    ("HeliosDMDScheduler", FLOW, (None,), dict(stages=1, stage_range=[0, 1])),
    ("MiniMaxH3Scheduler", DATA_FLOW, (None,), {}),
    ("PiflowScheduler", GRID_FLOW, (None,), {}),
    ("SCMScheduler", ANGLE, (None,), {}),
]


def make(name, prediction=None, settings=None):
    """A scheduler of diffusers by the name of its class."""
    if name == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde", reason="DPMSolverSDEScheduler needs torchsde")
    chosen = dict(settings or {})
    if prediction:
        chosen["prediction_type"] = prediction
    return getattr(diffusers, name)(**chosen)


def oracle(form, prediction, x, position):
    """What a model that knows X0 answers at x_t; position: abar, sigma or angle."""
    alpha, sigma = alpha_and_sigma(form, position)
    x0, x = X0.double(), x.double()
    noise = (x - alpha * x0) / sigma
    if form == ANGLE:  # d x_t / d angle
        found = math.cos(position) * noise * SIGMA_DATA - math.sin(position) * x0
    elif form == EDM:  # F of x0 = c_skip x + c_out F
        size = math.hypot(sigma, SIGMA_DATA)
        found = (x0 - (SIGMA_DATA / size) ** 2 * x) / (sigma * SIGMA_DATA / size)
        found = -found if prediction == "v_prediction" else found
    elif form in (FLOW, GRID_FLOW):
        found = noise - x0  # towards larger sigma
        found = torch.cat([found] * 10, -1) if form == GRID_FLOW else found
    elif form in (INVERTED, DATA_FLOW):
        found = x0 - noise
    elif prediction == "epsilon":
        found = noise
    elif prediction == "sample":
        found = x0
    # v of the variance-preserving sample, which is what a model sees whatever the scheduler's scale
    else:
        size = math.hypot(alpha, sigma)
        found = alpha / size * noise - sigma / size * x0
    return found.float()


def alpha_and_sigma(form, position):
    """alpha and sigma of x_t = alpha x0 + sigma noise."""
    if form == BY_TIMESTEP:
        return math.sqrt(position), math.sqrt(1 - position)
    if form in (BY_SIGMA, EDM):
        return 1.0, position
    if form == SCALED:
        return 1 / math.sqrt(1 + position**2), position / math.sqrt(1 + position**2)
    if form == ANGLE:
        return math.cos(position), math.sin(position) * SIGMA_DATA
    return (position, 1 - position) if form == INVERTED else (1 - position, position)


def position_of(scheduler, form, number):
    """abar, sigma or angle at which the model is called for the `number`th time."""
    if form == BY_TIMESTEP:
        return scheduler.alphas_cumprod[int(scheduler.timesteps[number])].item()
    if form == ANGLE:
        return scheduler.timesteps[number].item()
    name = type(scheduler).__name__
    if number % 2 and name == "KDPM2DiscreteScheduler":
        return scheduler.sigmas_interpol[number].item()
    if number % 2 and name == "KDPM2AncestralDiscreteScheduler":
        return scheduler.sigmas_interpol[number - 1].item()
    if number % 2 and name == "DPMSolverSDEScheduler":
        return scheduler.mid_point_sigma.item()
    return scheduler.sigmas[number].item()


def set_steps(scheduler, steps):
    """Set the timesteps so that `steps` steps follow."""
    if type(scheduler).__name__ == "MiniMaxH3Scheduler":  # which counts the end
        scheduler.set_timesteps(steps + 1)
    elif type(scheduler).__name__ == "SCMScheduler":
        scheduler.set_timesteps(steps, intermediate_timesteps=None)
    else:
        scheduler.set_timesteps(steps)


def sample(scheduler, form, prediction, steps, step_with=None):
    """Sample with the oracle; returns the last x. step_with: what takes the steps, if another
    scheduler."""
    set_steps(scheduler, steps)
    step_with = step_with or scheduler
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(X0.shape, generator=draw) * getattr(scheduler, "init_noise_sigma", 1.0)
    old, last = None, None
    timesteps = scheduler.timesteps[:-1] if form == ANGLE else scheduler.timesteps
    for number, timestep in enumerate(timesteps):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, timestep)
        out = oracle(form, prediction, x, position_of(scheduler, form, number))
        parameters = inspect.signature(scheduler.step).parameters
        given = {"generator": draw} if "generator" in parameters else {}
        if "timestep_back" in parameters:  # CogVideoX's
            x, old = step_with.step(out, old, timestep, last, x, generator=draw)
        elif "pred_original_sample" in parameters:  # as the pipelines of Cosmos do
            x0 = step_with.step(out, timestep, x, return_dict=False)[1]
            step_with._step_index -= 1
            x = step_with.step(x0, timestep, x, return_dict=False, pred_original_sample=x0)[0]
        else:
            if "dmd_sigmas" in parameters:
                given |= dmd_arguments(scheduler, number, draw)
            x = step_with.step(out, timestep, x, return_dict=False, **given)[0]
        last = timestep
    return x


def dmd_arguments(scheduler, number, draw):
    """What the pipelines of Helios give to the step of its distilled scheduler."""
    return dict(
        cur_sampling_step=number,
        dmd_noisy_tensor=torch.randn(X0.shape, generator=draw),
        dmd_sigmas=scheduler.sigmas,
        dmd_timesteps=scheduler.timesteps,
        all_timesteps=scheduler.timesteps,
    )
