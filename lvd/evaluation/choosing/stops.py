"""Where the rules of a sequence stop videos, all at once.

The numbers and the bounds are those of the Rule objects. Only the comparison of one video with all
bounds is done here, which makes a search of seconds out of one of minutes.
"""

from dataclasses import dataclass

import numpy as np

from lvd.evaluation.choosing.candidates import Sequence
from lvd.rules.confidence import ConfidenceRule, LikelihoodRatioRule, odds_of
from lvd.rules.rule import NEVER, costs


@dataclass(frozen=True)
class Measured:
    """What J candidates of a sequence do on the videos.

    Attributes:
        sequence: the Sequence.
        recall: [J] share of the unsafe videos that is found.
        cost: [J] mean share of the steps that an unsafe video takes; one that is missed takes all.
        cost_found: [J] the same of those that are found; NaN where none is.
        false_positives: int [J], how many normal videos are stopped.
        normal: how many normal videos there are.
    """

    sequence: Sequence
    recall: np.ndarray
    cost: np.ndarray
    cost_found: np.ndarray
    false_positives: np.ndarray
    normal: int

    @property
    def accuracy(self):
        """[J] mean of the shares of unsafe and of normal videos that are judged rightly."""
        return (self.recall + 1 - self.false_positives / self.normal) / 2


def measure(sequence, videos):
    """Return what the candidates of a sequence do.

    Args:
        sequence: Sequence.
        videos: RecordedVideos of both kinds.

    Returns:
        Measured.
    """
    stops = stops_of(sequence, videos.evidence)
    unsafe, normal = stops[videos.is_unsafe], stops[~videos.is_unsafe]
    found = unsafe != NEVER
    shares = costs(unsafe, videos.steps)
    count = found.sum(0)
    of_found = np.where(found, shares, 0).sum(0)
    return Measured(
        sequence=sequence,
        recall=count / len(unsafe),
        cost=shares.mean(0),
        cost_found=np.divide(of_found, count, np.full(len(count), np.nan), where=count > 0),
        false_positives=(normal != NEVER).sum(0),
        normal=len(normal),
    )


def stops_of(sequence, evidence):
    """Return after which step each rule stops each video.

    Args:
        sequence: Sequence of J rules.
        evidence: Evidence of N videos at S steps.

    Returns:
        int [N, J], the `stops` of each rule; NEVER where it does not stop the video.
    """
    first = first_candidates(sequence, evidence)  # [N, S]
    rules = len(sequence.rules)
    videos, steps = first.shape
    # Rule j has not stopped the video yet after the steps at which `first` is still above j.
    places = np.arange(videos)[:, None] * (rules + 1) + first
    counts = np.bincount(places.ravel(), minlength=videos * (rules + 1))
    reached = counts.reshape(videos, rules + 1).cumsum(1)[:, :rules]
    return np.where(reached == 0, NEVER, steps - reached)


def first_candidates(sequence, evidence):
    """Return the safest rule that has stopped each video, as it is after each step.

    Args:
        sequence: Sequence of J rules.
        evidence: Evidence of N videos at S steps.

    Returns:
        int [N, S], positions in the sequence; J where no rule has stopped it.
    """
    numbers = _numbers(sequence.rules[0], evidence)  # [N, S, K]
    bounds = np.stack([_bounds(rule, evidence.steps) for rule in sequence.rules])  # [J, S, *]
    bounds = np.broadcast_to(bounds, (*bounds.shape[:2], numbers.shape[2]))
    if (bounds[1:] > bounds[:-1]).any():
        raise ValueError(f"{sequence.name}: a rule is safer than the one before it")
    first = np.full(numbers.shape[:2], len(sequence.rules))
    for step in range(evidence.steps):
        for column in range(numbers.shape[2]):
            rising = bounds[::-1, step, column]
            reached = np.searchsorted(rising, numbers[:, step, column], side="right")
            first[:, step] = np.minimum(first[:, step], len(rising) - reached)
    return np.minimum.accumulate(first, 1)


def _numbers(rule, evidence):
    """What the rule holds against its bounds, [N, S, K]."""
    if isinstance(rule, LikelihoodRatioRule):
        return rule.gathered(evidence)
    if isinstance(rule, ConfidenceRule):
        return rule.numbers(evidence)
    return rule.votes(evidence).cumsum(1)[:, :, None]


def _bounds(rule, steps):
    """The rule's bounds, float [S, K]; infinite after its horizon."""
    if isinstance(rule, LikelihoodRatioRule):
        bounds = odds_of(rule.bounds(steps))
    elif isinstance(rule, ConfidenceRule):
        bounds = rule.bounds(steps)
    else:
        bounds = np.full((steps, 1), float(rule.needed))
    bounds[rule.horizon :] = np.inf
    return bounds
