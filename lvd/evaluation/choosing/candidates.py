"""Candidate rules, in sequences from the safest to the boldest.

A sequence is nested: what one of its rules stops, the next one stops as soon or sooner. So false
positives only grow along it. Which sequences there are depends on nothing but the settings, the
number of steps and the unsafe videos. Normal videos have no part in it: they test the candidates.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lvd.detectors.calibration import log_odds
from lvd.rules.confidence import ConfidenceRule, LikelihoodRatioRule
from lvd.rules.vote import VoteRule

FAMILIES = ("confidence", "vote", "likelihood_ratio")
HORIZONS = (1.0, 0.4, 0.2)  # shares of the steps
FIRST_AHEAD = 2.0  # log-odds by which first_bound lies above the bound, where it has one
OWN_SHARE = 0.9  # of a category's own unsafe videos that its bound finds, before all are moved
FORGETTING = (0.9, 0.5)
MOST_VOTES = 10
# Log-odds of the bounds, from the safest on. Sums of log-odds get larger than single ones.
LEVELS = {"confidence": np.arange(16, -4, -0.05), "likelihood_ratio": np.arange(30, -2, -0.1)}


@dataclass(frozen=True)
class Sequence:
    """Candidates of one kind.

    Attributes:
        name: what tables call it.
        rules: [J] Rules, the safest first.
    """

    name: str
    rules: list

    @property
    def family(self):
        return self.rules[0].family


def sequences_of(videos, categories, families=FAMILIES):
    """Return the sequences of candidates, those that were best elsewhere first.

    The order matters where there are too few normal videos to try all.

    Args:
        videos: RecordedVideos of which the unsafe ones alone are looked at.
        categories: names of the categories as the detectors have them, in the evidence's order.
        families: which families of rules.

    Returns:
        [Sequence].
    """
    steps = videos.steps
    by_family = {
        "confidence": lambda: _confidence(videos, categories),
        "vote": lambda: [_votes(count, steps) for count in range(1, min(MOST_VOTES, steps) + 1)],
        "likelihood_ratio": lambda: _likelihood_ratios(steps),
    }
    of_families = [by_family[family]() for family in FAMILIES if family in families]
    longest = max(len(sequences) for sequences in of_families)
    # In turns, so that each family has one before any has two.
    return [
        sequences[place]
        for place in range(longest)
        for sequences in of_families
        if place < len(sequences)
    ]


def horizons(steps):
    """Return the horizons that are tried, in numbers of steps."""
    return list(dict.fromkeys(max(1, math.ceil(share * steps)) for share in HORIZONS))


def _votes(count, steps):
    """So many votes of the first eta steps, eta growing."""
    rules = [VoteRule(str(Fraction(count, eta)), eta) for eta in range(count, steps + 1)]
    return Sequence(f"{count} of the first votes", rules)


def _confidence(videos, categories):
    """One bound for all, one that begins higher, one for each category; by horizon."""
    sequences = []
    for horizon in horizons(videos.steps):
        sequences.append(_one_bound(horizon))
        if horizon > 1:
            sequences.append(_higher_at_first(horizon))
    if len(categories) > 1 and videos.members is not None:
        sequences += [_by_category(videos, categories, one) for one in horizons(videos.steps)]
    return sequences


def _one_bound(horizon):
    rules = [ConfidenceRule(_bound(level), horizon) for level in LEVELS["confidence"]]
    return Sequence(f"one bound, horizon {horizon}", rules)


def _higher_at_first(horizon):
    rules = [
        ConfidenceRule(_bound(level), horizon, _bound(level + FIRST_AHEAD))
        for level in LEVELS["confidence"]
    ]
    return Sequence(f"higher at first, horizon {horizon}", rules)


def _by_category(videos, categories, horizon):
    apart = category_levels(videos, horizon)
    rules = [
        ConfidenceRule(
            {name: _bound(level + own) for name, own in zip(categories, apart, strict=True)},
            horizon,
            categories=tuple(categories),
        )
        for level in LEVELS["confidence"]
    ]
    return Sequence(f"bounds by category, horizon {horizon}", rules)


def category_levels(videos, horizon):
    """Return by how much each category's bound lies above their mean, in log-odds [G].

    At its own level a category finds OWN_SHARE of its own unsafe videos within the horizon.
    """
    largest = log_odds(videos.evidence.calibrated[:, :horizon]).max(1)  # [N, G]
    owns = [
        np.quantile(largest[videos.is_unsafe & own, column], 1 - OWN_SHARE)
        if (videos.is_unsafe & own).any()
        else 0.0
        for column, own in enumerate(videos.members.T)
    ]
    return np.array(owns) - np.mean(owns)


def _likelihood_ratios(steps):
    return [
        Sequence(
            f"forgetting {forgetting:g}, horizon {horizon}",
            [
                LikelihoodRatioRule(_bound(level), horizon, forgetting=forgetting)
                for level in LEVELS["likelihood_ratio"]
            ],
        )
        for horizon in horizons(steps)[:2]
        for forgetting in FORGETTING
    ]


def _bound(level):
    """The probability of log-odds, kept inside (0, 1)."""
    from scipy.special import expit

    return float(expit(np.clip(level, -36.0, 36.0)))
