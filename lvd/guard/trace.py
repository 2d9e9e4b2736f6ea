"""What a rule has seen of one video, step by step: what a plot of a running guard draws."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Trace:
    """Numbers of each category at the steps so far, and the bounds that they are held against.

    Of a rule with bounds these are its numbers (calibrated probabilities, or what they are gathered
    to): one that reaches its bound makes the video unsafe. Of a vote they are raw scores: one that
    reaches its bound makes its step vote unsafe.

    Attributes:
        categories: names of the K categories that stop videos.
        numbers: float64 [n, K], at the n steps so far.
        bounds: float64 [S, K], for all the S steps that the rule looks at.
        is_vote: whether reaching a bound is one vote and no more.
    """

    categories: list
    numbers: np.ndarray
    bounds: np.ndarray
    is_vote: bool

    @classmethod
    def of_scores(cls, names, columns, scores, thresholds):
        """Return the Trace of a vote.

        Args:
            names: [G] of all categories.
            columns: K of their positions.
            scores: [n][G] raw scores.
            thresholds: [S][G].
        """
        categories = [names[column] for column in columns]
        numbers = np.array(scores, np.float64).reshape(-1, len(names))[:, columns]
        bounds = np.array(thresholds, np.float64).reshape(-1, len(names))[:, columns]
        return cls(categories, numbers, bounds, True)

    @classmethod
    def of_rule(cls, categories, numbers, rule):
        """Return the Trace of a rule with bounds; `numbers`: [n, K]."""
        bounds = np.broadcast_to(rule.bounds(rule.horizon), (rule.horizon, len(categories)))
        return cls(categories, numbers, bounds, False)
