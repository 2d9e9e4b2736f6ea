"""The block of `with guard.watch(pipe)`: what may be called in it, and what leaves it."""

import copy
import threading
import warnings
from contextlib import ExitStack
from contextvars import ContextVar

import torch

from lvd.errors import InputError, shorten
from lvd.guard.call import CallSteps, GuardedCall, nothing_checked
from lvd.guard.guidance import scale_of_call
from lvd.guard.result import UnsafeVideoError
from lvd.x0.calls import watch_method
from lvd.x0.layouts import can_interrupt, find_layout
from lvd.x0.schedulers import class_name, describe_scheduler, need_scheduler
from lvd.x0.watch import watch_of

MODES = ("raise", "interrupt")
DENOISERS = ("unet", "transformer", "transformer_2")  # names of a pipeline's model

_inside = ContextVar("lvd_guard_watches", default=())  # the GuardWatch whose block this code is in


class GuardWatch:
    """Watches one call of a pipeline. Made by `Guard.watch`, used as a context manager.

    The guard stands between the call and its return: nothing is returned that has no verdict.
    After each denoising step the detectors look at the predicted x0 of every video that is still
    undecided.

    - A video that is safe is left alone: it comes out as it would have without a guard.
    - A video that is unsafe, or that could not be checked, is stopped: its latents are set to
      zero at this step and at all later ones, and in what the call returns it is black. The other
      videos of the batch are not changed.
    - Where a call samples several times, as for a long video in sections, each sampling has its
      own votes. A video that one of them stops stays stopped in all of them.
    - When all videos are stopped, the call ends at once with UnsafeVideoError
      (on_unsafe="raise"), or the pipeline skips its remaining steps and returns black videos
      (on_unsafe="interrupt").

    The call raises, and returns nothing, when something was not checked, in both modes:
    UnsafeVideoError if a video has no verdict; InputError if no step or not all steps of the
    pipeline's scheduler were seen, or if the detectors do not know x0 or the noise levels of the
    sampling. So does a second call in the block, and a call of another pipeline object of the same
    class, scheduler or model that has no watch of its own.

    A watch that is made and never entered checks nothing. It warns when it is deleted.

    Attributes:
        results: [GuardResult], one for each video, when the call is over.
    """

    _idle = False  # made, and not entered so far

    def __init__(self, guard, pipe, on_unsafe="raise", layout=None):
        if not isinstance(on_unsafe, str) or on_unsafe not in MODES:
            raise InputError(f"on_unsafe={shorten(on_unsafe)}: one of {', '.join(MODES)} is needed")
        if on_unsafe == "interrupt" and not can_interrupt(pipe):
            raise InputError(
                f"{type(pipe).__name__}: cannot be interrupted; on_unsafe='raise' is needed"
            )
        if getattr(pipe, "scheduler", None) is None:
            raise InputError(
                f"guard.watch({type(pipe).__name__}): it has no scheduler; a video pipeline of "
                "diffusers is needed"
            )
        self.guard = guard
        self.pipe = pipe
        self.on_unsafe = on_unsafe
        self.results = []
        self._layout = copy.copy(find_layout(pipe, layout))  # another thread may have it too
        self._lock = threading.Lock()
        self._entered = False
        self._call = None  # the GuardedCall that is running
        self._known = None  # the description of a scheduler that the detectors know
        self._check_scheduler()
        self._idle = True

    def __del__(self, _warn=warnings.warn):
        # `_warn` is bound now: when the interpreter ends, the module may be gone.
        if self._idle:
            _warn(
                f"guard.watch({type(self.pipe).__name__}) was never entered, so nothing was "
                "checked: `with guard.watch(pipe): pipe(...)` is needed",
                UserWarning,
                stacklevel=2,
            )

    def __enter__(self):
        with self._lock:
            if self._entered or self._call:
                raise InputError("this watch is in use already; one watch for each call is needed")
            self._entered = True
        self._idle = False
        self._ended = None  # the one that was the block's only one
        self._watched = []  # CallSteps of the schedulers that the pipeline had
        self.results = []
        try:
            with ExitStack() as stack:
                stack.enter_context(self._watch_calls())
                self._stack = stack
                self._steps_now()
                self._stack = stack.pop_all()
        except BaseException:
            self._entered = False
            raise
        _inside.set((*_inside.get(), self))
        return self

    def __exit__(self, kind, error, trace):
        _inside.set(tuple(watch for watch in _inside.get() if watch is not self))
        call = self._call or self._ended
        self._stack.close()
        self._entered = False
        if kind is not None:
            return
        if call is None or not call.verdicts():
            raise nothing_checked(self.pipe, self.pipe.scheduler)
        if None in call.verdicts():
            raise UnsafeVideoError(call.results())

    def _watch_calls(self):
        from diffusers import DiffusionPipeline, ModularPipeline

        return watch_method(
            self.pipe,
            "__call__",
            self._guarded,
            on_other=self._need_unrelated,
            families=(DiffusionPipeline, ModularPipeline),
            alone=True,
        )

    def _guarded(self, method, args, kwargs):
        """The pipeline is called: return what may be handed out."""
        with self._lock:
            if self._call or self._ended:
                raise InputError(
                    f"{type(self.pipe).__name__}: called a second time; a watch is for one call of "
                    "the pipeline, so `with guard.watch(pipe)` is needed for each"
                )
            steps = self._steps_now()
            scale = scale_of_call(self.pipe, method, args, kwargs)
            call = GuardedCall(self.guard, self.pipe, self._layout, self.on_unsafe, steps, scale)
            self._call = call
        has_returned = False
        try:
            with self._layout.following(self.pipe):
                output = method(*args, **kwargs)
            has_returned = True
            return call.checked(output)
        finally:
            self.results = call.results()
            if has_returned or call.seen:
                self._ended = call  # else it failed before its first step, and may be tried again
            self._call = None

    def _steps_now(self):
        """Return the CallSteps of the scheduler that the pipeline has now, if it is a right one."""
        scheduler = self.pipe.scheduler
        self._check_scheduler()
        for name in ("step", "set_timesteps"):
            if name in vars(scheduler):
                raise InputError(
                    f"{class_name(scheduler)}: its {name} is replaced on this one object, so the "
                    "guard cannot watch it; a scheduler as diffusers makes it is needed"
                )
        steps = watch_of(scheduler)
        if steps not in self._watched:
            others = self._layout.copies_are_others
            steps = self._stack.enter_context(CallSteps(scheduler, lambda: self._call, others))
            self._watched.append(steps)
        return steps

    def _check_scheduler(self):
        """InputError if the detectors were not trained for the pipeline's scheduler."""
        need_scheduler(self.pipe.scheduler)
        description = describe_scheduler(self.pipe.scheduler)
        if description != self._known:
            self.guard.check({"x0_mode": "true", "scheduler": description})
            self._known = description

    def _need_unrelated(self, other):
        """InputError for a call of a pipeline that would make this one's videos unchecked."""
        if self._shares_with(other) or (self in _inside.get() and _same_calls(self.pipe, other)):
            raise InputError(
                f"{type(other).__name__}: called while `with guard.watch(...)` guards another "
                "pipeline object of its class, scheduler or model, so it would not be checked; "
                "watch the one that is called, or call it before or after the block"
            )

    def _shares_with(self, other):
        """Whether another pipeline object has a watched scheduler, or the model."""
        scheduler = getattr(other, "scheduler", None)
        if scheduler is not None and watch_of(scheduler) in self._watched:
            return True
        return bool(_denoisers(self.pipe) & _denoisers(other))


def _denoisers(pipe):
    """Identities of the models that make a pipeline's videos, and of their weights.

    By its weights a model is known again in another module: compiled, or spread over several GPUs.
    """
    found = [getattr(pipe, name, None) for name in DENOISERS]
    models = [model for model in found if isinstance(model, torch.nn.Module)]
    return {id(part) for model in models for part in (model, *model.parameters())}


def _same_calls(one, other):
    """Whether two objects are of one class, or of classes that have their `__call__` in common."""
    kinds = type(one), type(other)
    defining = [next((c for c in k.__mro__ if "__call__" in vars(c)), None) for k in kinds]
    return defining[0] in kinds[1].__mro__ or defining[1] in kinds[0].__mro__
