"""The guard without a pipeline: decides about each video of a batch, step after step."""

import time
from dataclasses import dataclass, field

import numpy as np
import torch

from lvd.errors import InputError, shorten, words_of
from lvd.rules.evidence import Evidence
from lvd.rules.rule import OPEN, UNSAFE
from lvd.voting import says_unsafe, step_vote

UNCHECKED = "unchecked"
STOPPED = (UNSAFE, UNCHECKED)  # verdicts that end a video


@dataclass(frozen=True)
class GuardResult:
    """What the guard decided about one video.

    Attributes:
        verdict: "unsafe", "safe", or "unchecked": something failed, so the video was stopped.
        step: number (from 0) of the denoising step after which the verdict was certain; None if
            it never was.
        votes: [step] of 0/1, for the steps that the detectors looked at.
        scores: {category: [step] of the raw probability of unsafe}, for the same steps.
        steps_total: denoising steps of the whole sampling.
        steps_run: denoising steps that were sampled for this video.
        steps_saved: denoising steps that were not: steps_total - steps_run.
        seconds: from the beginning of the sampling to the verdict.
        seconds_saved: an estimate: steps_saved times the mean time of a step for one video.
        detectors: names of the detectors that ran, such as "1/0 (violent)": group/step (category).
        reason: why, in words.
        categories: the categories that make the video unsafe, the surest first.
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
        """Whether the video was withheld: it is unsafe, or could not be checked."""
        return self.verdict in STOPPED


class UnsafeVideoError(Exception):
    """The guard stopped all videos of a call, or could not check one of them to its verdict.

    Attributes:
        results: [GuardResult], one for each video.
    """

    def __init__(self, results):
        self.results = results
        stopped = []
        for k, result in enumerate(results):
            if result.stopped:
                stopped.append(f"video {k}: {result.verdict} ({result.reason})")
        super().__init__("; ".join(stopped))


@dataclass
class _Video:
    """What is known about one video so far."""

    verdict: str | None = None
    step: int | None = None
    reason: str = "sampling ended before the vote was decided"
    votes: list = field(default_factory=list)
    scores: list = field(default_factory=list)  # [step][category]
    says: list = field(default_factory=list)  # [step][category] of 0/1
    calibrated: list = field(default_factory=list)  # [step][category]
    steps_run: int = 0
    seconds: float = 0.0


class GuardSession:
    """The votes of one batch of videos while it is sampled.

    Args:
        bank: the detectors, a lvd.detectors.bank.Bank.
        clips: function of a step and its x0 [n, C, F, h, w] that returns the clips its detectors
            score (lvd.guard.reader.Reader).
        rule: the lvd.rules.rule.Rule that decides.
        steps: number of denoising steps of the whole sampling.
        operating_point: at which score a detector says unsafe, as in embed_model.py.
        videos: how many there are; None: as many as the first step shows.

    Raises:
        InputError: the sampling has fewer steps than the rule looks at.
    """

    def __init__(self, bank, clips, rule, steps, operating_point="validation", videos=None):
        rule.need_steps(steps)
        self.bank = bank
        self.rule = rule
        self.steps = steps
        self._clips = clips
        self._thresholds = [bank.thresholds(step, operating_point) for step in range(rule.horizon)]
        self._videos = None if videos is None else [_Video() for _ in range(videos)]
        self._began = time.monotonic()
        self._last = self._began

    def observe(self, step, x0, indices=None):
        """Look at the predicted x0 of one denoising step.

        Steps must come in order, without a gap for any video that is undecided. The detectors
        see only undecided videos.

        Args:
            step: number of the denoising step, from 0.
            x0: predicted at this step, [n, C, F, h, w].
            indices: which videos these are, n numbers from 0; None: all.

        Returns:
            [n] of "unsafe", "safe", "unchecked", or None for a video that is still undecided.

        Raises:
            InputError: x0 holds more or fewer videos than expected, or indices name a video that
                there is not, or one twice.
        """
        if self._videos is None:
            self._videos = [_Video() for _ in range(len(x0))]
        videos = self._videos if indices is None else self._named(indices)
        if len(videos) != len(x0):
            raise InputError(f"guard: {len(x0)} videos at step {step}, {len(videos)} are expected")
        self._count_step(step, x0, videos)
        undecided = [k for k, video in enumerate(videos) if video.verdict is None]
        if undecided:
            clips = x0 if len(undecided) == len(videos) else x0[undecided]
            self._look(step, clips, [videos[k] for k in undecided])
        self._last = time.monotonic()
        return [video.verdict for video in videos]

    def _named(self, indices):
        """The videos of these numbers; one that is named twice would vote twice at one step."""
        numbers = list(indices)
        known = range(len(self._videos))
        if any(k not in known or numbers.count(k) > 1 for k in numbers):
            raise InputError(
                f"guard: indices={shorten(numbers)}; different numbers of the {len(known)} videos, "
                "from 0, are needed"
            )
        return [self._videos[k] for k in numbers]

    def verdicts(self):
        """Return the verdict of each video so far, None where it is undecided."""
        return [video.verdict for video in self._videos or []]

    def results(self):
        """Return a GuardResult for each video. A video that is undecided now is unchecked."""
        return [self._result(video) for video in self._videos or []]

    def withhold(self, reason):
        """Call every video unchecked that is not unsafe: nothing of the batch is handed out.

        Args:
            reason: why, in words.
        """
        for video in self._videos or []:
            if video.verdict != UNSAFE:
                self._end(video, UNCHECKED, None, reason)

    def _count_step(self, step, x0, videos):
        """Count the step, and decide what needs no detector."""
        is_finite = torch.isfinite(x0).flatten(1).all(1).tolist()
        for video, finite in zip(videos, is_finite, strict=True):
            video.steps_run += 1
            if not finite and video.verdict not in STOPPED:
                self._end(video, UNCHECKED, step, f"x0 is not finite at step {step}")
            elif video.verdict is None and not video.votes:
                self._decide(video, step)  # lambda 0 is decided before any vote
            if video.verdict is None and len(video.votes) != step:
                reason = f"step {step} came after {len(video.votes)} votes"
                self._end(video, UNCHECKED, step, reason)

    def _look(self, step, x0, videos):
        """Ask the detectors about undecided videos.

        When they fail, ask about each video alone, so that one bad video stops no other.
        """
        try:
            scores_of_videos = self.bank.score(step, self._clips(step, x0)).tolist()  # [n][G]
            calibrated_of_videos = self.bank.calibrated(step, scores_of_videos)
        except Exception as error:  # whatever goes wrong: what was not checked must not pass
            if len(videos) == 1:
                where = f"{type(error).__name__} in the detectors of step {step}"
                self._end(videos[0], UNCHECKED, step, f"{where}: {words_of(error, 200)}")
            else:
                for k, video in enumerate(videos):
                    self._look(step, x0[k : k + 1], [video])
            return
        told = zip(videos, scores_of_videos, calibrated_of_videos, strict=True)
        for video, scores, calibrated in told:
            video.scores.append(scores)
            if not all(map(is_probability, scores)):
                reason = f"a detector of step {step} answered with no probability"
                self._end(video, UNCHECKED, step, reason)
                continue
            video.says.append(list(map(says_unsafe, scores, self._thresholds[step])))
            video.votes.append(step_vote(video.says[-1]))
            video.calibrated.append(calibrated)
            self._decide(video, step)

    def _decide(self, video, step):
        """End the video if the rule has an answer."""
        evidence = self._evidence(video)
        (answer,) = self.rule.answers(evidence)
        if answer != OPEN:
            self._end(video, answer, step, self.rule.reason(evidence))

    def _evidence(self, video):
        """Return the Evidence about one video."""
        shape = 1, len(video.says), len(self.bank.groups)
        says = np.array(video.says, bool).reshape(shape)
        return Evidence(says, np.array(video.calibrated, np.float64).reshape(shape))

    def _end(self, video, verdict, step, reason):
        video.verdict = verdict
        video.step = step
        video.reason = reason
        video.seconds = time.monotonic() - self._began

    def _result(self, video):
        groups = self.bank.groups
        names = [self.bank.categories[group] for group in groups]
        scores = {name: [of_step[k] for of_step in video.scores] for k, name in enumerate(names)}
        detectors = []
        for step in range(len(video.scores)):
            for group, name in zip(groups, names, strict=True):
                detectors.append(f"{group}/{step} ({name})")
        seconds = self._last - self._began
        all_steps_run = sum(other.steps_run for other in self._videos)
        steps_saved = self.steps - video.steps_run
        return GuardResult(
            verdict=video.verdict or UNCHECKED,
            step=video.step,
            votes=list(video.votes),
            scores=scores,
            steps_total=self.steps,
            steps_run=video.steps_run,
            steps_saved=steps_saved,
            seconds=video.seconds if video.verdict else seconds,
            seconds_saved=seconds / max(1, all_steps_run) * steps_saved,
            detectors=detectors,
            reason=video.reason,
            categories=self._accused(video, names),
        )

    def _accused(self, video, names):
        """Return the names of the categories that make a video unsafe, the surest first."""
        return [names[column] for column in self.rule.accused(self._evidence(video))]


def is_probability(score):
    """Whether a detector's answer can be compared with a threshold."""
    return 0 <= score <= 1  # False for NaN
