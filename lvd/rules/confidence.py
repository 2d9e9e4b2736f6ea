"""Rules that stop a video as soon as the detectors of one category are sure enough."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lvd.errors import InputError, shorten, typed
from lvd.rules.rule import Rule
from lvd.rules.vote import MOST_STEPS

LEAST = 2.0**-53  # bounds and probabilities are told from 0 and 1 down to this distance


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
        if isinstance(self.first_bound, Mapping):
            raise InputError("first_bound: one probability for all categories is needed")
        if self.first_bound is not None:
            check_bound("first_bound", self.first_bound)
        check_horizon(self.horizon)
        if isinstance(self.bound, Mapping):
            object.__setattr__(self, "bound", dict(self.bound))  # a copy that nobody else changes
            if self.categories:
                need_one_bound_each(self.bound, self.categories)

    def bounds(self, steps):
        """Return the bound of each step and category, float64 [steps, K]; K is 1 or G."""
        last = bound_of(self.bound, self.categories)[None]
        if self.first_bound is None:
            return np.repeat(last, steps, 0)
        share = np.arange(steps)[:, None] / max(1, self.horizon - 1)
        return _between(self.first_bound, last, np.clip(share, 0, 1))

    def ahead(self, evidence):
        """Return by how much the log-odds are over those of their bounds, float64 [N, n, G]."""
        return odds_of(evidence.calibrated) - odds_of(self.bounds(evidence.steps))

    def numbers(self, evidence):
        """Return what is held against the bounds: calibrated probabilities [N, n, G]."""
        return evidence.calibrated

    def passed(self, evidence):
        need_calibrated(evidence)
        passed = self._reached(evidence)
        passed[:, self.horizon :] = False
        return passed

    def _reached(self, evidence):
        return evidence.calibrated >= self.bounds(evidence.steps)

    def only(self, categories, columns):
        left = tuple(categories[column] for column in columns)
        bound = self.bound
        if isinstance(bound, Mapping):
            need_one_bound_each(bound, categories)
            bound = {name: bound[name] for name in left}
        return replace(self, bound=bound, categories=left)

    def with_bounds(self, bounds, categories):
        if not bounds:
            return self
        of_all = self.bound
        if not isinstance(of_all, Mapping):
            of_all = dict.fromkeys(categories, self.bound)
        return replace(self, bound={**of_all, **bounds}, categories=tuple(categories))

    def as_dict(self):
        bound = self.bound
        if isinstance(bound, Mapping):
            bound = {name: float(value) for name, value in bound.items()}
        else:
            bound = float(bound)
        settings = {"bound": bound, "horizon": self.horizon}
        if self.first_bound is not None:
            settings["first_bound"] = float(self.first_bound)
        return settings

    def describe(self):
        bound = self.bound
        if isinstance(bound, Mapping):
            bound = ", ".join(f"{name} {_digits(value)}" for name, value in bound.items())
        else:
            bound = _digits(bound)
        if self.first_bound is not None:
            bound = f"{_digits(self.first_bound)} at the first step to {bound} at the last"
        return f"{self.family}: bound {bound}, horizon {self.horizon}"

    def over(self, steps):
        return replace(self, horizon=steps)

    def span(self):
        return f"a rule with horizon {self.horizon}"

    def reason(self, evidence):
        evidence = evidence.first(self.horizon)
        ahead, passed = self.ahead(evidence)[0], self.passed(evidence)[0]
        if not ahead.size:
            return "no step is over"
        is_unsafe = passed.any()
        if is_unsafe:
            step = int(passed.any(1).argmax())  # the first one
            column = np.where(passed[step], ahead[step], -np.inf).argmax()
        else:
            step, column = np.unravel_index(ahead.argmax(), ahead.shape)
        number = self.numbers(evidence)[0, step, column]
        bound = np.broadcast_to(self.bounds(evidence.steps), ahead.shape)[step, column]
        what = f"{self._name(column)} {_digits(number)} at step {step}"
        if is_unsafe:
            return f"{what}, {_digits(bound)} makes a video unsafe"
        return f"nearest to its bound was {what}, {_digits(bound)} would make a video unsafe"

    def accused(self, evidence):
        """Return the categories that reached their bound, those farthest beyond it first."""
        passed = self.passed(evidence)[0].any(0)
        if not passed.any():
            return []
        farthest = self.ahead(evidence)[0].max(0)
        return [int(column) for column in (-farthest).argsort(kind="stable") if passed[column]]

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
        if not _is_number(self.forgetting) or not 0 <= self.forgetting <= 1:
            raise InputError(f"forgetting {typed(self.forgetting)}: from 0 to 1 is needed")

    def gathered(self, evidence):
        """Return the gathered log-odds [N, n, G]."""
        ratios = odds_of(evidence.calibrated)
        gathered = np.zeros_like(ratios)
        before = np.zeros_like(ratios[:, 0]) if evidence.steps else None
        for step in range(evidence.steps):
            before = self.forgetting * before + ratios[:, step]
            gathered[:, step] = before
        return gathered

    def ahead(self, evidence):
        return self.gathered(evidence) - odds_of(self.bounds(evidence.steps))

    def numbers(self, evidence):
        """Return the probabilities that the gathered log-odds are of, [N, n, G]."""
        from scipy.special import expit

        return expit(self.gathered(evidence))

    def _reached(self, evidence):
        return self.ahead(evidence) >= 0

    def as_dict(self):
        return {**super().as_dict(), "forgetting": float(self.forgetting)}

    def describe(self):
        return f"{super().describe()}, forgetting {self.forgetting:g}"


def check_bound(key, bound):
    """InputError unless `bound` is a probability in (0, 1), or a mapping of such."""
    is_mapping = isinstance(bound, Mapping)
    if is_mapping and not bound:
        raise InputError(f"{key}: a bound for each category is needed")
    for name, value in bound.items() if is_mapping else [(None, bound)]:
        if not _is_number(value) or not LEAST <= value < 1:
            of_category = f" of {shorten(name)}" if is_mapping else ""
            raise InputError(
                f"{key}{of_category} {typed(value)}: a probability between 0 and 1 is needed"
            )


def need_calibrated(evidence):
    """InputError unless the evidence holds calibrated probabilities."""
    if evidence.calibrated is None:
        raise InputError(
            "the rule reads calibrated probabilities, and these detectors are not calibrated; "
            "train them again, or use a vote"
        )


def odds_of(probabilities):
    """Return log(p / (1 - p)) of float64 probabilities p, kept finite at 0 and 1."""
    from scipy.special import logit

    return logit(np.clip(probabilities, LEAST, 1 - LEAST))


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
    if not isinstance(bound, Mapping):
        return np.array([bound], np.float64)
    if not categories:
        raise InputError("bound: one for each category, so categories= is needed")
    return np.array([bound[name] for name in categories], np.float64)


def _between(first, last, share):
    """Go in a straight line of log-odds from `first` (share 0) to `last` (share 1), both exact."""
    from scipy.special import expit, logit

    line = expit(logit(first) + share * (logit(last) - logit(first)))
    return np.where(share == 0, first, np.where(share == 1, last, line))


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _digits(probability):
    """Write a probability so that its distance from 1 can be read."""
    digits = 4
    while digits < 16 and probability < 1 and 1 - probability < 9.5 * 10.0**-digits:
        digits += 1
    return f"{probability:.{digits}g}"
