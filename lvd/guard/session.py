"""The guard without a pipeline: what is decided about each video of a batch, one denoising step
after the other."""

import time
from collections import Counter
from dataclasses import dataclass, field

import torch

from lvd.errors import InputError
from lvd.voting import (
    check_eta,
    check_sampled,
    decided,
    exact,
    says_unsafe,
    step_vote,
    votes_needed,
)

UNSAFE, SAFE, UNCHECKED = "unsafe", "safe", "unchecked"
STOPPED = (UNSAFE, UNCHECKED)  # verdicts that end a video


@dataclass(frozen=True)
class GuardResult:
    """What became of one video.

    verdict: "unsafe", "safe", or "unchecked": something failed, and the video was stopped all the
    same. step: number of the denoising step after which that was certain (None: it never was).
    votes: of the steps that were looked at. scores: {category: [raw probability of unsafe at each
    of them]}. steps_run of steps_total were sampled, steps_saved were not. seconds: from the
    beginning of the sampling to the verdict; seconds_saved: an estimate, steps_saved times the mean
    time that a step takes for one video of the batch. detectors: the names of those that ran.
    reason: why, in words. categories: whose detectors said unsafe, the most often first.
    """

    verdict: str
    step: int | None
    votes: list
    scores: dict
    steps_total: int
    steps_run: int
    steps_saved: int
    seconds: float
    seconds_saved: float
    detectors: list
    reason: str
    categories: list = field(default_factory=list)

    @property
    def stopped(self):
        return self.verdict in STOPPED


class UnsafeVideoError(Exception):
    """The guard stopped all videos of a call, or could not check one to its verdict. results:
    [GuardResult], one a video."""

    def __init__(self, results):
        self.results = results
        stopped = [
            f"video {k}: {r.verdict} ({r.reason})" for k, r in enumerate(results) if r.stopped
        ]
        super().__init__("; ".join(stopped))


@dataclass
class _Video:
    verdict: str | None = None
    step: int | None = None
    reason: str = "sampling ended before the vote was decided"
    votes: list = field(default_factory=list)
    scores: list = field(default_factory=list)  # [step][group]
    steps_run: int = 0
    seconds: float = 0.0


class GuardSession:
    """The votes of one batch of videos while it is sampled.

    bank: lvd.detectors.bank.Bank; clips: function of a step and x0 [n, C, F, h, w] that makes its
    detectors' clips (lvd.guard.guard.Reader); steps: those of the whole sampling. videos: how many;
    None: as many as the first step shows.
    """

    def __init__(self, bank, clips, lambda_, eta, steps, operating_point="validation", videos=None):
        exact(lambda_)
        check_eta(eta, bank.steps[-1] + 1)
        check_sampled(eta, steps)
        self.bank, self._clips, self.lambda_, self.eta, self.steps = (
            bank,
            clips,
            lambda_,
            eta,
            steps,
        )
        self._thresholds = [bank.thresholds(step, operating_point) for step in range(eta)]
        self._videos = None if videos is None else [_Video() for _ in range(videos)]
        self._began = self._last = time.monotonic()

    def observe(self, step, x0, indices=None):
        """The state of each video after a step: "unsafe", "safe", "unchecked", or None while that
        is open.

        x0: predicted at this step, [n, C, F, h, w]; indices: which videos these are (numbers from
        0, default: all). Returns a list of n. Steps must come in order, without a gap for any video
        that is open. Detectors see open videos alone.
        """
        if self._videos is None:
            self._videos = [_Video() for _ in range(len(x0))]
        videos = [
            self._videos[k] for k in (range(len(self._videos)) if indices is None else indices)
        ]
        if len(videos) != len(x0):
            raise InputError(f"guard: {len(x0)} videos at step {step}, {len(videos)} are expected")
        whole = torch.isfinite(x0).flatten(1).all(1).tolist()
        for video, finite in zip(videos, whole, strict=True):
            video.steps_run += 1
            if not finite and video.verdict not in STOPPED:
                self._end(video, UNCHECKED, step, f"x0 is not finite at step {step}")
            elif video.verdict is None:
                self._decide(video, step)  # lambda 0 is decided before any vote
        open_ = [k for k, video in enumerate(videos) if video.verdict is None]
        for k in open_:
            if len(videos[k].votes) != step:
                self._end(
                    videos[k],
                    UNCHECKED,
                    step,
                    f"step {step} came after {len(videos[k].votes)} votes",
                )
        open_ = [k for k in open_ if videos[k].verdict is None]
        if open_:
            self._look(
                step, x0 if len(open_) == len(videos) else x0[open_], [videos[k] for k in open_]
            )
        self._last = time.monotonic()
        return [video.verdict for video in videos]

    def verdicts(self):
        """[verdict or None] of all videos so far."""
        return [video.verdict for video in self._videos or []]

    def results(self):
        """[GuardResult] of all videos; those that are open now count as unchecked."""
        return [self._result(video) for video in self._videos or []]

    def _look(self, step, x0, videos):
        """Ask the detectors about open videos; when they fail, about each alone, so that no other
        suffers for it."""
        try:
            with torch.autocast(
                self.bank.device.type, enabled=False
            ):  # which the caller's pipeline may run under
                found = self.bank.score(step, self._clips(step, x0)).tolist()  # [n][G]
        except (
            Exception
        ) as error:  # whatever goes wrong in a detector: what was not checked must not pass
            if len(videos) == 1:
                reason = (
                    f"{type(error).__name__} in the detectors of step {step}: "
                    f"{' '.join(str(error).split())[:200]}"
                )
                self._end(videos[0], UNCHECKED, step, reason)
            else:
                for k, video in enumerate(videos):
                    self._look(step, x0[k : k + 1], [video])
            return
        for video, scores in zip(videos, found, strict=True):
            video.scores.append(scores)
            if not all(map(_is_probability, scores)):
                self._end(
                    video,
                    UNCHECKED,
                    step,
                    f"a detector of step {step} answered with no probability",
                )
                continue
            video.votes.append(step_vote(map(says_unsafe, scores, self._thresholds[step])))
            self._decide(video, step)

    def _decide(self, video, step):
        verdict = decided(video.votes, self.lambda_, self.eta)
        if verdict:
            need = votes_needed(self.lambda_, self.eta)
            self._end(
                video,
                verdict,
                step,
                f"{sum(video.votes)} of {len(video.votes)} steps voted unsafe, {need} of "
                f"{self.eta} make a video unsafe",
            )

    def _end(self, video, verdict, step, reason):
        video.verdict, video.step, video.reason = verdict, step, reason
        video.seconds = time.monotonic() - self._began

    def _result(self, video):
        groups, ran = self.bank.groups, len(video.scores)
        names = [self.bank.categories[group] for group in groups]
        each = (self._last - self._began) / max(1, sum(v.steps_run for v in self._videos))
        saved = self.steps - video.steps_run
        return GuardResult(
            verdict=video.verdict or UNCHECKED,
            step=video.step,
            votes=list(video.votes),
            scores={name: [scores[k] for scores in video.scores] for k, name in enumerate(names)},
            steps_total=self.steps,
            steps_run=video.steps_run,
            steps_saved=saved,
            seconds=video.seconds if video.verdict else self._last - self._began,
            seconds_saved=each * saved,
            detectors=[
                f"{group}/{step} ({name})"
                for step in range(ran)
                for group, name in zip(groups, names)
            ],
            reason=video.reason,
            categories=self._accused(video, names),
        )

    def _accused(self, video, names):
        """The categories whose detectors said unsafe of a video, the most often first."""
        counts = Counter(
            name
            for step, scores in enumerate(video.scores[: len(video.votes)])
            for name, score, threshold in zip(names, scores, self._thresholds[step], strict=True)
            if says_unsafe(score, threshold)
        )
        return [name for name, _ in counts.most_common()]


def _is_probability(score):
    return 0 <= score <= 1  # False for NaN
