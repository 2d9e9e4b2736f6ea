"""What the guard does about each category: it stops its videos, flags them, or ignores it.

The rule decides about the categories that stop, as if there were no others. Each category that is
flagged is judged alone, by the same rule. So what is done about one category changes no verdict
that another category gives.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lvd.detectors.names import named
from lvd.errors import InputError, shorten
from lvd.guard.answers import is_probability
from lvd.guard.trace import Trace
from lvd.rules.evidence import Evidence
from lvd.rules.rule import OPEN, SAFE, UNSAFE
from lvd.utils.schema import Finite, Name, Schema, checked
from lvd.voting import step_vote

STOP, FLAG, IGNORE = ACTIONS = "stop", "flag", "ignore"


class CategorySettings(Schema):
    """What a guard.yaml says of one category."""

    action: Literal["stop", "flag", "ignore"] = STOP
    bound: Finite = None


@dataclass(frozen=True)
class Policy:
    """What to do about each category. One that is not named stops its videos.

    Attributes:
        actions: {category: "stop", "flag" or "ignore"}.
        bounds: {category: its own bound}, for a rule that has bounds.
        where: what messages call it, such as the path of its file.
    """

    actions: dict = field(default_factory=dict)
    bounds: dict = field(default_factory=dict)
    where: str = "categories"

    def as_dict(self):
        """Return {category: settings} of the categories whose settings are not the usual ones."""
        settings = {
            name: {"action": action} for name, action in self.actions.items() if action != STOP
        }
        for name, bound in self.bounds.items():
            settings.setdefault(name, {"action": STOP})["bound"] = float(bound)
        return dict(sorted(settings.items()))

    def describe(self):
        """Return in words what is not the usual, or ""."""
        words = []
        for name, settings in self.as_dict().items():
            bound = f"bound {settings['bound']:.6g}" if "bound" in settings else ""
            action = settings["action"] if settings["action"] != STOP else ""
            words.append(f"{name}: {', '.join(filter(None, (action, bound)))}")
        return "; ".join(words)


def read_policy(categories, where="categories"):
    """Read a Policy.

    Args:
        categories: {category: {"action": "stop", "flag" or "ignore", "bound": probability}}; both
            keys may be left out. None: every category stops.
        where: what messages call it.

    Raises:
        InputError: it is anything else.
    """
    categories = checked(
        dict[Name, CategorySettings], {} if categories is None else categories, where
    )
    actions = {name: settings.get("action", STOP) for name, settings in categories.items()}
    bounds = {
        name: settings["bound"] for name, settings in categories.items() if "bound" in settings
    }
    for name in bounds:
        if actions[name] == IGNORE:
            raise InputError(f"{where}: bound of {shorten(name)}: changes nothing, it is ignored")
    return Policy(actions, bounds, where)


class Judge:
    """A rule and a policy for the detectors of some categories.

    Args:
        rule: lvd.rules.rule.Rule of all the categories.
        names: [G] names of the categories, in the order of the detectors.
        policy: Policy; None: every category stops.

    Raises:
        InputError: the policy names a category that there is not, gives a bound to a rule that has
            none, or ignores all categories.
    """

    def __init__(self, rule, names, policy=None):
        policy = policy or Policy()
        self.names = list(names)
        for name in policy.actions:
            if name not in self.names:
                known = shorten(", ".join(self.names))
                raise InputError(
                    f"{policy.where}: unknown category {shorten(name)}; the detectors have {known}"
                )
            if policy.actions[name] not in ACTIONS:
                raise InputError(
                    f"{policy.where}: {shorten(name)}: found {shorten(policy.actions[name])}; one "
                    f"of {', '.join(ACTIONS)} is needed"
                )
        of_action = {STOP: [], FLAG: [], IGNORE: []}
        for column, name in enumerate(self.names):
            of_action[policy.actions.get(name, STOP)].append(column)
        self._stopping = of_action[STOP]
        self._flagged = of_action[FLAG]
        self._ignored = of_action[IGNORE]
        self.counted = sorted(self._stopping + self._flagged)
        if not self.counted:
            raise InputError(
                f"{policy.where}: all categories are ignored, so nothing would be checked; one "
                "that stops or flags is needed"
            )
        try:
            rule = rule.with_bounds(policy.bounds, self.names)
        except InputError as error:
            raise InputError(f"{policy.where}: {error}") from None
        self._rule = rule.only(self.names, self._stopping) if self._stopping else None
        self._flag_rules = {column: rule.only(self.names, [column]) for column in self._flagged}

    def vote(self, says):
        """Return the vote of one step, 0 or 1; `says`: [G] of 0/1."""
        return step_vote(says[column] for column in self._stopping)

    def evidence(self, says, calibrated):
        """Return the Evidence of one video, in which ignored categories say nothing.

        Args:
            says: [n][G] of 0/1.
            calibrated: [n][G] calibrated probabilities.
        """
        shape = 1, len(says), len(self.names)
        says = np.array(says, bool).reshape(shape)
        calibrated = np.array(calibrated, np.float64).reshape(shape)
        says[..., self._ignored] = False
        calibrated[..., self._ignored] = 0.0
        return Evidence(says, calibrated)

    def answer(self, evidence):
        """Return "unsafe", "safe" or "open" of one video.

        It is "open" as long as a category that is flagged may still be found.
        """
        answer = SAFE
        if self._rule:
            (answer,) = self._rule.answers(evidence.by(self._stopping))
        if answer == SAFE and OPEN in self._flag_answers(evidence).values():
            return OPEN
        return answer

    def flags(self, evidence):
        """Return the names of the flagged categories that were found in one video."""
        answers = self._flag_answers(evidence)
        return [self.names[column] for column, answer in answers.items() if answer == UNSAFE]

    def _flag_answers(self, evidence):
        return {
            column: rule.answers(evidence.by([column]))[0]
            for column, rule in self._flag_rules.items()
        }

    def reason(self, evidence):
        """Return in words why one video is what it is."""
        if self._rule is None:
            return "no category stops videos"
        return self._rule.reason(evidence.by(self._stopping))

    def trace(self, scores, says, calibrated, thresholds):
        """Return the Trace of one video (lvd.guard.trace).

        Args:
            scores, says, calibrated: [n][G] of its n steps so far; scores may have one step more,
                at which a detector failed.
            thresholds: [S][G] of the raw scores, for all the steps that the rule looks at.
        """
        rule, columns = self._rule, self._stopping
        if rule is None or not hasattr(rule, "bounds"):
            return Trace.of_scores(self.names, columns, scores[: len(says)], thresholds)
        numbers = rule.numbers(self.evidence(says, calibrated).by(columns))[0]
        return Trace.of_rule([self.names[column] for column in columns], numbers, rule)

    def accused(self, evidence):
        """Return the names of the categories that make one video unsafe, the surest first."""
        if self._rule is None:
            return []
        accused = self._rule.accused(evidence.by(self._stopping))
        return [self.names[self._stopping[place]] for place in accused]

    def named(self, probabilities):
        """Return the categories that a network of names sees in a video that was found unsafe.

        Args:
            probabilities: [G], one for each category.

        Returns:
            Names of the categories that stop and are named (lvd.detectors.names.named), the most
            probable first.

        Raises:
            ValueError: a value is no probability, or there are more or fewer than categories.
        """
        if len(probabilities) != len(self.names) or not all(map(is_probability, probabilities)):
            raise ValueError("a probability for each category is needed")
        columns = sorted(self._stopping, key=lambda column: -probabilities[column])
        (chosen,) = named([[probabilities[column] for column in columns]])
        return [self.names[column] for column, one in zip(columns, chosen, strict=True) if one]
