"""Predicted x0 at every step of any diffusers sampler, without a copy of its pipeline: `scheduler.step` is watched.

x0 is the finished sample that the model predicts at a step, in closed form from what the scheduler is given: x_t, the
model's (guided) output and the scheduler's own tables. Pipelines discard it; schedulers of the second kind below
never compute it as such.
"""

import numbers
from dataclasses import dataclass

import torch

from lvd.errors import InputError

# How each scheduler writes x_t in terms of x0 and noise; a class that is not listed is refused, not guessed.
ALPHAS = "sqrt(abar_t) x0 + sqrt(1 - abar_t) noise, abar by timestep"
SIGMAS = "x0 + sigma noise, sigma by step"
SCALED = "alpha x0 + alpha' noise, from sigma by step: sqrt(1 + sigma^2) or, for flows, 1 - sigma"
FLOW = "(1 - sigma) x0 + sigma noise, velocity predicted; invert_sigmas (Mochi): sigma x0 + (1 - sigma) noise"
SCHEDULERS = {
    "DDIMScheduler": ALPHAS, "DDIMParallelScheduler": ALPHAS, "DDPMScheduler": ALPHAS, "DDPMParallelScheduler": ALPHAS,
    "PNDMScheduler": ALPHAS, "LCMScheduler": ALPHAS, "TCDScheduler": ALPHAS, "CogVideoXDDIMScheduler": ALPHAS,
    "CogVideoXDPMScheduler": ALPHAS,
    "EulerDiscreteScheduler": SIGMAS, "EulerAncestralDiscreteScheduler": SIGMAS, "LMSDiscreteScheduler": SIGMAS,
    "DPMSolverMultistepScheduler": SCALED, "DPMSolverSinglestepScheduler": SCALED, "UniPCMultistepScheduler": SCALED,
    "DEISMultistepScheduler": SCALED, "SASolverScheduler": SCALED,
    "FlowMatchEulerDiscreteScheduler": FLOW, "FlowMatchLCMScheduler": FLOW}
# CogVideoX's have the setting clip_sample, but do not clip.
NO_CLIP = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "PNDMScheduler", "TCDScheduler")
WATCH = "_lvd_watch"


def predicted_x0(scheduler, model_output, timestep, sample, per_token_timesteps=None):
    """x0 as the scheduler's next `step(model_output, timestep, sample)` sees it, float32 (or wider), of sample's shape.

    Clipped or thresholded where the scheduler does so. per_token_timesteps: as FlowMatchEuler's step takes them.
    InputError for a scheduler class or prediction type without a closed form here.
    """
    kind, config = need_scheduler(scheduler), scheduler.config
    out, x = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (model_output, sample))
    if out.shape[1] == 2 * x.shape[1] and str(config.get("variance_type", "")).startswith("learned"):
        out = out[:, :x.shape[1]]  # the rest is the predicted variance
    if kind == FLOW:
        sigma = _sigma(scheduler, timestep, x)
        if per_token_timesteps is not None:
            sigma = (per_token_timesteps / config.num_train_timesteps)[..., None]
        return x + (1 - sigma) * out if config.get("invert_sigmas") else x - sigma * out
    if kind == SIGMAS:
        return _of_sigmas(config.prediction_type, out, x, _sigma(scheduler, timestep, x))
    if kind == ALPHAS:
        abar = scheduler.alphas_cumprod[int(timestep)]
        x0 = _of_alphas(config.prediction_type, out, x, abar**0.5, (1 - abar)**0.5)
    elif config.prediction_type == "flow_prediction":
        x0 = x - _sigma(scheduler, timestep, x) * out
    else:
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(_sigma(scheduler, timestep, x))
        x0 = _of_alphas(config.prediction_type, out, x, alpha, sigma)
    return _clipped(scheduler, x0)


def need_scheduler(scheduler):
    """How the scheduler writes x_t (a key of the table above); InputError for a class that is not in it."""
    name = class_name(scheduler)
    if name not in SCHEDULERS:
        raise InputError(f"{name}: no closed form of x0 is known for this scheduler, only for {', '.join(SCHEDULERS)}")
    return SCHEDULERS[name]


def class_name(scheduler):
    return type(scheduler).__name__


def describe_scheduler(scheduler):
    """{"class": name, and its settings}, plain JSON: what its x0 depend on, for the provenance of a recording."""
    settings = {key: _plain(value) for key, value in scheduler.config.items() if not key.startswith("_")}
    return {"class": class_name(scheduler), **settings}


def timesteps_of(scheduler):
    """[timestep of each denoising step], whole or decimal numbers. PNDM's extra model calls are no steps of their own."""
    found = scheduler.timesteps.tolist()
    if class_name(scheduler) == "PNDMScheduler":
        counts = [_pndm_counts(call, scheduler) for call in range(len(found))]
        found = [timestep for timestep, counted in zip(found, counts, strict=True) if counted]
    return found


@dataclass
class StepWatch:
    """What `watch_steps` knows. step: number of the current (afterwards: the last) denoising step, -1 before the first."""

    step: int = -1
    active: bool = True
    owner: object = None  # the scheduler, or the copy of it, that samples
    timesteps: list = None


class watch_steps:
    """Context manager: on_step(step, timestep, x0, prev_sample) after every denoising step of a scheduler.

    step counts from 0; x0 and prev_sample have the shape of the sample that the pipeline steps. What on_step returns, unless
    None, takes prev_sample's place. Optional: on_begin(timesteps), once the timesteps are set; on_call(prev_sample),
    after every call of scheduler.step, also those that are no denoising step of their own (PNDM's): what it
    returns takes prev_sample's place.

    Copies that a pipeline makes of the scheduler are watched with it; the scheduler is as before afterwards, also after
    errors. InputError for an unknown class, one that is watched already, two schedulers at work in one block, and a
    second sampling in it.
    """

    def __init__(self, scheduler, on_step, on_begin=None, on_call=None):
        need_scheduler(scheduler)
        self.scheduler, self._on_step, self._on_begin, self._on_call = scheduler, on_step, on_begin, on_call
        self.state = StepWatch()

    def __enter__(self):
        self._class, self.state = type(self.scheduler), StepWatch()
        if getattr(self._class, WATCH, None) is not None or "step" in vars(self.scheduler):
            raise InputError(f"{class_name(self.scheduler)}: its step is watched (or replaced) already; one watch at a time")
        self.scheduler.__class__ = _watched(self._class, self)
        return self

    def __exit__(self, *_):
        self.scheduler.__class__ = self._class
        self.state.active = False  # copies that outlive the block are left in peace

    def _begin(self, scheduler):
        """The timesteps are set."""
        state = self.state
        if state.step >= 0:
            raise InputError(f"{class_name(scheduler)}: set up again after {state.step + 1} steps; a watch is for one call "
                             f"of the pipeline (without FreeInit)")
        state.timesteps = timesteps_of(scheduler)
        if self._on_begin:
            self._on_begin(state.timesteps)

    def _before(self, scheduler, given):
        """Before scheduler.step: x0 of this denoising step, or None for a call that is none of its own."""
        state = self.state
        if state.owner is None:
            state.owner = scheduler
        if scheduler is not state.owner:
            raise InputError(f"{class_name(scheduler)}: several copies of the scheduler take steps; that is not supported")
        if state.timesteps is None:
            self._begin(scheduler)  # set before the watch began, or by other means than set_timesteps
        if class_name(scheduler) == "PNDMScheduler" and not _pndm_counts(scheduler.counter, scheduler):
            return None
        state.step += 1
        if state.step >= len(state.timesteps):
            raise InputError(f"{class_name(scheduler)}: more than its {len(state.timesteps)} steps; a watch is for one call "
                             f"of the pipeline")
        return predicted_x0(scheduler, given["model_output"], given["timestep"], given["sample"],
                            given.get("per_token_timesteps"))

    def _after(self, given, x0, result):
        """After it: what the pipeline gets instead of `result`, a tuple or an output object."""
        found = result[0] if isinstance(result, tuple) else result.prev_sample
        if x0 is not None:
            new = self._on_step(self.state.step, _number(given["timestep"]), x0, found)
            found = found if new is None else new
        if isinstance(result, tuple):
            return tuple(map(self._called, (found, *result[1:])))
        result.prev_sample = found
        for name in list(result):
            setattr(result, name, self._called(result[name]))
        return result

    def _called(self, tensor):
        return tensor if self._on_call is None or tensor is None else self._on_call(tensor)


class X0Recorder(watch_steps):
    """Records a sampling: x0 of all its denoising steps, as float32 on the CPU, and their timesteps.

    unpack: what makes [B, C, F, h, w] of the scheduler's tensors (lvd.layouts); None: they are that already.
    """

    def __init__(self, scheduler, unpack=None):
        super().__init__(scheduler, self._record)
        self._unpack = unpack

    def __enter__(self):
        self._steps, self.timesteps = [], []
        return super().__enter__()

    def _record(self, step, timestep, x0, prev_sample):
        self._steps.append((self._unpack(x0) if self._unpack else x0).to("cpu", copy=True))
        self.timesteps.append(timestep)

    @property
    def x0(self):
        """[B, S, C, F, h, w]"""
        return torch.stack(self._steps, 1)


def _watched(cls, watch):
    """The scheduler's class with a step that tells `watch`: a class, not a function on the instance, so that a copy of the
    instance steps itself and not the original."""
    from functools import wraps
    from inspect import signature

    parameters, state = signature(cls.step), watch.state

    @wraps(cls.step)
    def step(self, *args, **kwargs):
        if not state.active:
            return cls.step(self, *args, **kwargs)
        given = parameters.bind(self, *args, **kwargs).arguments
        x0 = watch._before(self, given)
        return watch._after(given, x0, cls.step(self, *args, **kwargs))

    @wraps(cls.set_timesteps)
    def set_timesteps(self, *args, **kwargs):
        found = cls.set_timesteps(self, *args, **kwargs)
        if state.active:
            watch._begin(self)
        return found

    return type(cls.__name__, (cls,), {"step": step, "set_timesteps": set_timesteps, "__module__": cls.__module__,
                                       "__qualname__": cls.__qualname__, "__doc__": cls.__doc__, WATCH: watch})


def _pndm_counts(call, scheduler):
    """Is this call of PNDM's step a denoising step's own? Its first three steps take four model calls each, or, as in Stable
    Diffusion, its first step two."""
    if call < len(scheduler.prk_timesteps):
        return call % 4 == 0
    return call != 1 or len(scheduler.prk_timesteps) > 0


def _sigma(scheduler, timestep, x):
    """The scheduler's sigma of the step that it is about to take, as it finds it itself."""
    at = scheduler.step_index
    if at is None:
        at = scheduler.begin_index
    if at is None:
        at = scheduler.index_for_timestep(timestep.to(scheduler.timesteps.device) if torch.is_tensor(timestep) else timestep)
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
        return x / (sigma**2 + 1) - out * sigma / (sigma**2 + 1)**0.5
    return _of_sample("sample" if prediction == "original_sample" else prediction, out)


def _of_sample(prediction, out):
    if prediction != "sample":
        raise InputError(f"prediction_type {prediction}: epsilon, v_prediction, sample or a flow is needed")
    return out


def _clipped(scheduler, x0):
    config = scheduler.config
    if config.get("thresholding") and class_name(scheduler) not in NO_CLIP:
        return scheduler._threshold_sample(x0)
    if config.get("clip_sample") and class_name(scheduler) not in NO_CLIP:
        return x0.clamp(-config.clip_sample_range, config.clip_sample_range)
    return x0


def _number(timestep):
    return timestep.item() if torch.is_tensor(timestep) else timestep


def _plain(value):
    if value is None or isinstance(value, (bool, str, numbers.Integral)):
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else str(value)
