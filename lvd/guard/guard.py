"""The live guard: stops an unsafe video while a diffusers pipeline is still sampling it.

    import lvd

    guard = lvd.Guard("MagicTime/detectors", lambda_=0.6, eta=5)  # once, when the service starts
    try:
        with guard.watch(pipe) as watch:  # for each call
            videos = pipe(prompt, num_inference_steps=50).frames
    except lvd.UnsafeVideoError as error:  # all videos were stopped, or one was not checked
        print("refused:", error)
    else:
        for video, result in zip(videos, watch.results):  # of a batch, some may be stopped
            print(result.verdict, "blank" if result.stopped else "fine")

It fails closed: a video that it cannot check is stopped too. Detectors and pipeline must sample
alike (scheduler, timesteps, latents): `InputError` says what differs.

Source: arXiv 2407.12581, the Latent Variable Defense.
"""

import math
import warnings
from contextlib import ExitStack

import torch

from lvd.detectors.bank import load_bank
from lvd.detectors.calibration import check_operating_point
from lvd.errors import InputError
from lvd.guard.reader import Reader
from lvd.guard.session import STOPPED, GuardSession, UnsafeVideoError
from lvd.voting import check_eta, check_sampled, exact
from lvd.x0.layouts import can_interrupt, find_layout, interrupt
from lvd.x0.provenance import need_same_sampling
from lvd.x0.schedulers import class_name, describe_scheduler, need_scheduler
from lvd.x0.watch import watch_steps

MODES = ("raise", "interrupt")
# If the files of the detectors that vote have no more bytes than this, all stay in memory.
KEPT = 1 << 30


class Guard:
    """Detectors and a voting rule, loaded and checked, ready to watch any number of calls.

    Args:
        model_dir: folder of the detectors: {group}/{step}.pth, or shared.pth.
        lambda_: the share of unsafe votes that makes a video unsafe, in [0, 1] (lvd.voting).
        eta: how many denoising steps vote: the first eta. A small eta stops unsafe videos early.
        device: where the detectors run; None: a GPU if there is one.
        operating_point: at which score a detector says unsafe, as in embed_model.py.
        decode: function of latents [n, C, F, h, w] that returns pixels [n, 3, F, H, W] in [0, 1].
            Only detectors that were trained on decoded videos need it.
        allow_unknown: accept detectors that do not say what sampling they were trained for.
            Those that say so must agree with the pipeline in any case.
        asked_by: what messages put before model_dir, such as "--guard ".

    Raises:
        InputError: a detector of one of the first eta steps is missing or unreadable, or has no
            usable threshold; or lambda_, eta or operating_point is out of range.
    """

    def __init__(
        self,
        model_dir,
        lambda_=0.6,
        eta=5,
        device=None,
        operating_point="validation",
        decode=None,
        allow_unknown=False,
        asked_by="model_dir=",
    ):
        exact(lambda_)
        self.lambda_ = lambda_
        self.eta = eta
        self.allow_unknown = allow_unknown
        self.operating_point = check_operating_point(operating_point)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.bank = load_bank(model_dir, device, asked_by)
        check_eta(eta, self.bank.steps[-1] + 1)
        missing = sorted(set(range(eta)) - set(self.bank.steps))
        if missing:
            raise InputError(
                f"{asked_by}{model_dir}: no detectors of step {missing[0]}, which a vote of eta "
                f"{eta} needs"
            )
        self.members = [member for (_, step), member in self.bank.members.items() if step < eta]
        self.reader = Reader(self.bank, self.members, decode)
        self.bank.preload(range(eta), KEPT)
        for step in range(eta):
            if not all(map(math.isfinite, self.bank.thresholds(step, self.operating_point))):
                raise InputError(
                    f"{asked_by}{model_dir}: a threshold of step {step} is not finite, so nothing "
                    "would be unsafe"
                )

    def watch(self, pipe, on_unsafe="raise", layout=None):
        """Watch one call of a pipeline: `with guard.watch(pipe) as watch: pipe(...)`.

        Args:
            pipe: a video pipeline of diffusers.
            on_unsafe: what to do when no video of the batch is left. "raise" ends the call with
                UnsafeVideoError; "interrupt" lets the pipeline skip its remaining steps.
            layout: how the pipeline lays out its latents, as in lvd.x0.layouts.find_layout; None:
                known from the pipeline's class.

        Returns:
            A GuardWatch.

        Raises:
            InputError: the pipeline, its scheduler or its layout is unknown, or the detectors
                were trained for another scheduler.
        """
        return GuardWatch(self, pipe, on_unsafe, layout)

    def check(self, sampling):
        """Check that the detectors were trained for this sampling.

        Args:
            sampling: dict as in lvd.x0.provenance, with the keys that are known so far.

        Raises:
            InputError: they were trained for another one, or it has fewer than eta steps.
        """
        if "latent_shape" in sampling:
            self.reader.need_channels(sampling["latent_shape"][0])
        if "steps" in sampling:
            check_sampled(self.eta, sampling["steps"])
        need_same_sampling(self.members, sampling, self.allow_unknown)

    def session(self, steps, videos=None):
        """Begin the votes of one batch, for a sampler of your own that hands out x0.

        `check` its sampling first.

        Args:
            steps: number of denoising steps of the whole sampling.
            videos: number of videos; None: as many as the first step shows.

        Returns:
            A GuardSession.
        """
        return GuardSession(
            self.bank, self.reader, self.lambda_, self.eta, steps, self.operating_point, videos
        )


class GuardWatch:
    """Watches one call of a pipeline. Made by `Guard.watch`, used as a context manager.

    After each denoising step the detectors look at the predicted x0 of every video whose vote is
    still undecided.

    - A video that is safe is left alone: it comes out as it would have without a guard.
    - A video that is unsafe, or that could not be checked, is stopped: its latents are set to
      zero at this step and at all later ones. What the pipeline decodes from zeros is returned
      in its place, and the other videos of the batch are not changed.
    - When all videos are stopped, the call ends at once with UnsafeVideoError
      (on_unsafe="raise"), or the pipeline skips its remaining steps and returns blanked videos
      (on_unsafe="interrupt").

    The block itself raises when it ends without an error and something was not checked, in both
    modes: UnsafeVideoError if a returned video has no verdict; InputError if no denoising step
    was seen. InputError also ends a sampling that is not the one the detectors were trained for.

    A watch that is made and never entered checks nothing. It warns when it is deleted.

    Attributes:
        results: [GuardResult], one for each video, when the block is over.
    """

    _idle = False  # made, and not entered so far

    def __init__(self, guard, pipe, on_unsafe="raise", layout=None):
        if on_unsafe not in MODES:
            raise InputError(f"on_unsafe={on_unsafe!r}: one of {', '.join(MODES)} is needed")
        if on_unsafe == "interrupt" and not can_interrupt(pipe):
            raise InputError(
                f"{type(pipe).__name__}: cannot be interrupted; on_unsafe='raise' is needed"
            )
        self.guard = guard
        self.pipe = pipe
        self.on_unsafe = on_unsafe
        self._layout = find_layout(pipe, layout)
        guard.check({"x0_mode": "true", "scheduler": describe_scheduler(pipe.scheduler)})
        need_scheduler(pipe.scheduler)
        self._scheduler = pipe.scheduler
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
        self._idle = False
        self._session = None
        self.results = []
        self._watch = watch_steps(self._scheduler, self._step, self._begin, self._blanked)
        with ExitStack() as stack:
            stack.enter_context(self._layout.following(self.pipe))
            stack.enter_context(self._watch)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, trace):
        self._stack.__exit__(kind, error, trace)
        self.results = self._session.results() if self._session else []
        if kind is not None:
            return
        if not self._session or not self._session.verdicts():
            raise InputError(
                f"{type(self.pipe).__name__}: took no step with its "
                f"{class_name(self.pipe.scheduler)}, so nothing was checked"
            )
        if None in self._session.verdicts():
            raise UnsafeVideoError(self.results)

    def _begin(self, timesteps):
        """The timesteps are set: the last moment to refuse before the model runs."""
        self.guard.check({"steps": len(timesteps), "timesteps": timesteps})
        self._session = self.guard.session(len(timesteps))

    def _step(self, step, timestep, x0, prev_sample):
        """One denoising step is over."""
        clips = self._layout.unpack(x0)
        if step == 0:
            self.guard.check({"latent_shape": list(clips.shape[1:])})
        planned = self._watch.state.timesteps[step]
        if timestep != planned:
            raise InputError(
                f"step {step} has timestep {timestep:g}, its scheduler's is {planned:g}: the "
                "pipeline does not begin at its first step, as the detectors' recordings did"
            )
        verdicts = self._session.observe(step, clips)
        if all(verdict in STOPPED for verdict in verdicts):
            self._stop()

    def _stop(self):
        """No video is left."""
        if self.on_unsafe == "raise":
            self.results = self._session.results()
            raise UnsafeVideoError(self.results)
        interrupt(self.pipe)

    def _blanked(self, tensor):
        """Return the scheduler's tensor with the stopped videos set to zero."""
        stopped = [k for k, verdict in enumerate(self._session.verdicts()) if verdict in STOPPED]
        return self._layout.blank(tensor, stopped) if stopped else tensor
