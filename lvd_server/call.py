"""One request, from its arrival to its answer; and how the guard's steps find it."""

import threading
import time
import uuid

from lvd.errors import InputError


class CallStopped(Exception):
    """A call was stopped between two of its denoising steps."""


class Call:
    """One request. It is answered once, by whoever settles it first.

    Attributes:
        id: text, different for each.
        received: seconds since 1970.
        request: lvd_server.request.VideoRequest, or None before it was read.
        guarded: lvd_server.service's LoadedGuard that this call is judged by, or None.
        outcome: lvd_server.outcome.Outcome, once it is settled.
        steps_run: denoising steps that the guard has seen.
        guard_seconds: that the detectors took.
        stop_reason: why no further step is wanted, or None.
    """

    def __init__(self):
        self.id = uuid.uuid4().hex
        self.received = time.time()
        self.request = None
        self.guarded = None
        self.outcome = None
        self.steps_run = 0
        self.guard_seconds = 0.0
        self.stop_reason = None
        self.lock = threading.Lock()
        self._began = time.monotonic()
        self._told = None  # function that is called when it is settled

    def seconds(self):
        """Return the seconds since it was received."""
        return time.monotonic() - self._began

    def stop(self, reason):
        """Ask for no further denoising step. The first reason counts."""
        self.stop_reason = self.stop_reason or reason

    def when_settled(self, told):
        """Let `told()` be called when the call is settled: at once if it is."""
        with self.lock:
            self._told = told
            settled = self.outcome is not None
        if settled:
            told()

    def settle(self, outcome):
        """Set the outcome; the caller holds the lock."""
        self.outcome = outcome
        if self._told:
            self._told()


class Steps:
    """Sees each denoising step that a guard judges, in the call that runs in this thread.

    There it counts, measures the detectors, and ends a call that nobody waits for any more.
    """

    def __init__(self):
        self._here = threading.local()

    def run(self, call, work):
        """Return work(); the steps that are judged meanwhile in this thread belong to the call."""
        self._here.call = call
        try:
            return work()
        finally:
            self._here.call = None

    def follow(self, guard):
        """See the steps of all sessions that this guard begins from now on.

        Args:
            guard: lvd.Guard.
        """
        for name in ("session", "session_of"):  # of a sampler, of a diffusers pipeline
            setattr(guard, name, self._followed(getattr(guard, name)))

    def _followed(self, begin):
        """The same function that begins a session, whose steps are seen."""

        def session(*args, **kwargs):
            judging = begin(*args, **kwargs)
            observe = judging.observe
            judging.observe = lambda *args, **kwargs: self._observed(observe, args, kwargs)
            return judging

        return session

    def _observed(self, observe, args, kwargs):
        call = getattr(self._here, "call", None)
        if call is None:
            raise InputError("a denoising step that belongs to no request")
        began = time.monotonic()
        try:
            return observe(*args, **kwargs)
        finally:
            call.guard_seconds += time.monotonic() - began
            call.steps_run += 1
            if call.stop_reason:
                raise CallStopped(call.stop_reason)
