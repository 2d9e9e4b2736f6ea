"""A pipeline whose every call is guarded: `safe = guard.protect(pipe)`.

`safe` is another face of the pipeline: an object of a class that derives from the pipeline's, with
the very same attributes (one `__dict__`). So `safe.to("cuda")` moves the pipeline, and a scheduler
that is set on one is the other's too. Only `__call__` differs. It makes a twin of the pipeline for
this one call (lvd.guard.twin) and watches it, so that several threads may call at once.

The guard belongs to the class, not to the object: copies of `safe`, and whatever `type(safe)`
makes, are guarded as well.
"""

import contextlib
import copy
import inspect
import types
from functools import wraps

from lvd.errors import InputError, shorten, words_of
from lvd.guard.twin import make_twin
from lvd.guard.watch import GuardWatch
from lvd.utils.processes import settle_threads
from lvd.x0.calls import leave_alone

PROTECTION = "_lvd_protection"  # attribute of a protected pipeline's class


def protect(guard, pipe, on_unsafe="raise", layout=None, on_result=None):
    """Return a pipeline of the same class and signature whose every call is guarded.

    Args:
        guard: lvd.guard.guard.Guard.
        pipe: a video pipeline of diffusers. It stays as it is, and unguarded.
        on_unsafe, layout: as of lvd.guard.guard.Guard.watch.
        on_result: function of a call's [GuardResult], called before the call returns or raises.

    Returns:
        The protected pipeline. What its calls return has an attribute `lvd`, [GuardResult], one
        for each video, wherever it is an object or a tuple.

    Raises:
        InputError: as of Guard.watch; or the pipeline is protected or watched already.
    """
    kind = type(pipe)
    _need_pipeline(pipe)
    if hasattr(kind, PROTECTION):
        raise InputError(
            f"guard.protect({kind.__name__}): it is protected already; one guard for a pipeline, "
            "so the pipeline that it was made of is needed"
        )
    if on_result is not None and not callable(on_result):
        raise InputError(f"on_result={shorten(on_result)}: a function of the results is needed")
    with make_twin(pipe, kind) as twin:  # refuses here what no call could do
        GuardWatch(guard, twin, on_unsafe, layout)._idle = False
    protection = _Protection(guard, kind, on_unsafe, layout, on_result)
    try:
        safe = object.__new__(_protected_class(kind, protection))
        safe.__dict__ = vars(pipe)
    except TypeError as error:  # written in C, or without a `__dict__`
        raise InputError(
            f"guard.protect({kind.__name__}): no class can be derived from its class "
            f"({words_of(error)}); use `with guard.watch(pipe)`"
        ) from error
    return safe


class _Protection:
    """How the calls of one class of protected pipelines are guarded.

    Args:
        guard, on_unsafe, layout, on_result: as of `protect`.
        kind: the pipeline's own class, of which the twins are.
    """

    def __init__(self, guard, kind, on_unsafe, layout, on_result):
        self.guard = guard
        self.kind = kind
        self.on_unsafe = on_unsafe
        self.layout = layout
        self.on_result = on_result

    def call(self, safe, args, kwargs):
        """Return what a protected pipeline's call hands out."""
        settle_threads()
        with make_twin(safe, self.kind) as twin:
            watch = GuardWatch(self.guard, twin, self.on_unsafe, self.layout)
            try:
                with watch:
                    output = twin(*args, **kwargs)
            finally:
                if self.on_result and watch.results:
                    self.on_result(list(watch.results))
        return with_results(output, list(watch.results))


def _protected_class(kind, protection):
    """Return the class of a protected pipeline: `kind` with another `__call__`."""

    @wraps(kind.__call__)
    def call(self, *args, **kwargs):
        return protection.call(self, args, kwargs)

    call.__signature__ = inspect.signature(kind.__call__)
    del call.__wrapped__  # which would be the call without a guard

    def copied(self):
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def copied_deeply(self, memo):
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    def pickled(self, protocol):
        raise InputError(
            f"{kind.__name__}: a protected pipeline cannot be pickled, since its detectors would "
            "be left behind; pickle the pipeline that it was made of, and protect it once it is "
            "loaded"
        )

    def derived(cls, **_):
        raise InputError(
            f"{kind.__name__}: no class can be derived from a protected pipeline's; derive it from "
            f"{kind.__name__}, and protect an object of it"
        )

    members = {
        "__call__": leave_alone(call),
        "__copy__": copied,
        "__deepcopy__": copied_deeply,
        "__reduce_ex__": pickled,
        "__init_subclass__": classmethod(derived),
        "__module__": kind.__module__,
        "__qualname__": f"{kind.__qualname__}.protected",
        "__doc__": f"{kind.__name__}, every call guarded (lvd.guard.protect).\n\n{kind.__doc__}",
        PROTECTION: protection,
    }
    # Its name stays: save_pretrained writes it, and from_pretrained looks it up in diffusers.
    return types.new_class(kind.__name__, (kind,), exec_body=lambda space: space.update(members))


class GuardedTuple(tuple):
    """A tuple that a pipeline returned, with the results of its videos.

    Attributes:
        lvd: [GuardResult], one for each video.
    """


def with_results(output, results):
    """Return a pipeline's output with an attribute `lvd`, where its type can have one."""
    if type(output) is tuple:
        output = GuardedTuple(output)
    with contextlib.suppress(AttributeError, TypeError):  # a list or an array has none
        output.lvd = results
    return output


def _need_pipeline(pipe):
    """InputError for anything but an object that can be called and has a scheduler."""
    if isinstance(pipe, type):
        raise InputError(f"guard.protect({pipe.__name__}): it is a class; a pipeline is needed")
    lacking = None if callable(pipe) else "cannot be called"
    if getattr(pipe, "scheduler", None) is None:
        lacking = "has no scheduler"
    if lacking:
        raise InputError(
            f"guard.protect({type(pipe).__name__}): it {lacking}; a video pipeline of diffusers is "
            "needed"
        )
