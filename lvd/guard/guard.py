"""The live guard: watches a diffusers video pipeline sample, and stops a video as soon as the vote
says that it is unsafe.

    guard = lvd.Guard("MagicTime/detectors", lambda_=0.6, eta=5)
    with guard.watch(pipe) as watch:
        video = pipe(prompt, num_inference_steps=50)      # UnsafeVideoError when no video of the
        batch is left
    print(watch.results)                                   # one GuardResult per video

It fails closed: what it cannot check it does not let pass.
"""

import math
import warnings
from contextlib import ExitStack

import torch

from lvd.data.rgb import LatentToRGB
from lvd.data.transforms import fit_clips, from_uint8, to_uint8
from lvd.detectors.bank import load_bank
from lvd.detectors.calibration import check_operating_point
from lvd.errors import InputError
from lvd.guard.session import STOPPED, GuardSession, UnsafeVideoError
from lvd.voting import check_eta, check_sampled, exact
from lvd.x0.layouts import can_interrupt, find_layout, interrupt
from lvd.x0.provenance import need_same_sampling
from lvd.x0.schedulers import class_name, describe_scheduler, need_scheduler
from lvd.x0.watch import watch_steps

MODES = ("raise", "interrupt")
KEPT = 1 << 30  # bytes of detector files up to which all that the vote needs stay in memory


class Guard:
    """Detectors and a voting rule, checked and ready.

    model_dir: folder of {group}/{step}.pth or shared.pth; lambda_, eta: as of lvd.voting.verdict;
    device: of the detectors (None: a GPU where there is one); operating_point: as of
    embed_model.py. decode: latents [n, C, F, h, w] → pixels [n, 3, F, H, W] in [0, 1], for
    detectors of videos. allow_unknown: accept detectors that do not say what sampling they learned
    from; those that do must agree with it in any case. asked_by: what messages put before
    model_dir.

    InputError for a missing or unreadable detector of a step below eta, or one without the
    operating point.
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
        self.lambda_, self.eta, self.allow_unknown = lambda_, eta, allow_unknown
        self.operating_point = check_operating_point(operating_point)
        self.bank = load_bank(
            model_dir, device or ("cuda" if torch.cuda.is_available() else "cpu"), asked_by
        )
        check_eta(eta, self.bank.steps[-1] + 1)
        if missing := sorted(set(range(eta)) - set(self.bank.steps)):
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
        """Context manager for one call of a pipeline: see GuardWatch. layout: as of
        lvd.x0.layouts.find_layout."""
        return GuardWatch(self, pipe, on_unsafe, layout)

    def check(self, sampling):
        """InputError when the detectors learned from another sampling (lvd.x0.provenance) than this
        one."""
        if "latent_shape" in sampling:
            self.reader.need_channels(sampling["latent_shape"][0])
        if "steps" in sampling:
            check_sampled(self.eta, sampling["steps"])
        need_same_sampling(self.members, sampling, self.allow_unknown)

    def session(self, steps, videos=None):
        """GuardSession of one batch, for a sampler of one's own that hands out x0; `check` its
        sampling first."""
        return GuardSession(
            self.bank, self.reader, self.lambda_, self.eta, steps, self.operating_point, videos
        )


class GuardWatch:
    """Watches one call of a pipeline. results: [GuardResult], one a video, when that is over.

    A stopped video is blanked: from then on its latents are zeros, what comes out in its place is
    what the pipeline makes of those, and the other videos of the batch come out as they would have.
    When none is left, UnsafeVideoError ends the call (on_unsafe="raise"), or the pipeline's own
    `interrupt` skips the remaining steps ("interrupt").

    In both modes a call that returns a video whose vote was never decided ends in UnsafeVideoError,
    and in InputError one whose sampling is not what the detectors learned from, or that took no
    step that could be seen. A watch that was never entered watches nothing: it warns when it is
    gone.
    """

    _idle = False  # made, and not entered so far

    def __init__(self, guard, pipe, on_unsafe="raise", layout=None):
        if on_unsafe not in MODES:
            raise InputError(f"on_unsafe={on_unsafe!r}: one of {', '.join(MODES)} is needed")
        if on_unsafe == "interrupt" and not can_interrupt(pipe):
            raise InputError(
                f"{type(pipe).__name__}: cannot be interrupted; on_unsafe='raise' is needed"
            )
        self.guard, self.pipe, self.on_unsafe, self._layout = (
            guard,
            pipe,
            on_unsafe,
            find_layout(pipe, layout),
        )
        guard.check({"x0_mode": "true", "scheduler": describe_scheduler(pipe.scheduler)})
        need_scheduler(pipe.scheduler)
        self._scheduler, self._idle = pipe.scheduler, True

    def __del__(
        self, _warn=warnings.warn
    ):  # bound now: at the interpreter's end the module may be gone
        if self._idle:
            _warn(
                f"guard.watch({type(self.pipe).__name__}) was never entered, so nothing was "
                "checked: `with guard.watch(pipe): pipe(...)` is needed",
                UserWarning,
                stacklevel=2,
            )

    def __enter__(self):
        self._idle = False
        self._session, self.results = None, []
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
        clips = self._layout.unpack(x0)
        if step == 0:
            self.guard.check({"latent_shape": list(clips.shape[1:])})
        if timestep != self._watch.state.timesteps[step]:
            raise InputError(
                f"step {step} has timestep {timestep:g}, its scheduler's is "
                f"{self._watch.state.timesteps[step]:g}: the pipeline does not begin at its first "
                "step, as the detectors' recordings did"
            )
        if all(state in STOPPED for state in self._session.observe(step, clips)):
            self._stop()

    def _stop(self):
        """No video is left."""
        if self.on_unsafe == "raise":
            self.results = self._session.results()
            raise UnsafeVideoError(self.results)
        interrupt(self.pipe)

    def _blanked(self, tensor):
        stopped = [k for k, state in enumerate(self._session.verdicts()) if state in STOPPED]
        return self._layout.blank(tensor, stopped) if stopped else tensor


class Reader:
    """Function of a step and x0 [n, C, F, h, w] → the clips its detectors score, as
    lvd.data.sources makes them of a recording."""

    def __init__(self, bank, members, decode=None):
        kinds = sorted({member.representation for member in members})
        if len(kinds) > 1:
            raise InputError(
                f"{members[0].path}: detectors of {' and '.join(kinds)} clips are mixed; one kind "
                "is needed"
            )
        self.bank, self.representation, self._decode, self._channels = bank, kinds[0], decode, None
        self._dtype = getattr(
            torch, (members[0].about.get("sampling") or {}).get("x0_dtype", "float16")
        )
        if self.representation == "latent":
            config = bank.input_config(0)
            self._channels = config.num_channels if config else None
        elif self.representation == "rgb":
            numbers = members[0].about.get("dataset", {}).get("rgb_matrix")
            if not numbers:
                raise InputError(
                    f"{members[0].path}: does not say which rgb_matrix its frames were made with"
                )
            self._decode = LatentToRGB(tuple(map(tuple, numbers[:-1])), tuple(numbers[-1]))
            self._channels = len(numbers) - 1
        elif decode is None:
            raise InputError(
                f"{members[0].path}: reads decoded videos; decode=, from latents to pixels, is "
                "needed"
            )

    def need_channels(self, channels):
        if self._channels not in (None, channels):
            raise InputError(
                f"the detectors take latents of {self._channels} channels, these have {channels}"
            )

    def __call__(self, step, x0):
        clips = x0.to(self._dtype)
        clips = clips.half() if self.representation == "latent" else self._decode(clips.float())
        if self.representation == "video":
            clips = from_uint8(to_uint8(clips))
        config = self.bank.input_config(step)
        return (fit_clips(config, clips) if config else clips).half()
