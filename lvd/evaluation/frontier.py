"""The best rule of each family at each cost, and how good it is.

A rule is chosen on some videos: of all candidates of its family that keep within a mean cost of the
unsafe videos, the one with the best accuracy, or with the best recall within a false positive rate.
Then it is measured on the videos that judge it.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

from lvd.evaluation.choosing.candidates import Sequence, sequences_of
from lvd.evaluation.choosing.stops import measure
from lvd.evaluation.intervals import interval
from lvd.evaluation.metrics import RESAMPLES
from lvd.evaluation.rule_report import MeanIntervals, report_of
from lvd.rules.carried import carry
from lvd.rules.vote import VoteRule

VOTE = "vote"
FAMILIES = (VOTE, "confidence", "likelihood_ratio")
CALIBRATED = FAMILIES[1:]  # those that read calibrated probabilities
# Limits of the mean cost, in denoising steps. One step is the least that any rule can take.
LIMITS = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12.5, 16, 20, 25, 32, 40, 50)
PAPERS = (("0.6", 5), ("0.6", 20))  # (lambda, eta) of the paper's README
THE_PAPERS = "the paper's"


@dataclass(frozen=True)
class Goal:
    """What the rules of a line are chosen for.

    Attributes:
        name: as tables have it.
        most_false: the largest false positive rate that is allowed; None: any.
    """

    name: str
    most_false: float | None = None


ACCURACY = Goal("accuracy")
RECALL_1 = Goal("recall at 1% false positives", 0.01)
RECALL_5 = Goal("recall at 5% false positives", 0.05)
GOALS = (ACCURACY, RECALL_1, RECALL_5)


def limits_of(steps):
    """Return the limits of the mean cost, in steps of a sampling of `steps`."""
    return [limit for limit in LIMITS if limit < steps] + [steps]


def frontier(judged, chosen_on, resamples=RESAMPLES):
    """Choose and measure the best rule of each family for each goal and limit of the cost.

    Args:
        judged: RecordedVideos that the rules are measured on.
        chosen_on: RecordedVideos that they are chosen on, of the same categories; of the same
            steps, or of the trained ones: then a rule is carried over to the steps of `judged`.
        resamples: of the bootstrap.

    Returns:
        A table with a line for each rule: family, goal, limit (of the cost, in steps), rule (in
        words), accuracy, recall, false_positive_rate, cost (mean share of the steps, over all
        unsafe videos), each with {name}_low and {name}_high; found_cost and safe_looked_at (steps
        that the detectors look at of a normal video that passes). Where no candidate is within the
        limits there is no line. The last lines are the paper's rules.
    """
    measured = _Measured(judged, resamples)
    of_trained_steps = chosen_on.trained_steps is None
    lines = []
    for family in families_of(judged, chosen_on):
        candidates = Candidates(family, chosen_on)
        for goal in GOALS:
            for limit in limits_of(judged.steps):
                rule = candidates.best(goal, limit / judged.steps)
                if rule is not None:
                    about = {"family": family, "goal": goal.name, "limit": float(limit)}
                    lines.append(about | measured.line(rule, of_trained_steps))
    for lambda_, eta in PAPERS:
        if eta <= judged.trained_count:
            about = {"family": VOTE, "goal": THE_PAPERS, "limit": None}
            lines.append(about | measured.line(VoteRule(lambda_, eta)))
    return pd.DataFrame(lines)


def families_of(*parts):
    """Return the families that can be measured on all of these RecordedVideos."""
    calibrated = all(part.evidence.calibrated is not None for part in parts)
    return FAMILIES if calibrated else (VOTE,)


class Candidates:
    """All candidates of a family, measured on the videos that a rule is chosen on.

    Args:
        family: of FAMILIES.
        videos: RecordedVideos of both kinds.
    """

    def __init__(self, family, videos):
        sequences = all_votes(videos.steps)
        if family != VOTE:
            sequences = sequences_of(videos, videos.categories, (family,))
        measured = [measure(sequence, videos) for sequence in sequences]
        self.rules = [rule for one in measured for rule in one.sequence.rules]
        self.accuracy = np.concatenate([one.accuracy for one in measured])
        self.recall = np.concatenate([one.recall for one in measured])
        self.cost = np.concatenate([one.cost for one in measured])
        self.false = np.concatenate([one.false_positives / one.normal for one in measured])
        self.horizon = np.array([rule.horizon for rule in self.rules])

    def best(self, goal, most_cost):
        """Return the best rule within the limits; None: there is none.

        Of equals it is the one that costs less, stops fewer normal videos, looks at fewer steps.

        Args:
            goal: Goal.
            most_cost: the largest mean cost, a share of the steps.
        """
        allowed = self.cost <= most_cost + 1e-9
        if goal.most_false is not None:
            allowed &= self.false <= goal.most_false + 1e-9
        places = np.flatnonzero(allowed)
        if not len(places):
            return None
        of_goal = self.accuracy if goal.most_false is None else self.recall
        keys = -of_goal.round(9), self.cost.round(9), self.false, self.horizon
        first = np.lexsort([key[places] for key in reversed(keys)])[0]
        return self.rules[places[first]]


def all_votes(steps):
    """Return every vote as a Sequence: k of the first eta steps, k and eta up to `steps`."""
    return [
        Sequence(
            f"{count} votes",
            [VoteRule(str(Fraction(count, eta)), eta) for eta in range(count, steps + 1)],
        )
        for count in range(1, steps + 1)
    ]


class _Measured:
    """Lines of the table; a rule that was chosen twice is measured once."""

    def __init__(self, videos, resamples):
        self._videos = videos
        self._resamples = resamples
        self._intervals = None
        self._known = {}

    def line(self, rule, of_trained_steps=True):
        words, stated = "", rule
        if of_trained_steps and self._videos.trained_steps:
            rule = carry(rule, self._videos.trained_steps)
            words = f" ({stated.horizon} of the trained steps)"
        # In words, two near bounds read alike.
        exact = repr((rule.family, rule.as_dict(), words))
        if exact not in self._known:
            self._known[exact] = {"rule": rule.describe() + words, **self._line(rule)}
        return self._known[exact]

    def _line(self, rule):
        report = report_of(rule, self._videos)
        if self._intervals is None:
            self._intervals = MeanIntervals(report, self._resamples)
        line = {}
        for name, (count, total) in report.rates().items():
            line[name] = count / total
            # None of 43 false positives would shrink to a point in every resample.
            ends = interval(count, total)
            if name != "false_positive_rate":
                ends = getattr(self._intervals, name)(report)
            line[f"{name}_low"], line[f"{name}_high"] = ends
        line["cost"] = report.cost()
        line["cost_low"], line["cost_high"] = self._intervals.cost(report)
        line["found_cost"] = report.found_cost()
        line["safe_looked_at"] = report.safe_looked_at()
        return line
