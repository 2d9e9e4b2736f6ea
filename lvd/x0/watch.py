"""Predicted x0 at every step of any diffusers sampler, without a copy of its pipeline:
`scheduler.step` is watched."""

from dataclasses import dataclass

import torch

from lvd.errors import InputError
from lvd.x0.schedulers import class_name, need_scheduler, pndm_counts, predicted_x0, timesteps_of

WATCH = "_lvd_watch"


@dataclass
class StepWatch:
    """What `watch_steps` knows. step: number of the current (afterwards: the last) denoising step,
    -1 before the first."""

    step: int = -1
    active: bool = True
    owner: object = None  # the scheduler, or the copy of it, that samples
    timesteps: list = None


class watch_steps:
    """Context manager: on_step(step, timestep, x0, prev_sample) after every denoising step of a
    scheduler.

    step counts from 0; x0 and prev_sample have the shape of the sample that the pipeline steps.
    What on_step returns, unless None, takes prev_sample's place. Optional: on_begin(timesteps),
    once the timesteps are set; on_call(prev_sample), after every call of scheduler.step, also those
    that are no denoising step of their own (PNDM's): what it returns takes prev_sample's place.

    Copies that a pipeline makes of the scheduler are watched with it; the scheduler is as before
    afterwards, also after errors. InputError for an unknown class, one that is watched already, two
    schedulers at work in one block, and a second sampling in it.
    """

    def __init__(self, scheduler, on_step, on_begin=None, on_call=None):
        need_scheduler(scheduler)
        self.scheduler, self._on_step, self._on_begin, self._on_call = (
            scheduler,
            on_step,
            on_begin,
            on_call,
        )
        self.state = StepWatch()

    def __enter__(self):
        self._class, self.state = type(self.scheduler), StepWatch()
        if getattr(self._class, WATCH, None) is not None or "step" in vars(self.scheduler):
            raise InputError(
                f"{class_name(self.scheduler)}: its step is watched (or replaced) already; one "
                "watch at a time"
            )
        self.scheduler.__class__ = _watched(self._class, self)
        return self

    def __exit__(self, *_):
        self.scheduler.__class__ = self._class
        self.state.active = False  # copies that outlive the block are left in peace

    def _begin(self, scheduler):
        """The timesteps are set."""
        state = self.state
        if state.step >= 0:
            raise InputError(
                f"{class_name(scheduler)}: set up again after {state.step + 1} steps; a watch is "
                "for one call of the pipeline (without FreeInit)"
            )
        state.timesteps = timesteps_of(scheduler)
        if self._on_begin:
            self._on_begin(state.timesteps)

    def _before(self, scheduler, given):
        """Before scheduler.step: x0 of this denoising step, or None for a call that is none of its
        own."""
        state = self.state
        if state.owner is None:
            state.owner = scheduler
        if scheduler is not state.owner:
            raise InputError(
                f"{class_name(scheduler)}: several copies of the scheduler take steps; that is "
                "not supported"
            )
        if state.timesteps is None:
            self._begin(
                scheduler
            )  # set before the watch began, or by other means than set_timesteps
        if class_name(scheduler) == "PNDMScheduler" and not pndm_counts(
            scheduler.counter, scheduler
        ):
            return None
        state.step += 1
        if state.step >= len(state.timesteps):
            raise InputError(
                f"{class_name(scheduler)}: more than its {len(state.timesteps)} steps; a watch is "
                "for one call of the pipeline"
            )
        return predicted_x0(
            scheduler,
            given["model_output"],
            given["timestep"],
            given["sample"],
            given.get("per_token_timesteps"),
        )

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
    """Records a sampling: x0 of all its denoising steps, as float32 on the CPU, and their
    timesteps.

    unpack: what makes [B, C, F, h, w] of the scheduler's tensors (lvd.x0.layouts); None: they are
    that already.
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
    """The scheduler's class with a step that tells `watch`: a class, not a function on the
    instance, so that a copy of the instance steps itself and not the original."""
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

    return type(
        cls.__name__,
        (cls,),
        {
            "step": step,
            "set_timesteps": set_timesteps,
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__doc__": cls.__doc__,
            WATCH: watch,
        },
    )


def _number(timestep):
    return timestep.item() if torch.is_tensor(timestep) else timestep
