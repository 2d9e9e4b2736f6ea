"""Rules that stop a video as soon as the detectors of one category are sure enough."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lvd.detectors.calibration import log_odds
from lvd.errors import InputError, shorten, typed
from lvd.rules.rule import Rule
from lvd.rules.vote import MOST_STEPS


@dataclass(frozen=True)
class ConfidenceRule(Rule):
    """Unsafe as soon as the calibrated probability of any category reaches its bound.

    Args:
        bound: the calibrated probability that makes a video unsafe, in (0, 1): one for all
            categories, or {category: bound}.
        horizon: how many steps are looked at.
        first_bound: the bound of the first step. From there to the last step of the horizon the
            log-odds of the bound go in a straight line. None: the bound is the same at all steps.
        categories: names in the order of the evidence; needed where `bound` is a mapping.
    """

    bound: float | Mapping = 0.99
    horizon: int = 50
    first_bound: float | None = None
    categories: tuple = ()

    family = "confidence"
    needs_calibration = True

    def __post_init__(self):
        check_bound("bound", self.bound)
        if self.first_bound is not None:
            check_bound("first_bound", self.first_bound)
        check_horizon(self.horizon)
        if isinstance(self.bound, Mapping) and self.categories:
            need_one_bound_each(self.bound, self.categories)

    def bounds(self, steps):
        """Return the bound of each step and category, float64 [steps, K]."""
        last = np.array([bound_of(self.bound, self.categories)])
        if self.first_bound is None:
            return np.repeat(last, steps, 0)
        share = np.arange(steps)[:, None] / max(1, self.horizon - 1)
        return _between(self.first_bound, last, np.clip(share, 0, 1))

    def numbers(self, evidence):
        """Return what is held against the bounds: calibrated probabilities [N, n, G]."""
        return evidence.calibrated

    def passed(self, evidence):
        passed = self.numbers(evidence) >= self.bounds(evidence.steps)
        passed[:, self.horizon :] = False
        return passed

    def only(self, categories, columns):
        left = tuple(categories[column] for column in columns)
        bound = self.bound
        if isinstance(bound, Mapping):
            need_one_bound_each(bound, categories)
            bound = {name: bound[name] for name in left}
        return replace(self, bound=bound, categories=left)

    def as_dict(self):
        bound = dict(self.bound) if isinstance(self.bound, Mapping) else self.bound
        settings = {"bound": bound, "horizon": self.horizon}
        if self.first_bound is not None:
            settings["first_bound"] = self.first_bound
        return settings

    def describe(self):
        bound = self.bound
        if isinstance(bound, Mapping):
            bound = ", ".join(f"{name} {value:.6g}" for name, value in bound.items())
        else:
            bound = f"{bound:.6g}"
        if self.first_bound is not None:
            bound = f"{self.first_bound:.6g} at the first step to {bound} at the last"
        return f"{self.family}: bound {bound}, horizon {self.horizon}"

    def reason(self, evidence):
        numbers = self.numbers(evidence)[0][: self.horizon]
        bounds = np.broadcast_to(self.bounds(len(numbers)), numbers.shape)
        ahead = log_odds(numbers) - log_odds(bounds)
        step, column = np.unravel_index(ahead.argmax(), ahead.shape)
        what = f"{self._name(column)} {numbers[step, column]:.4f} at step {step}"
        bound = f"{bounds[step, column]:.4f}"
        if ahead[step, column] >= 0:
            return f"{what}, {bound} makes a video unsafe"
        return f"nearest to its bound was {what}, {bound} would make a video unsafe"

    def accused(self, evidence):
        """Return the categories that reached their bound, those with the largest numbers first."""
        passed = self.passed(evidence)[0].any(0)
        largest = self.numbers(evidence)[0].max(0)
        return [int(column) for column in (-largest).argsort(kind="stable") if passed[column]]

    def _name(self, column):
        return self.categories[column] if self.categories else f"category {column + 1}"


@dataclass(frozen=True)
class LikelihoodRatioRule(ConfidenceRule):
    """Unsafe as soon as the gathered evidence for any category reaches its bound.

    The calibrated log-odds of a step hold for as many unsafe as normal videos: so they are the
    logarithm of the likelihood ratio of "unsafe" against "normal". A sequential test adds those of
    all steps up, which is right where the steps are independent. They are not: neighbouring steps
    see nearly the same x0. So earlier evidence is forgotten:

        gathered[t] = forgetting * gathered[t - 1] + log_odds[t]

    The bound is a probability, whose log-odds the gathered evidence must reach.

    Args:
        forgetting: in [0, 1]; 0 is the ConfidenceRule, 1 is Wald's sum.

    Source: Wald, Sequential Tests of Statistical Hypotheses, 1945.
    """

    forgetting: float = 0.5

    family = "likelihood_ratio"

    def __post_init__(self):
        super().__post_init__()
        number = isinstance(self.forgetting, (int, float)) and type(self.forgetting) is not bool
        if not number or not 0 <= self.forgetting <= 1:
            raise InputError(f"forgetting {typed(self.forgetting)}: from 0 to 1 is needed")

    def gathered(self, evidence):
        """Return the gathered log-odds [N, n, G]."""
        ratios = log_odds(evidence.calibrated)
        gathered = np.zeros_like(ratios)
        before = np.zeros_like(ratios[:, 0]) if evidence.steps else None
        for step in range(evidence.steps):
            before = self.forgetting * before + ratios[:, step]
            gathered[:, step] = before
        return gathered

    def numbers(self, evidence):
        from scipy.special import expit

        return expit(self.gathered(evidence))

    def as_dict(self):
        return {**super().as_dict(), "forgetting": self.forgetting}

    def describe(self):
        return f"{super().describe()}, forgetting {self.forgetting:g}"


def check_bound(key, bound):
    """InputError unless `bound` is a probability in (0, 1), or a mapping of such."""
    values = bound.values() if isinstance(bound, Mapping) else [bound]
    for value in values:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 < value < 1:
            raise InputError(f"{key} {typed(value)}: a probability between 0 and 1 is needed")
    if not values:
        raise InputError(f"{key}: a bound for each category is needed")


def need_one_bound_each(bound, categories):
    """InputError unless a mapping of bounds has one for each category, and no others."""
    for name in bound:
        if name not in categories:
            known = shorten(", ".join(categories))
            raise InputError(f"bound: unknown category {shorten(name)}; the detectors have {known}")
    for name in categories:
        if name not in bound:
            raise InputError(f"bound: category {shorten(name)} has none; one is needed")


def check_horizon(horizon):
    """InputError unless `horizon` is a number of steps."""
    if type(horizon) is not int or not 1 <= horizon <= MOST_STEPS:
        raise InputError(f"horizon {typed(horizon)}: a whole number of steps, from 1, is needed")


def bound_of(bound, categories):
    """Return the bound of each category, float64 [G]; [1] where all have the same."""
    if isinstance(bound, Mapping):
        return np.array([bound[name] for name in categories], np.float64)
    return np.array([bound], np.float64)


def _between(first, last, share):
    from scipy.special import expit, logit

    return expit(logit(first) + share * (logit(last) - logit(first)))
