"""A model that knows the true x0, for each scheduler: the predicted x0 must be the true one."""

import inspect
import math

import diffusers
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
]


def make(name, prediction=None, settings=None):
    """A scheduler of diffusers by the name of its class."""
    chosen = dict(settings or {})
    if prediction:
        chosen["prediction_type"] = prediction
    return getattr(diffusers, name)(**chosen)


def oracle(form, prediction, x, position):
    """What a model that knows X0 answers at x_t; position: abar or sigma."""
    if form == BY_TIMESTEP:
        alpha, sigma = math.sqrt(position), math.sqrt(1 - position)
    elif form == BY_SIGMA:
        alpha, sigma = 1.0, position
    elif form == SCALED:
        alpha, sigma = 1 / math.sqrt(1 + position**2), position / math.sqrt(1 + position**2)
    else:
        alpha, sigma = (1 - position, position) if form == FLOW else (position, 1 - position)
    noise = (x.double() - alpha * X0.double()) / sigma
    if form in (FLOW, INVERTED):
        found = noise - X0.double() if form == FLOW else X0.double() - noise  # towards larger sigma
    elif prediction == "epsilon":
        found = noise
    elif prediction == "sample":
        found = X0
    # v of the variance-preserving sample, which is what a model sees whatever the scheduler's scale
    else:
        size = math.hypot(alpha, sigma)
        found = alpha / size * noise - sigma / size * X0.double()
    return found.float()


def sample(scheduler, form, prediction, steps, step_with=None):
    """Sample with the oracle; returns the last x. step_with: what takes the steps, if another
    scheduler."""
    scheduler.set_timesteps(steps)
    step_with = step_with or scheduler
    draw = torch.Generator().manual_seed(1)
    x, old = (
        torch.randn(X0.shape, generator=draw) * getattr(scheduler, "init_noise_sigma", 1.0),
        None,
    )
    last = None
    for number, timestep in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, timestep) if hasattr(
            scheduler, "scale_model_input"
        ) else None
        table = (
            scheduler.alphas_cumprod[int(timestep)]
            if form == BY_TIMESTEP
            else scheduler.sigmas[number]
        )
        out = oracle(form, prediction, x, table.item())
        if "timestep_back" in inspect.signature(scheduler.step).parameters:  # CogVideoX's
            x, old = step_with.step(out, old, timestep, last, x, generator=draw)
        else:
            given = (
                {"generator": draw}
                if "generator" in inspect.signature(scheduler.step).parameters
                else {}
            )
            x = step_with.step(out, timestep, x, return_dict=False, **given)[0]
        last = timestep
    return x
