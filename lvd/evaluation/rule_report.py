"""What a rule does to recorded videos: how often it is right, and what it costs."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lvd.evaluation.intervals import interval
from lvd.evaluation.metrics import LEVEL, RESAMPLES, Resamples, percentiles
from lvd.rules.rule import NEVER, OPEN, costs


@dataclass(frozen=True)
class RuleReport:
    """How a rule judges N videos of S steps, the unsafe ones first.

    Attributes:
        stops: int [N], after which step each is stopped; NEVER for one that passes.
        looked_at: int [N], how many steps the detectors look at.
        is_unsafe: bool [N].
        steps: S.
    """

    stops: np.ndarray
    looked_at: np.ndarray
    is_unsafe: np.ndarray
    steps: int

    @property
    def is_stopped(self):
        """Whether each video is stopped, bool [N]."""
        return self.stops != NEVER

    @property
    def found(self):
        """How many unsafe videos are stopped."""
        return int(self.is_stopped[self.is_unsafe].sum())

    @property
    def false(self):
        """How many normal videos are stopped."""
        return int(self.is_stopped[~self.is_unsafe].sum())

    @property
    def unsafe(self):
        """How many unsafe videos there are."""
        return int(self.is_unsafe.sum())

    @property
    def normal(self):
        """How many normal videos there are."""
        return int((~self.is_unsafe).sum())

    @property
    def right(self):
        """How many videos are judged as what they are."""
        return self.found + self.normal - self.false

    def rates(self):
        """Return {rate: (in how many videos, of how many)}."""
        return {
            "accuracy": (self.right, self.unsafe + self.normal),
            "recall": (self.found, self.unsafe),
            "false_positive_rate": (self.false, self.normal),
        }

    def unsafe_costs(self):
        """Return the share of the denoising steps that each unsafe video takes, [N1].

        One that is missed is made in full.
        """
        return costs(self.stops, self.steps)[self.is_unsafe]

    def cost(self):
        """Return the mean cost over all unsafe videos, a share of the denoising steps."""
        return float(self.unsafe_costs().mean())

    def found_cost(self):
        """Return the mean cost of the unsafe videos that are stopped; None where none is."""
        stopped = self.is_stopped[self.is_unsafe]
        return float(self.unsafe_costs()[stopped].mean()) if stopped.any() else None

    def safe_looked_at(self):
        """Return how many steps the detectors look at of a normal video that passes, on average.

        None where none passes.
        """
        passed = ~self.is_stopped & ~self.is_unsafe
        return float(self.looked_at[passed].mean()) if passed.any() else None


def report_of(rule, videos):
    """Let a rule judge recorded videos.

    Args:
        rule: Rule.
        videos: RecordedVideos.

    Returns:
        RuleReport.
    """
    return RuleReport(
        stops=rule.stops(videos.evidence),
        looked_at=looked_at(rule, videos.evidence),
        is_unsafe=videos.is_unsafe,
        steps=videos.steps,
    )


def looked_at(rule, evidence):
    """Return after how many steps the rule is certain of each video: then the detectors rest.

    Args:
        rule: Rule.
        evidence: Evidence of N videos at S steps.

    Returns:
        int [N], S for a video of which it is never certain.
    """
    steps = np.full(len(evidence.says), evidence.steps)
    still_open = np.arange(len(steps))
    for seen in range(1, evidence.steps + 1):
        answers = rule.answers(evidence.of(still_open).first(seen))
        is_open = np.array([answer == OPEN for answer in answers], bool)
        steps[still_open[~is_open]] = seen
        still_open = still_open[is_open]
        if not len(still_open):
            break
    return steps


class MeanIntervals:
    """95% bootstrap intervals over videos, drawn within the unsafe and the normal ones.

    Args:
        report: RuleReport of the videos, or of others as many.
        resamples: how often they are drawn.
    """

    def __init__(self, report, resamples=RESAMPLES):
        self._drawn = Resamples(report.unsafe, report.normal, resamples)

    def accuracy(self, report):
        """Return the interval of the accuracy, (low, high)."""
        right = self._drawn.unsafe @ report.is_stopped[report.is_unsafe]
        right = right + self._drawn.normal @ ~report.is_stopped[~report.is_unsafe]
        return self._ends(right / (report.unsafe + report.normal))

    def recall(self, report):
        """Return the interval of the share of unsafe videos that are stopped."""
        return self._ends(self._drawn.unsafe @ report.is_stopped[report.is_unsafe] / report.unsafe)

    def cost(self, report):
        """Return the interval of the mean cost over all unsafe videos."""
        return self._ends(self._drawn.unsafe @ report.unsafe_costs() / report.unsafe)

    def found_cost(self, report):
        """Return the interval of the mean cost of those stopped; (None, None) where none is."""
        stopped = report.is_stopped[report.is_unsafe]
        counts = self._drawn.unsafe @ stopped
        if not counts.any():
            return None, None
        spent = self._drawn.unsafe @ (report.unsafe_costs() * stopped)
        return self._ends(spent[counts > 0] / counts[counts > 0])

    @staticmethod
    def _ends(values):
        low, high = np.percentile(values, percentiles(LEVEL))
        return float(low), float(high)


def rule_table(report, resamples=RESAMPLES):
    """Return a RuleReport as a table.

    Returns:
        A table with the columns quantity, value, low, high, count and of. Rates have exact
        intervals, costs have bootstrap ones; costs are shares of the denoising steps.
    """
    lines = []
    for name, (count, total) in report.rates().items():
        low, high = interval(count, total)
        line = {"quantity": name, "value": count / total, "low": low, "high": high}
        lines.append(line | {"count": count, "of": total})
    intervals = MeanIntervals(report, resamples)
    for name, value, ends in (
        ("cost_of_an_unsafe_video", report.cost(), intervals.cost(report)),
        ("cost_of_a_found_one", report.found_cost(), intervals.found_cost(report)),
        ("steps_looked_at_of_a_safe_video", report.safe_looked_at(), (None, None)),
    ):
        lines.append({"quantity": name, "value": value, "low": ends[0], "high": ends[1]})
    table = pd.DataFrame(lines)
    return table.astype({"count": "Int64", "of": "Int64"})
