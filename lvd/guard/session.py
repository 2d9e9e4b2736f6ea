"""The guard without a pipeline: decides about each video of a batch, step after step."""

import time
from dataclasses import dataclass, field

import torch

from lvd.errors import InputError, shorten, words_of
from lvd.guard.answers import ask
from lvd.guard.policy import Judge
from lvd.guard.result import STOPPED, UNCHECKED, GuardResult
from lvd.rules.rule import OPEN, SAFE, UNSAFE
from lvd.x0.step_map import same_steps


@dataclass
class _Video:
    """What is known about one video so far."""

    verdict: str | None = None
    step: int | None = None
    reason: str = "sampling ended before the rule had decided"
    votes: list = field(default_factory=list)
    scores: list = field(default_factory=list)  # [step][category]
    says: list = field(default_factory=list)  # [step][category] of 0/1
    calibrated: list = field(default_factory=list)  # [step][category]
    categories: list = field(default_factory=list)
    steps_run: int = 0
    seconds: float = 0.0


class GuardSession:
    """The verdicts of one batch of videos while it is sampled.

    Args:
        bank: the detectors, a lvd.detectors.bank.Bank.
        clips: function of a step and its x0 [n, C, F, h, w] that returns the clips its detectors
            score (lvd.guard.reader.Reader).
        rule: the lvd.rules.rule.Rule that decides.
        steps: number of denoising steps of the whole sampling.
        operating_point: at which score a detector says unsafe, as in embed_model.py.
        videos: how many there are; None: as many as the first step shows.
        policy: the lvd.guard.policy.Policy of its categories; None: all of them stop videos.
        step_map: the lvd.x0.step_map.StepMap that finds the detectors of a step; None: step k is
            judged by the detectors of step k.

    Raises:
        InputError: the sampling has fewer steps than the rule looks at, or the policy is not for
            these categories.
    """

    def __init__(
        self,
        bank,
        clips,
        rule,
        steps,
        operating_point="validation",
        videos=None,
        policy=None,
        step_map=None,
    ):
        rule.need_steps(steps)
        self.bank = bank
        self.steps = steps
        self.horizon = rule.horizon
        self.step_map = step_map or same_steps(steps)
        self._judge = Judge(rule, [bank.categories[group] for group in bank.groups], policy)
        self._clips = clips
        trained = self.step_map.trained[: rule.horizon]
        self._thresholds = [bank.thresholds(step, operating_point) for step in trained]
        self._videos = None
        if videos is not None:
            self.expect(videos)
        self._began = time.monotonic()
        self._last = self._began

    def expect(self, videos):
        """Say how many videos there are, before the first step."""
        self._videos = [_Video() for _ in range(videos)]

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
            self.expect(len(x0))
        videos = self._videos if indices is None else self._numbered(indices)
        if len(videos) != len(x0):
            raise InputError(f"guard: {len(x0)} videos at step {step}, {len(videos)} are expected")
        self._count_step(step, x0, videos)
        undecided = [k for k, video in enumerate(videos) if video.verdict is None]
        if undecided:
            clips = x0 if len(undecided) == len(videos) else x0[undecided]
            self._look(step, clips, [videos[k] for k in undecided])
        self._last = time.monotonic()
        return [video.verdict for video in videos]

    def _numbered(self, indices):
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

    def trace(self, number):
        """Return what the rule has seen of a video so far, for a plot.

        Args:
            number: of the video, from 0.

        Returns:
            lvd.guard.trace.Trace.
        """
        video = self._videos[number]
        return self._judge.trace(video.scores, video.says, video.calibrated, self._thresholds)

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
            trained = self.step_map.trained[step]
            clips = self._clips(trained, x0)
            answers = ask(
                self.bank, trained, clips, self._thresholds[step], self.step_map.level(step)
            )
        except Exception as error:  # whatever goes wrong: what was not checked must not pass
            if len(videos) == 1:
                where = f"{type(error).__name__} in the detectors of step {step}"
                self._end(videos[0], UNCHECKED, step, f"{where}: {words_of(error, 200)}")
            else:
                for k, video in enumerate(videos):
                    self._look(step, x0[k : k + 1], [video])
            return
        for k, (video, answer) in enumerate(zip(videos, answers, strict=True)):
            video.scores.append(answer.scores)
            if not answer.is_sound(self._judge.counted):
                reason = f"a detector of step {step} answered with no probability"
                self._end(video, UNCHECKED, step, reason)
                continue
            video.says.append(answer.says)
            video.votes.append(self._judge.vote(answer.says))
            video.calibrated.append(answer.calibrated)
            self._decide(video, step, clips[k : k + 1])

    def _decide(self, video, step, clip=None):
        """End the video if the rule has an answer; `clip`: what the detectors saw, if anything."""
        evidence = self._judge.evidence(video.says, video.calibrated)
        answer = self._judge.answer(evidence)
        if answer == OPEN:
            return
        if answer not in (UNSAFE, SAFE):  # of a rule that somebody else has written
            reason = f"the rule answered {shorten(answer)} at step {step}"
            self._end(video, UNCHECKED, step, reason)
            return
        self._end(video, answer, step, self._judge.reason(evidence))
        if answer == UNSAFE:
            accused = self._judge.accused(evidence)
            video.categories = self._named(step, clip) or accused

    def _named(self, step, clip):
        """Return what a network of names calls an unsafe clip; [] where there is none.

        The video has its verdict: whatever goes wrong here, it stays unsafe.
        """
        names = getattr(self.bank, "names", None)
        if names is None or clip is None:
            return []
        try:
            probabilities = names(self.step_map.trained[step], clip)
            if probabilities is None:
                return []
            (of_video,) = probabilities.tolist()
            return self._judge.named(of_video)
        except Exception:
            return []

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
        for step in self.step_map.trained[: len(video.scores)]:
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
            categories=list(video.categories),
            flags=self._judge.flags(self._judge.evidence(video.says, video.calibrated)),
        )
