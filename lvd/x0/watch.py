"""Predicted x0 at every step of any diffusers pipeline, without a copy of the pipeline.

`scheduler.step` is watched: while the block of `watch_steps` runs, the scheduler has a class whose
`step` computes x0 first and then calls the original. Copies of the scheduler are watched with it;
what is made of a pickle of it is a plain scheduler.
"""

import copy
from dataclasses import dataclass
from functools import wraps
from inspect import signature

import torch

from lvd.errors import InputError, plural
from lvd.x0.levels import levels_of
from lvd.x0.predicted import predicted_x0
from lvd.x0.schedulers import begins_step, class_name, need_scheduler, only_asks, timesteps_of

WATCH = "_lvd_watch"  # attribute of a watched scheduler's class: the StepWatch of its block


@dataclass
class StepWatch:
    """What `watch_steps` knows of the sampling."""

    watch: object  # the watch_steps that watches; None when the block is over
    step: int = -1  # number of the current denoising step, afterwards of the last; -1: none yet
    owner: object = None  # the scheduler, or the copy of it, that takes the steps
    timesteps: list = None  # one for each denoising step that the sampling takes
    levels: list = None  # likewise, lvd.x0.levels
    sampling: int = 0  # number of the sampling, of a call that makes several

    def forget(self):
        """Know nothing of any sampling, whatever became of the last one."""
        vars(self).update(vars(StepWatch(self.watch)))


class watch_steps:
    """Call a function after every denoising step of a scheduler. A context manager.

    Copies that a pipeline makes of the scheduler are watched too. Afterwards, also after an error,
    the scheduler is as it was.

    Args:
        scheduler: a scheduler of diffusers, such as `pipe.scheduler`.
        on_step: function of (step, timestep, x0, prev_sample), called after each denoising step.
            step counts from 0; x0 and prev_sample have the shape of the sample that the pipeline
            passes to `scheduler.step`. What it returns, unless None, replaces prev_sample.
        on_begin: function of (timesteps), called when the timesteps are set, before the model
            runs. A sampling may begin in the middle of them, as video to video does: then it is
            called again before the first step, with those that are left.
        on_call: function of (tensor), called after every call of `scheduler.step` with each tensor
            that the step returns, prev_sample among them. What it returns replaces the tensor.
            PNDM's extra calls, which are not denoising steps of their own, are included.
        on_use: function without arguments, called before every call of `scheduler.step`. It may
            raise, and the scheduler then takes no step.
        copies_are_others: whether copies of the scheduler step something else than the videos,
            such as their sound. Nothing is computed or called for these, but `on_use`.
        several: whether several samplings may follow each other, as in a pipeline that makes a
            long video in sections. Each begins with on_begin, and its steps count from 0.

    Raises:
        InputError: the scheduler's class is unknown, or it is watched already; in the block, when
            two copies of the scheduler take steps in one sampling, a sampling begins before all
            steps of the last one were taken, or a second one where `several` is False.
    """

    def __init__(
        self,
        scheduler,
        on_step,
        on_begin=None,
        on_call=None,
        on_use=None,
        copies_are_others=False,
        several=False,
    ):
        need_scheduler(scheduler)
        self.scheduler = scheduler
        self._on_step = on_step
        self._on_begin = on_begin
        self._on_call = on_call
        self._on_use = on_use
        self._several = several
        self._copies_are_others = copies_are_others
        self.state = StepWatch(self)

    def __enter__(self):
        if watch_of(self.scheduler) is not None or "step" in vars(self.scheduler):
            raise InputError(
                f"{class_name(self.scheduler)}: its step is watched (or replaced) already; one "
                "watch at a time"
            )
        self.state = StepWatch(self)
        self._class = _plain(type(self.scheduler))
        self.scheduler.__class__ = _watched(self._class, self.state)
        return self

    def __exit__(self, *_):
        self.scheduler.__class__ = self._class
        self.state.watch = None  # copies that outlive the block are left in peace

    def _steps_other(self, scheduler):
        """Whether this scheduler, a copy of the watched one, steps something else."""
        return self._copies_are_others and scheduler is not self.scheduler

    def _begin(self, scheduler):
        """The timesteps are set."""
        state = self.state
        if state.step >= 0:
            self._begin_another(scheduler)
        self._plan(timesteps_of(scheduler), levels_of(scheduler))

    def _begin_another(self, scheduler):
        """The sampling is over, and another one begins."""
        state = self.state
        taken, planned = state.step + 1, len(state.timesteps)
        if taken < planned and not self._is_cut_short():
            raise InputError(
                f"{class_name(scheduler)}: its timesteps were set again after {taken} of {planned} "
                "steps; a sampling is needed whole"
            )
        if not self._several:
            raise InputError(
                f"{class_name(scheduler)}: a second sampling began after the first one's "
                f"{plural(taken, 'step')}; this watch is for one"
            )
        state.sampling += 1
        state.step = -1
        state.owner = None

    def _is_cut_short(self):
        """Whether the pipeline was told to skip the rest of its steps."""
        return False

    def _plan(self, timesteps, levels):
        self.state.timesteps = timesteps
        self.state.levels = levels
        if self._on_begin:
            self._on_begin(timesteps)

    def _asked(self, scheduler):
        """Before a call of scheduler.step that only asks for x0."""
        if self._on_use:
            self._on_use()
        taken = (scheduler.step_index or 0) - (scheduler.begin_index or 0)
        if taken > self.state.step + 1:
            raise InputError(
                f"{class_name(scheduler)}: takes a step without pred_original_sample; it is "
                "supported as the pipelines of Cosmos call it, twice a step"
            )

    def _before(self, scheduler, given):
        """Before scheduler.step: return x0, or None for a call that begins no denoising step."""
        state = self.state
        if self._on_use:
            self._on_use()
        is_over = state.timesteps is not None and state.step + 1 == len(state.timesteps)
        begins = begins_step(scheduler)
        if state.timesteps is None or (is_over and begins and self._several):
            # They were set before the watch began, or by other means than set_timesteps.
            self._begin(scheduler)
        if state.owner is None:
            state.owner = scheduler
        if scheduler is not state.owner:
            raise InputError(
                f"{class_name(scheduler)}: several copies of the scheduler take the steps of one "
                "sampling; that is not supported"
            )
        if not begins:
            return None
        if state.step < 0:
            self._skip_to(_number(given["timestep"]))
        state.step += 1
        if state.step >= len(state.timesteps):
            raise InputError(
                f"{class_name(scheduler)}: more than its {len(state.timesteps)} steps; this watch "
                "is for one sampling"
            )
        return predicted_x0(
            scheduler,
            given["model_output"],
            given["timestep"],
            given["sample"],
            given.get("per_token_timesteps"),
            given.get("pred_original_sample"),
        )

    def _skip_to(self, timestep):
        """The sampling begins at this timestep: leave out those before it."""
        state = self.state
        if timestep in state.timesteps[1:] and timestep != state.timesteps[0]:
            first = state.timesteps.index(timestep)
            self._plan(state.timesteps[first:], state.levels[first:])

    def _after(self, given, x0, result):
        """After it: return what the pipeline gets for `result`, a tuple or an output object."""
        prev_sample = result[0] if isinstance(result, tuple) else result.prev_sample
        if x0 is not None:
            timestep = _number(given["timestep"])
            replacement = self._on_step(self.state.step, timestep, x0, prev_sample)
            if replacement is not None:
                prev_sample = replacement
        if isinstance(result, tuple):
            return tuple(map(self._called, (prev_sample, *result[1:])))
        result.prev_sample = prev_sample
        for name in list(result):
            setattr(result, name, self._called(result[name]))
        return result

    def _called(self, tensor):
        if self._on_call is None or not torch.is_tensor(tensor):  # some return numbers too
            return tensor
        return self._on_call(tensor)


def watch_of(scheduler):
    """Return the watch_steps whose block watches the scheduler now, or None."""
    state = getattr(type(scheduler), WATCH, None)
    return None if state is None else state.watch


def _plain(cls):
    """The class of a scheduler as it was before it (or what it is a copy of) was watched."""
    while WATCH in vars(cls):
        cls = cls.__base__
    return cls


def _watched(cls, state):
    """The scheduler's class with a `step` that tells the watch of a StepWatch.

    It is a class, not a function on the instance: a copy of the instance then steps itself and not
    the original.
    """
    parameters = signature(cls.step)

    @wraps(cls.step)
    def step(self, *args, **kwargs):
        watch = state.watch
        if watch is None:
            return cls.step(self, *args, **kwargs)
        if watch._steps_other(self):
            if watch._on_use:
                watch._on_use()
            return cls.step(self, *args, **kwargs)
        given = parameters.bind(self, *args, **kwargs).arguments
        if only_asks(self, given):
            watch._asked(self)
            return cls.step(self, *args, **kwargs)
        x0 = watch._before(self, given)
        return watch._after(given, x0, cls.step(self, *args, **kwargs))

    @wraps(cls.set_timesteps)
    def set_timesteps(self, *args, **kwargs):
        result = cls.set_timesteps(self, *args, **kwargs)
        watch = state.watch
        if watch is not None and not watch._steps_other(self):
            watch._begin(self)
        return result

    members = {
        "step": step,
        "set_timesteps": set_timesteps,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        **_copying(cls),
        WATCH: state,
    }
    return type(cls.__name__, (cls,), members)


def _copying(cls):
    """How a watched scheduler of class `cls` is copied, and what its pickle holds."""

    def copied(self):
        twin = cls.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def copied_deeply(self, memo):
        twin = cls.__new__(type(self))
        memo[id(self)] = twin
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    def pickled(self, protocol):
        # Protocol 1 makes the object by a function, for which pickle does not compare the class.
        make, arguments, *rest = cls.__reduce_ex__(self, min(protocol, 1))
        plain = tuple(cls if argument is type(self) else argument for argument in arguments)
        return (make, plain, *rest)

    return {"__copy__": copied, "__deepcopy__": copied_deeply, "__reduce_ex__": pickled}


def _number(timestep):
    return timestep.item() if torch.is_tensor(timestep) else timestep
