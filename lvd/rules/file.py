"""rule.yaml: a rule, and what it was chosen for.

    format: lvd rule 1
    family: confidence
    bound: 0.9912
    horizon: 30
    detectors: {kind: shared, sha256: ..., calibration_sha256: ..., categories: [...], steps: 50}
    chosen: {...}               # by choose_rule.py: on which videos, within which limits

A rule holds for the detectors that it was chosen for: another bank's probabilities mean something
else. The paper's vote may be written by hand, without `detectors`.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lvd.detectors.calibration import check_operating_point
from lvd.errors import InputError, as_key
from lvd.rules.confidence import ConfidenceRule, LikelihoodRatioRule
from lvd.rules.rule import Rule
from lvd.rules.vote import VoteRule
from lvd.utils.changes import other_detectors_words
from lvd.utils.files import load_yaml, save_yaml
from lvd.utils.schema import Finite, Name, OneLine, Positive, Schema, checked
from lvd.voting import MOST_DIGITS

FORMAT = "lvd rule 1"
RULE = "rule.yaml"  # beside detectors: the rule that was chosen for them
FAMILIES = {kind.family: kind for kind in (VoteRule, ConfidenceRule, LikelihoodRatioRule)}


Lambda = Annotated[OneLine, Field(min_length=1, max_length=MOST_DIGITS)]


class DetectorsOfRule(Schema):
    """Which detectors a rule was chosen for."""

    kind: Literal["grid", "shared"]
    sha256: Name
    calibration_sha256: Name
    categories: Annotated[list[Name], Field(min_length=1, max_length=10_000)]
    steps: Positive


class RuleFile(Schema):
    """The content of a rule.yaml."""

    format: Literal["lvd rule 1"]
    family: Literal["vote", "confidence", "likelihood_ratio"]
    lambda_: Annotated[Lambda | Finite | int, Field(alias="lambda")] = None
    eta: int = None
    bound: Finite | dict[Name, Finite] = None
    horizon: int = None
    first_bound: Finite = None
    forgetting: Finite | int = None
    operating_point: Name | Finite = None
    detectors: DetectorsOfRule | None = None
    chosen: dict | None = None
    versions: dict = None


@dataclass(frozen=True)
class ChosenRule:
    """A rule with its provenance.

    Attributes:
        rule: the Rule.
        detectors: what `identity_of` says of the bank it was chosen for; None: of any.
        chosen: how it was chosen, as choose_rule.py notes it.
        operating_point: at which score a detector says unsafe.
        where: what messages call it, such as the path of its file.
    """

    rule: Rule
    detectors: dict | None = None
    chosen: dict = field(default_factory=dict)
    operating_point: str | float = "validation"
    where: str = "rule"

    def bound_to(self, bank):
        """Return the rule with the categories of a bank.

        Args:
            bank: lvd.detectors.bank.Bank.

        Returns:
            ChosenRule.

        Raises:
            InputError: the rule was chosen for another bank.
        """
        names = [bank.categories[group] for group in bank.groups]
        if self.rule.needs_calibration and not bank.all_calibrated:
            raise InputError(
                f"{self.where}: reads calibrated probabilities, and not all of the detectors are "
                "calibrated; train them again, or use a vote"
            )
        if self.detectors and (found := other_detectors(self.detectors, identity_of(bank))):
            raise InputError(
                f"{self.where}: was chosen for other detectors ({other_detectors_words(*found)}); "
                "choose a rule for these with choose_rule.py"
            )
        try:
            rule = self.rule.only(names, range(len(names)))
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from None
        return replace(self, rule=rule)


def identity_of(bank):
    """Return what a rule notes of the detectors that it was chosen for."""
    calibrations = {
        f"{group}/{step}": [member.calibration.a, member.calibration.b]
        for (group, step), member in sorted(bank.members.items())
    }
    digest = hashlib.sha256(json.dumps(calibrations, sort_keys=True).encode()).hexdigest()
    return {
        "kind": bank.about["kind"],
        "sha256": bank.sha256(),
        "calibration_sha256": digest,
        "categories": [bank.categories[group] for group in bank.groups],
        "steps": len(bank.steps),
    }


def other_detectors(one, other):
    """Find what two descriptions of detectors say differently.

    Args:
        one, other: of `identity_of`. A key that one of them lacks is not known.

    Returns:
        (key, value of one, value of the other) of the first that differs; None: all are the same.
    """
    for key, value in one.items():
        if key in other and other[key] != value:
            return key, value, other[key]
    return None


def load_rule(path, asked_by=""):
    """Read a rule.yaml.

    Args:
        path: of the file.
        asked_by: what messages put before it: the flag or argument that named it.

    Returns:
        ChosenRule.

    Raises:
        InputError: anything else, or a setting that the family does not have.
    """
    where = f"{asked_by}{path}"
    content = checked(RuleFile, _yaml_of(path, asked_by), where)
    chosen = chosen_of(content, where)
    if chosen.rule.needs_calibration and not chosen.detectors:
        raise InputError(
            f"{where}: key 'detectors' is missing: it says for which detectors the rule was "
            "chosen; choose_rule.py writes it"
        )
    return chosen


def _yaml_of(path, asked_by):
    try:
        return load_yaml(Path(path))
    except InputError as error:
        raise InputError(f"{asked_by}{error}") from None


def chosen_of(content, where):
    """Make the ChosenRule of a checked RuleFile.

    Args:
        content: of the file.
        where: what messages call it.

    Raises:
        InputError: a setting that the family does not have, or one that is out of range.
    """
    rule = rule_of(content, where)
    operating_point = content.get("operating_point", "validation")
    try:
        check_operating_point(operating_point)
    except InputError as error:
        raise InputError(f"{where}: {as_key(error)}") from None
    return ChosenRule(
        rule=rule,
        detectors=content.get("detectors"),
        chosen=content.get("chosen") or {},
        operating_point=operating_point,
        where=where,
    )


def rule_of(content, where):
    """Make the Rule of a checked mapping.

    Args:
        content: {"family": ..., and its settings}.
        where: what messages call it.
    """
    family = FAMILIES[content["family"]]
    needed = NEEDED[family.family]
    known = (*needed, *OPTIONAL[family.family])
    settings = {key: content[key] for key in SETTINGS if key in content}
    for key in settings:
        if key not in known:
            raise InputError(f"{where}: {key}: no setting of family {family.family}")
    for key in needed:
        if key not in settings:
            raise InputError(f"{where}: key '{key}' is missing, family {family.family} needs it")
    if "lambda" in settings:
        settings["lambda_"] = settings.pop("lambda")
    try:
        return family(**settings)
    except InputError as error:
        raise InputError(f"{where}: {as_key(error)}") from None


SETTINGS = ("lambda", "eta", "bound", "horizon", "first_bound", "forgetting")
NEEDED = {
    "vote": ("lambda", "eta"),
    "confidence": ("bound", "horizon"),
    "likelihood_ratio": ("bound", "horizon", "forgetting"),
}
OPTIONAL = {"vote": (), "confidence": ("first_bound",), "likelihood_ratio": ("first_bound",)}


def save_rule(chosen, path, versions=None):
    """Write a ChosenRule as rule.yaml."""
    content = {
        "format": FORMAT,
        "family": chosen.rule.family,
        **chosen.rule.as_dict(),
        "operating_point": chosen.operating_point,
        "detectors": chosen.detectors,
        "chosen": chosen.chosen or None,
        "versions": versions,
    }
    save_yaml({key: value for key, value in content.items() if value is not None}, path)
