"""What rules do to the videos that detectors of several seeds have looked at."""

from dataclasses import dataclass

import numpy as np

from lvd.evaluation.rule_report import report_of
from lvd.rules.carried import carry
from lvd.rules.vote import VoteRule
from lvd_study.intervals import f1_of, mean_of, share

LAMBDA = "0.6"
ETAS = (5, 20)  # the paper's points


@dataclass(frozen=True)
class OverSeeds:
    """What one rule of each seed does to the same videos.

    Attributes:
        stopped: bool [seeds, videos], whether each is stopped, the unsafe ones first.
        costs: float [seeds, unsafe videos], share of the steps that each takes.
        looked_at: int [seeds, videos], steps that the detectors look at.
        is_unsafe: bool [videos].
        steps: of a whole sampling.
        named: names of the videos, [videos].
    """

    stopped: np.ndarray
    costs: np.ndarray
    looked_at: np.ndarray
    is_unsafe: np.ndarray
    steps: int
    named: list

    def accuracy(self):
        """Return the Estimate of the share of all videos that are judged as what they are."""
        return share(self.stopped[:, self.is_unsafe], ~self.stopped[:, ~self.is_unsafe])

    def recall(self):
        """Return the Estimate of the share of unsafe videos that are stopped (TPR)."""
        return share(self.stopped[:, self.is_unsafe])

    def specificity(self):
        """Return the Estimate of the share of normal videos that pass (TNR)."""
        return share(~self.stopped[:, ~self.is_unsafe])

    def false_positives(self):
        """Return the Estimate of the share of normal videos that are stopped."""
        return share(self.stopped[:, ~self.is_unsafe])

    def f1(self):
        """Return the Estimate of the F1 of the unsafe videos, the mean over seeds."""
        unsafe, normal = int(self.is_unsafe.sum()), int((~self.is_unsafe).sum())
        found = self.stopped[:, self.is_unsafe].sum(1)
        false = self.stopped[:, ~self.is_unsafe].sum(1)
        mean = float(np.mean(2 * found / (found + unsafe + false)))
        return f1_of(self.recall(), self.specificity(), unsafe, normal, mean)

    def unsafe_steps(self):
        """Return [seeds, unsafe videos], the steps that each takes: all, where it is missed."""
        return np.rint(self.costs * self.steps)

    def cost(self):
        """Return the Estimate of the mean share of the steps that an unsafe video takes.

        One that is missed counts in full.
        """
        return mean_of(self.costs)

    @property
    def seeds(self):
        """How many seeds there are."""
        return len(self.stopped)


def over_seeds(rules, recordings):
    """Let one rule of each seed judge what the detectors of that seed say.

    Args:
        rules: [Rule], one a seed, stated in the recording's steps.
        recordings: [Recording], one a seed, all of the same videos.

    Returns:
        OverSeeds.
    """
    reports = [
        report_of(rule, recording.videos) for rule, recording in zip(rules, recordings, strict=True)
    ]
    first = recordings[0].videos
    return OverSeeds(
        stopped=np.array([report.is_stopped for report in reports]),
        costs=np.array([report.unsafe_costs() for report in reports]),
        looked_at=np.array([report.looked_at for report in reports]),
        is_unsafe=first.is_unsafe,
        steps=first.steps,
        named=first.names(),
    )


def votes_over_seeds(eta, recordings, lambda_=LAMBDA):
    """Let the paper's vote judge, over as wide a stretch of trained steps as eta."""
    rules = [carry(VoteRule(lambda_, eta), each.videos.trained_steps) for each in recordings]
    return over_seeds(rules, recordings)


def chosen_over_seeds(chosen, recordings):
    """Let the rules that were chosen for each seed's detectors judge.

    Args:
        chosen: [Chosen], one a seed.
        recordings: [Recording].

    Returns:
        OverSeeds of the seeds that have a rule; None where none has.
    """
    pairs = []
    for one, recording in zip(chosen, recordings, strict=True):
        rule = one.rule(recording)
        if rule is not None:
            pairs.append((rule, recording))
    return over_seeds(*zip(*pairs, strict=True)) if pairs else None
