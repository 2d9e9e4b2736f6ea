"""guard.yaml: detectors, a rule, and what to do about each category.

detectors: detectors            # a folder or a shared.pth; paths count from this file's folder
rule: rule.yaml                 # or {family: confidence, bound: 0.99, horizon: 30}; without it
                                # the rule.yaml beside the detectors, else the paper's vote
operating_point: validation     # without it the rule's
categories:                     # one that is not named stops its videos
  blood: {action: flag}
  fire: {action: stop, bound: 0.95}
  smoke: {action: ignore}
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lvd.detectors.calibration import check_operating_point
from lvd.errors import InputError, as_key, shorten
from lvd.guard.policy import CategorySettings, Policy, read_policy
from lvd.rules.file import FORMAT, ChosenRule, RuleFile, chosen_of, load_rule
from lvd.utils.files import load_yaml
from lvd.utils.schema import Finite, Name, OneLine, Schema, checked, has_controls

SUFFIXES = (".yaml", ".yml")
PathText = Annotated[OneLine, Field(min_length=1, max_length=4000)]


class InlineRule(RuleFile):
    """A rule within a guard.yaml."""

    format: Literal["lvd rule 1"] = FORMAT


class GuardFile(Schema):
    """The content of a guard.yaml."""

    detectors: PathText
    rule: Any = None
    operating_point: Name | Finite = None
    categories: dict[Name, CategorySettings] = None


@dataclass(frozen=True)
class GuardSettings:
    """What a guard.yaml says.

    Attributes:
        detectors: Path of the folder or shared.pth.
        rule: ChosenRule, or None: see lvd.rules.choice.
        operating_point: of the detectors, or None: the rule's.
        policy: Policy.
    """

    detectors: Path
    rule: ChosenRule | None
    operating_point: str | float | None
    policy: Policy


def is_guard_file(path):
    """Whether a path names a guard.yaml, and no detectors."""
    return Path(path).suffix.lower() in SUFFIXES


def load_guard_file(path, asked_by=""):
    """Read a guard.yaml.

    Args:
        path: of the file.
        asked_by: what messages put before it: the flag or argument that named it.

    Returns:
        GuardSettings.

    Raises:
        InputError: it is missing or holds anything else.
    """
    where = f"{asked_by}{path}"
    try:
        content = load_yaml(path)
    except InputError as error:
        raise InputError(f"{asked_by}{error}") from None
    checked(GuardFile, content, where)
    folder = Path(path).parent
    operating_point = content.get("operating_point")
    if operating_point is not None:
        try:
            check_operating_point(operating_point)
        except InputError as error:
            raise InputError(f"{where}: {as_key(error)}") from None
    return GuardSettings(
        detectors=folder / content["detectors"],
        rule=_rule(content.get("rule"), folder, where),
        operating_point=operating_point,
        policy=read_policy(content.get("categories"), f"{where}: categories"),
    )


def _rule(rule, folder, where):
    """Return the ChosenRule of the key `rule`."""
    if rule is None:
        return None
    if isinstance(rule, dict):
        where = f"{where}: rule"
        return chosen_of(checked(InlineRule, rule, where), where)
    is_path = isinstance(rule, str) and rule.strip() and len(rule) <= 4000
    if not is_path or has_controls(rule):
        raise InputError(
            f"{where}: rule: found {shorten(rule)}; the path of a rule.yaml, or a mapping, is "
            "needed"
        )
    return load_rule(folder / rule, f"{where}: rule ")
