"""One guarded call of a pipeline, from its beginning to its return: what it may hand out."""

import threading
from contextlib import contextmanager
from dataclasses import replace

from lvd.errors import InputError, words_of
from lvd.guard.output import blank_videos
from lvd.guard.quiet import log_no_stops
from lvd.guard.result import STOPPED, UnsafeVideoError
from lvd.guard.samplings import VerdictsOfSamplings
from lvd.x0.layouts import interrupt, may_begin_later
from lvd.x0.schedulers import class_name
from lvd.x0.watch import watch_steps


class CallSteps(watch_steps):
    """Watches the steps of a scheduler, which belong to the call that is running.

    Args:
        scheduler: of the watched pipeline.
        running: function that returns the GuardedCall that is running, or None.
        copies_are_others: as `watch_steps` takes it.
    """

    def __init__(self, scheduler, running, copies_are_others=False):
        super().__init__(
            scheduler,
            self._on_steps,
            self._on_timesteps,
            self._on_tensor,
            self._need_call,
            copies_are_others=copies_are_others,
            several=True,
        )
        self._running = running

    def _call(self):
        """The call that these steps belong to, or None."""
        call = self._running()
        is_its = call and call.steps is self and call.thread == threading.get_ident()
        return call if is_its else None

    def _is_cut_short(self):
        call = self._call()
        return call is not None and call.is_interrupted()

    def _need_call(self):
        if self._call() is None:
            raise InputError(
                f"{class_name(self.scheduler)}: a step outside of the guarded call, where nothing "
                "would be checked; in the block of `with guard.watch(pipe)` call `pipe(...)` itself"
            )

    def _on_timesteps(self, timesteps):
        if call := self._call():
            call.begin(timesteps)

    def _on_steps(self, step, timestep, x0, prev_sample):
        self._call().step(step, timestep, x0)

    def _on_tensor(self, tensor):
        return self._call().blanked(tensor)


def nothing_checked(pipe, scheduler):
    """Return the InputError for a call that took no step with the scheduler."""
    return InputError(
        f"{type(pipe).__name__}: took no step with its {class_name(scheduler)}, so nothing was "
        "checked"
    )


class GuardedCall:
    """One call of a pipeline under the guard.

    A pipeline that makes a long video in sections samples several times in one call. Each sampling
    has a session, and a video that one of them stops stays stopped.

    Args:
        guard: lvd.guard.guard.Guard.
        pipe: the pipeline.
        layout: lvd.x0.layouts.Layout of its latents.
        on_unsafe: "raise" or "interrupt", see Guard.watch.
        steps: CallSteps of the scheduler that it has now.
        guidance_scale: of the call; None: not known.

    Attributes:
        thread: identity of the thread that calls.
        seen: denoising steps that were judged, of all samplings.
    """

    def __init__(self, guard, pipe, layout, on_unsafe, steps, guidance_scale=None):
        self.guard = guard
        self.pipe = pipe
        self.steps = steps
        self.thread = threading.get_ident()
        self.seen = 0
        log_no_stops()
        self._layout = layout
        self._on_unsafe = on_unsafe
        self._scheduler = pipe.scheduler
        self._samplings = VerdictsOfSamplings()
        self._differs = guard.check({"guidance_scale": guidance_scale})
        self._error = None  # the first refusal; the pipeline or a callback may swallow it
        self._refusal = None  # of the timesteps that are set, unless others are taken
        steps.state.forget()  # a call before this one may have failed at its first step

    def begin(self, timesteps):
        """The timesteps are set: the last moment to refuse before the model runs.

        A pipeline that may leave out the first of them is refused at its first step.
        """
        with self._remembering():
            sampling = {
                "steps": len(timesteps),
                "timesteps": timesteps,
                "levels": self.steps.state.levels,
            }
            self._need_whole_sampling()
            self._refusal = None
            try:
                session = self.guard.session_of(sampling)
            except InputError as error:
                if not may_begin_later(self.pipe):
                    raise
                self._refusal = error
                return
            self._samplings.begin(session, len(timesteps))

    def step(self, step, timestep, x0):
        """One denoising step is over."""
        with self._remembering():
            if self._refusal:
                raise self._refusal
            clips = self._layout.unpack(x0)
            if step == 0:
                self.guard.check({"latent_shape": list(clips.shape[1:])})
            planned = self.steps.state.timesteps[step]
            if timestep != planned:
                raise InputError(
                    f"step {step}{self._of_sampling()} has timestep {timestep:g}, its scheduler's "
                    f"is {planned:g}: the pipeline takes other steps than its scheduler has set"
                )
            self.seen += 1
            self._samplings.observe(step, clips)
            if len(self._stopped()) == len(self.verdicts()):  # no video is left
                if self._on_unsafe == "raise":
                    raise UnsafeVideoError(self.results())
                interrupt(self.pipe)

    def blanked(self, tensor):
        """Return the scheduler's tensor with the stopped videos set to zero."""
        stopped = self._stopped()
        return self._layout.blank(tensor, stopped) if stopped else tensor

    def checked(self, output):
        """Return what may be handed out of the pipeline's output, stopped videos blanked.

        Raises:
            UnsafeVideoError: a video has no verdict, or all are stopped and the watch raises.
            InputError: a sampling was not watched from its first step to its last.
        """
        with self._remembering():
            if self._error:
                raise self._error
            if not self.verdicts():
                raise nothing_checked(self.pipe, self._scheduler)
            self._need_whole_sampling()
            stopped, videos = self._stopped(), len(self.verdicts())
            if stopped:
                output = blank_videos(output, stopped, videos)
            return output

    def _need_whole_sampling(self):
        """InputError or UnsafeVideoError unless the sampling that has begun is over and decided."""
        name = type(self.pipe).__name__
        if self.pipe.scheduler is not self._scheduler:
            raise InputError(
                f"{name}: its scheduler was replaced during the call, so the later steps were not "
                "checked and nothing is handed out; replace it before the call"
            )
        taken, planned = self._samplings.taken, self._samplings.planned
        if 0 < taken < planned and not self.is_interrupted():
            raise InputError(
                f"{name}: {taken} of {planned} denoising steps{self._of_sampling()} were taken "
                "under the guard, so nothing is handed out; all are needed unless the pipeline is "
                "interrupted"
            )
        if None in self.verdicts():
            raise UnsafeVideoError(self.results())

    def is_interrupted(self):
        """Whether the pipeline was told to skip the rest of its steps."""
        return bool(getattr(self.pipe, "interrupt", False))

    def _of_sampling(self):
        """The number of the sampling, for messages; "" for the first."""
        number = self._samplings.number
        return f" of sampling {number}" if number else ""

    def _stopped(self):
        return [k for k, verdict in enumerate(self.verdicts()) if verdict in STOPPED]

    def verdicts(self):
        """Return the verdict of each video so far, None where it is undecided."""
        return self._samplings.verdicts()

    def results(self):
        """Return a GuardResult for each video; [] before the first step."""
        return [replace(result, **self._differs) for result in self._samplings.results()]

    @contextmanager
    def _remembering(self):
        """Remember an error of the block, after which nothing of this call may be handed out."""
        try:
            yield
        except BaseException as error:
            self._error = self._error or error
            if not isinstance(error, UnsafeVideoError):
                self._samplings.withhold(words_of(error, 200))
            raise
