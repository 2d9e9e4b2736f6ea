"""One video of the page, from the line to its ending: what of it may be seen, and when.

With the guard on, nothing of a video leaves this file before its rule is certain that the video is
safe. Until then its predicted x0 lie here, and are thrown away when it is stopped.
"""

import sys
import threading
import time
from dataclasses import dataclass, field

import torch

from lvd.errors import InputError, words_of
from lvd.guard.result import STOPPED, UNCHECKED, GuardResult
from lvd.rules.rule import SAFE, UNSAFE
from lvd.utils.video import mp4_bytes
from lvd.x0.levels import levels_of

CRF = 12  # H.264's constant rate factor: near transparent, as the sampler writes its videos
PATIENCE = 10  # seconds without a look, after which nobody is there any more
WAITING, SAMPLING, ENDED = "waiting", "sampling", "ended"
UNGUARDED, FAILED, GONE = "unguarded", "failed", "gone"
SHOWN = (SAFE, UNGUARDED)  # endings that have a clip


@dataclass(frozen=True)
class Ending:
    """How a video ended.

    Attributes:
        kind: "safe", "unsafe", "unchecked", "unguarded", "failed" or "gone".
        reason: in words.
        result: lvd.guard.result's GuardResult, or None.
        clip: bytes of an mp4, or None.
    """

    kind: str
    reason: str = ""
    result: GuardResult | None = None
    clip: bytes | None = field(default=None, repr=False)

    def __post_init__(self):
        if (self.clip is not None) != (self.kind in SHOWN):
            raise AssertionError("a clip is shown that nobody found safe or chose not to check")


@dataclass(frozen=True)
class View:
    """What of a job may be seen now.

    Attributes:
        phase: "waiting", "sampling" or "ended".
        steps_run: denoising steps so far.
        trace: lvd.guard.trace.Trace, or None.
        x0: [step] of predicted x0 [C, F, h, w], float16 on the CPU; [] while the guard may still
            stop the video.
        ending: Ending, or None.
    """

    phase: str
    steps_run: int
    trace: object
    x0: list
    ending: Ending | None


class Job:
    """One video that is asked for. `run` makes it in one thread, `look` sees it from another.

    Args:
        sampler: MagicTime.utils.one_video.OneVideo.
        config: MagicTime.utils.config.Config of this video.
        asked: MagicTime.utils.app.asked.Asked.
        guard: lvd.Guard, or None: the video is not checked.
    """

    def __init__(self, sampler, config, asked, guard):
        self.config = config
        self.asked = asked
        self.guard = guard
        self._sampler = sampler
        self._session = None
        self._stop_reason = None
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        self._x0 = []
        self._may_show = guard is None
        self._view = View(WAITING, 0, None, [], None)

    @property
    def steps(self):
        """Denoising steps of the whole sampling."""
        return self.config.settings.steps

    def stop(self, reason):
        """Ask for no further denoising step. The first reason counts."""
        self._stop_reason = self._stop_reason or reason

    def look(self):
        """Return the View of this moment. Who stops looking lets the sampling end."""
        with self._lock:
            self._looked = time.monotonic()
            return self._view

    def run(self):
        """Make the video. Whatever goes wrong, it ends, and nothing unchecked is seen of it."""
        self._show(SAMPLING)
        try:
            ending = self._made()
        except BaseException as error:  # the thread goes on with the next job
            print(f"sampling failed: {type(error).__name__}: {words_of(error, 300)}"[:299])
            sys.stdout.flush()
            ending = Ending(FAILED, _why(error))
        if ending.kind not in SHOWN:
            self._x0, self._may_show = [], False
        self._show(ENDED, ending)

    def _made(self):
        if self._stop_reason:
            return Ending(GONE, self._stop_reason)
        if self.guard is not None:
            levels = levels_of(self.config.make_scheduler())
            self._session = self.guard.session(self.steps, 1, levels)
        asked = self.asked
        latents = self._sampler.sample(
            self.config, asked.prompt, self._sampler.negative, asked.seed, self._on_step
        )
        result = self._session.results()[0] if self._session else None
        if result and result.verdict == UNSAFE:
            return Ending(UNSAFE, result.reason, result)
        if self._stop_reason:
            return Ending(GONE, self._stop_reason)
        if result and result.verdict != SAFE:
            return Ending(UNCHECKED, result.reason, result)
        frames = None if latents is None else self._sampler.frames(latents)
        if frames is None:
            dtype = self.config.settings.dtype
            return Ending(FAILED, f"values that are not finite in dtype {dtype}", result)
        clip = mp4_bytes(frames, self.config.settings.fps, CRF)
        return Ending(SAFE if result else UNGUARDED, "", result, clip)

    def _on_step(self, step, x0):
        """Take one step's x0 [1, C, F, h, w]; returns [] where sampling shall end."""
        if self._session:
            (verdict,) = self._session.observe(step, x0)
            self._may_show = verdict == SAFE
            if verdict in STOPPED:
                self._x0 = []
                self._show(SAMPLING, steps_run=step + 1)
                return []
        self._x0 = [*self._x0, x0[0].to("cpu", torch.float16)]
        self._show(SAMPLING, steps_run=step + 1)
        if time.monotonic() - self._looked > PATIENCE:
            self.stop("nobody looked at it any more")
        return [] if self._stop_reason else None

    def _show(self, phase, ending=None, steps_run=None):
        """Let `look` see how far it is."""
        steps_run = self._view.steps_run if steps_run is None else steps_run
        trace = self._session.trace(0) if self._session else None
        x0 = self._x0 if self._may_show else []
        with self._lock:
            self._view = View(phase, steps_run, trace, x0, ending)


def _why(error):
    """Say in one sentence, which anybody may read, why the sampling failed."""
    if isinstance(error, torch.OutOfMemoryError):
        return "one video does not fit in the memory of the device"
    if isinstance(error, InputError):
        return words_of(error, 300)
    return f"{type(error).__name__}; the terminal says more"
