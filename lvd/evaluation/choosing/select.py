"""The best candidate whose false positive rate is certified.

Learn then Test: each sequence is tested from its safest candidate on, with exact binomial tests,
and up to the first that cannot be certified. Within one sequence this costs nothing, since its
order was fixed before. With m sequences each one is tested with delta / m, so that all certified
rules together keep the promise with confidence 1 - delta. Any of them may be taken, by whatever
number: also by its accuracy on the same videos.

Source: Angelopoulos et al., Learn then Test, arXiv 2110.01052.
"""

from dataclasses import dataclass

import numpy as np

from lvd.evaluation.choosing.bounds import affordable, most_false_positives
from lvd.evaluation.choosing.stops import Measured


@dataclass(frozen=True)
class Limits:
    """What a rule must keep.

    Attributes:
        max_false_positive_rate: in (0, 1).
        max_cost: mean share of the steps that an unsafe video may take, in (0, 1].
        confidence: of the promise about the false positive rate, in (0, 1).
        best: "accuracy" or "recall": of the rules within the limits, the best by this is chosen.
    """

    max_false_positive_rate: float = 0.05
    max_cost: float = 0.0625
    confidence: float = 0.95
    best: str = "accuracy"

    @property
    def delta(self):
        """How often the promise may be broken."""
        return round(1 - self.confidence, 12)


@dataclass(frozen=True)
class Candidate:
    """One candidate of a sequence.

    Attributes:
        measured: Measured of its sequence.
        place: its position there.
    """

    measured: Measured
    place: int

    @property
    def rule(self):
        return self.measured.sequence.rules[self.place]

    @property
    def family(self):
        return self.rule.family

    def __getattr__(self, name):
        """Its recall, cost, cost_found, false_positives or accuracy."""
        if name not in ("recall", "cost", "cost_found", "false_positives", "accuracy"):
            raise AttributeError(name)
        return getattr(self.measured, name)[self.place].item()


@dataclass(frozen=True)
class Choice:
    """What came of a search.

    Attributes:
        chosen: the best Candidate within the limits; None where there is none.
        by_family: {family: its best Candidate}, those that have one.
        tested: [Measured] of the sequences that were tested.
        certified: [[J] bool] of the same.
        left_out: [Measured] of those for which there are too few normal videos.
        allowed: how many false positives a certified rule may have; -1: nothing can be certified.
        delta: of each sequence's tests.
    """

    chosen: Candidate | None
    by_family: dict
    tested: list
    certified: list
    left_out: list
    allowed: int
    delta: float


def select(measured, limits):
    """Choose the best certified rule within the limits.

    Args:
        measured: [Measured], the sequences to be tried first in front.
        limits: Limits.

    Returns:
        Choice.
    """
    # What an unsafe video costs does not look at normal ones: sequences may go by it freely.
    cheap = [one for one in measured if (one.cost <= limits.max_cost).any()]
    if not cheap:
        return Choice(None, {}, [], [], [], -1, limits.delta)
    rate, normal = limits.max_false_positive_rate, cheap[0].normal
    count = affordable(len(cheap), normal, rate, limits.delta)
    tested = cheap[:count]
    delta = limits.delta / max(1, count)
    allowed = most_false_positives(normal, rate, delta)
    certified = [certified_of(one.false_positives, allowed) for one in tested]
    by_family = {}
    for one, passed in zip(tested, certified, strict=True):
        best = _best(one, passed & (one.cost <= limits.max_cost), limits.best)
        kept = by_family.get(one.sequence.family)
        if best and (kept is None or rank(best, limits.best) > rank(kept, limits.best)):
            by_family[best.family] = best
    chosen = max(by_family.values(), key=lambda one: rank(one, limits.best), default=None)
    return Choice(chosen, by_family, tested, certified, cheap[count:], allowed, delta)


def certified_of(false_positives, allowed):
    """Return which candidates are certified, bool [J]: those before the first that fails.

    Args:
        false_positives: int [J], the safest first.
        allowed: how many a certified rule may have.
    """
    return np.logical_and.accumulate(np.asarray(false_positives) <= allowed)


def rank(candidate, best):
    """Return what the best candidate has the largest of: the goal, then cost and safety."""
    goal = round(getattr(candidate, best), 12)
    return goal, -round(candidate.cost, 12), -candidate.false_positives


def _best(measured, may, best):
    places = np.flatnonzero(may)
    if not len(places):
        return None
    goal = getattr(measured, best)[places].round(12)
    keys = (measured.false_positives[places], measured.cost[places].round(12), -goal)
    return Candidate(measured, int(places[np.lexsort(keys)[0]]))
