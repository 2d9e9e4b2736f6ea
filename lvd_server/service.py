"""The service behind the routes: guard, queue, log, health. Nothing here knows HTTP's bytes.

It fails closed: a video leaves only with the verdict "safe" and with its line in the log.
"""

import hashlib
import json
import sys
import traceback
from dataclasses import dataclass

from lvd.errors import InputError, words_of
from lvd.guard.result import UNCHECKED, UnsafeVideoError
from lvd.rules.rule import SAFE
from lvd.utils.desk import Desk, DeskFull
from lvd.utils.video import mp4_bytes
from lvd_server.call import CallStopped, Steps
from lvd_server.metrics import Metrics
from lvd_server.outcome import (
    BAD,
    CLIENT_GONE,
    TOO_MANY,
    UNAVAILABLE,
    Outcome,
    first_stopped,
    judged,
    log_line,
    unchecked,
)

FAILURES = 3  # guard calls that fail one after the other, after which health is red
CRF = 12  # H.264's constant rate factor: near transparent, as the sampler writes its videos
RETRY = 5  # seconds after which a client may try again
CLOSING = "the server is shutting down"
GONE = "the client went away"


@dataclass(frozen=True)
class LoadedGuard:
    """A guard, ready for calls.

    Attributes:
        guard: lvd.Guard.
        ready: what the backend has made of it.
        identity: hash of its configuration.
    """

    guard: object
    ready: object
    identity: str


class Service:
    """Answers requests with guarded videos.

    Args:
        backend: lvd_server.magictime.MagicTimeBackend or lvd_server.pipelines.PipelineBackend.
        log: lvd_server.log.AuditLog.
        workers: calls that are sampled at once.
        places: calls that may wait besides.
        timeout: seconds from a request's arrival to its answer.
        log_prompts: whether the log holds prompts, and not just their hashes.
    """

    def __init__(self, backend, log, workers, places, timeout, log_prompts=False):
        self.backend = backend
        self.log = log
        self.timeout = timeout
        self.is_closing = False
        self._log_prompts = log_prompts
        self._steps = Steps()
        self._guarded = None
        self._trouble = "the weights are being loaded"
        self._failures = 0
        self._last_failure = ""
        self.desk = Desk(self._work, workers, places)
        self.metrics = Metrics(self)

    # ---- the guard

    def load(self, read):
        """Load the weights, and take the guard that the backend has read before.

        Args:
            read: what backend.read_guard() gave.
        """
        self.backend.load()
        self.load_guard(read)

    def load_guard(self, read=None):
        """Load the guard, or load it again: the next calls are judged by the new one.

        Args:
            read: what backend.read_guard() gave; None: it is read now.

        Raises:
            InputError: it cannot be loaded; then no call is taken any more until it can.
        """
        try:
            guard, own = read or self.backend.read_guard()
            ready = self.backend.prepare(guard, own)
            self._steps.follow(guard)
            loaded = LoadedGuard(guard, ready, identity_of(guard))
        except Exception as error:
            self._guarded = None
            self._trouble = f"the guard does not load: {words_of(error, 200)}"
            raise
        self._guarded = loaded
        self._failures = 0

    @property
    def guard_id(self):
        """Hash of the guard's configuration, or None."""
        return self._guarded.identity if self._guarded else None

    def problem(self):
        """Return why the service is not healthy, in one line, or None."""
        if self.is_closing:
            return CLOSING
        if self._guarded is None:
            return self._trouble
        if self.log.problem:
            return f"the log cannot be written: {self.log.problem}"
        if self._failures >= FAILURES:
            return f"the last {self._failures} guard calls failed: {self._last_failure}"
        return None

    # ---- a call

    def not_ready(self):
        """Return the Outcome of any request now: None where calls are taken."""
        if self.is_closing:
            return unchecked(CLOSING, retry_after=RETRY)
        if self._guarded is None:
            return unchecked(self._trouble.partition(":")[0], retry_after=RETRY)
        return None

    def admit(self, call):
        """Let a call wait for its turn.

        Returns:
            None, or the Outcome of a call that is refused at once.
        """
        guarded = self._guarded
        if refused := self.not_ready():
            return refused
        if guarded is None:
            return unchecked("the guard is being loaded", retry_after=RETRY)
        try:
            self.log.check()
        except InputError as error:
            return _not_logged(error)
        call.guarded = guarded
        try:
            self.backend.check(guarded.ready, call.request)
        except InputError as error:
            return Outcome(BAD, without_folders(error), detail=words_of(error, 300))
        try:
            self.desk.put(call)
        except DeskFull:
            busy = "as many requests wait as may; try again later"
            return Outcome(TOO_MANY, busy, retry_after=RETRY)
        return None

    def settle(self, call, outcome):
        """End a call: write its line, then let its answer go. Only the first outcome counts.

        Where the line cannot be written, nothing but that is told.
        """
        with call.lock:
            if call.outcome is not None:
                return
            guard_id = call.guarded.identity if call.guarded else self.guard_id
            try:
                self.log.write(log_line(call, outcome, guard_id, self._log_prompts))
            except Exception as error:
                print(f"{call.id}: {words_of(error, 250)}", file=sys.stderr, flush=True)
                outcome = _not_logged(error)
            call.settle(outcome)
        self.metrics.count(call, outcome)

    def give_up(self, call, reason, status=UNAVAILABLE):
        """End a call that nobody waits for any more: it is never handed out.

        A call that is sampled ends at its next denoising step.
        """
        call.stop(reason)
        self.desk.drop(call)
        self.settle(call, unchecked(reason, status=status))

    def fail(self, call, error):
        """End a call after an error that nothing else has met."""
        self.settle(call, self._failed(error))

    def forget(self, call):
        """The client of a call went away: end it now if it waits, else at its next step."""
        call.stop(GONE)
        if self.desk.drop(call):
            self.settle(call, unchecked(GONE, status=CLIENT_GONE))

    def _work(self, call):
        """Sample a call in a worker's thread, and settle it."""
        if call.outcome is not None:
            return
        try:
            outcome = self._steps.run(call, lambda: self._made(call))
        except BaseException as error:  # whatever it is: the call is answered, the worker lives
            outcome = self._failed(error)
        self.settle(call, outcome)

    def _made(self, call):
        """Return the Outcome of a sampling."""
        try:
            if call.stop_reason:
                raise CallStopped(call.stop_reason)
            frames, result = self.backend.make(call.guarded.ready, call.request)
            is_safe = result.verdict == SAFE and frames is not None
            outcome = judged(result, mp4_bytes(frames, self.backend.fps, CRF) if is_safe else None)
        except UnsafeVideoError as error:
            outcome = judged(first_stopped(error.results), None)
        except CallStopped as stopped:
            status = CLIENT_GONE if call.stop_reason == GONE else UNAVAILABLE
            return unchecked(str(stopped), status=status)
        except ValueError as error:
            if call.steps_run:  # an InputError of the guard, for example
                raise
            reason = f"the pipeline refuses the request: {without_folders(error)}"
            return Outcome(BAD, reason, detail=words_of(error, 300))
        self._remember(outcome)
        return outcome

    def _failed(self, error):
        traceback.print_exception(error)
        detail = f"{type(error).__name__}: {words_of(error, 300)}"
        outcome = unchecked("the sampling failed, so the video was not checked", detail)
        self._remember(outcome)
        return outcome

    def _remember(self, outcome):
        """Count guard calls that fail one after the other."""
        if outcome.verdict == UNCHECKED:
            self._failures += 1
            self._last_failure = outcome.detail or outcome.reason
        else:
            self._failures = 0

    # ---- the end

    def close_door(self):
        """Take no new calls, and answer those that wait."""
        self.is_closing = True
        for call in self.desk.drop_all():
            self.settle(call, unchecked(CLOSING, retry_after=RETRY))

    def stop_running(self):
        """Let the calls that run end at their next denoising step; they are not handed out."""
        self.desk.stop_running(CLOSING)

    def close(self, patience=10):
        """End all that runs, and close the log."""
        self.close_door()
        self.stop_running()
        self.desk.close(patience)
        self.log.close()


def identity_of(guard):
    """Return a hash of what a guard decides by: detectors, rule, operating point, policy."""
    said = {
        "detectors": guard.bank.sha256(),
        "rule": guard.rule.describe(),
        "operating_point": str(guard.operating_point),
        "categories": guard.policy.as_dict(),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def without_folders(error):
    """Return what an error says without the folders of this machine."""
    words = words_of(error, 300).split(" ")
    return " ".join(word.rsplit("/", 1)[-1] if "/" in word.rstrip("/") else word for word in words)


def _not_logged(error):
    reason = "the log cannot be written, so nothing is handed out"
    return unchecked(reason, words_of(error, 300), retry_after=RETRY)
