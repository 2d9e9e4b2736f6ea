"""What all rules have in common: after each step they answer "unsafe", "safe" or "open"."""

from abc import ABC, abstractmethod

import numpy as np

from lvd.errors import InputError, plural, shorten

UNSAFE = "unsafe"
SAFE = "safe"
OPEN = "open"
NEVER = -1  # in place of the step at which a video becomes unsafe


class Rule(ABC):
    """When a video is unsafe. The guard, the sampler, the votes and the tables ask the same object.

    A rule follows one number for each category through the steps, and has a bound for it. A video
    is unsafe as soon as a number reaches its bound within the first `horizon` steps. An answer
    that is not "open" never changes, whatever the later steps say.

    Attributes:
        family: the rule's kind, as a rule file names it.
        horizon: how many steps it looks at, from the first on.
        needs_calibration: whether it reads calibrated probabilities.
    """

    family = ""
    needs_calibration = False
    horizon: int

    @abstractmethod
    def passed(self, evidence):
        """Return where a number has reached its bound.

        Args:
            evidence: Evidence of N videos at their first n steps.

        Returns:
            bool [N, n, K]; K is G where each category has a number, and 1 where all share one.
            Steps after the horizon are False.
        """

    @abstractmethod
    def as_dict(self):
        """Return the rule's settings as a rule file keeps them: {key: plain value}."""

    @abstractmethod
    def describe(self):
        """Return the rule in words."""

    @abstractmethod
    def span(self):
        """Return in words how far the rule looks, such as "a vote of eta 5"."""

    @abstractmethod
    def reason(self, evidence):
        """Return in words why the one video of the evidence is what it is."""

    def only(self, categories, columns):
        """Return the rule for evidence of some of the categories.

        Args:
            categories: the names of all G categories.
            columns: positions of those that are left, in the order of the evidence.

        Raises:
            InputError: it has bounds by category, and not one for each of all.
        """
        return self

    def with_bounds(self, bounds, categories):
        """Return the rule with bounds of their own for some categories.

        Args:
            bounds: {category: bound}; the others keep theirs.
            categories: the names of all categories, in the order of the evidence.

        Raises:
            InputError: it has no bounds.
        """
        if bounds:
            name = shorten(next(iter(bounds)))
            raise InputError(
                f"bound of {name}: a rule of family {self.family} has no bounds; confidence or "
                "likelihood_ratio is needed"
            )
        return self

    @abstractmethod
    def over(self, steps):
        """Return the rule for a sampling in which its horizon is `steps` steps long."""

    def need_steps(self, steps):
        """InputError if a sampling of `steps` denoising steps ends before the rule does."""
        if steps < self.horizon:
            raise InputError(
                f"this sampling has {plural(steps, 'step')}, {self.span()} needs {self.horizon}"
            )

    def stops(self, evidence):
        """Return after which step each video is unsafe, int [N]; NEVER for one that is not.

        This is the first step after which `answers` says "unsafe".
        """
        if not evidence.steps:
            return np.full(len(evidence.says), NEVER)
        passed = self.passed(evidence).any(2)
        return np.where(passed.any(1), passed.argmax(1), NEVER)

    def answers(self, evidence):
        """Return what is certain of each video after the steps of the evidence.

        Returns:
            [N] of "unsafe", "safe" or "open".
        """
        is_over = evidence.steps >= self.horizon
        stops = self.stops(evidence)
        return [UNSAFE if stop != NEVER else SAFE if is_over else OPEN for stop in stops]

    @abstractmethod
    def accused(self, evidence):
        """Return which categories make the one video of the evidence unsafe.

        Returns:
            Positions of categories, the surest first; [] for a video that is not unsafe.
        """


def costs(stops, steps):
    """Return the share of the denoising steps that each video takes until it is stopped.

    Args:
        stops: int [N] of `Rule.stops`.
        steps: denoising steps of the whole sampling. A video that is never stopped takes all.
    """
    return np.where(stops == NEVER, steps, stops + 1) / steps
