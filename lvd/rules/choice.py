"""Which rule decides: the one that is given, the one beside the detectors, or the paper's vote."""

import os
from pathlib import Path

from lvd.errors import InputError, shorten, typed
from lvd.rules.file import RULE, ChosenRule, load_rule
from lvd.rules.rule import Rule
from lvd.rules.vote import VoteRule

DEFAULT_LAMBDA = "0.6"
DEFAULT_ETA = 5
LONGEST_PATH = 4000


def choose(model_dir, lambda_=None, eta=None, rule=None, rule_flag="rule="):
    """Choose the rule of a guard.

    Args:
        model_dir: folder of the detectors, or a shared.pth.
        lambda_, eta: of the paper's vote, None where they are not given.
        rule: Rule, ChosenRule or path of a rule.yaml; None: not given.
        rule_flag: what messages put before `rule`, such as "--rule ".

    Returns:
        ChosenRule. Where nothing is given it is the rule.yaml beside the detectors, else the
        paper's vote with DEFAULT_LAMBDA and DEFAULT_ETA.

    Raises:
        InputError: two rules are given, or the file is not one.
    """
    if rule is not None:
        for name, value in (("lambda_", lambda_), ("eta", eta)):
            if value is not None:
                raise InputError(
                    f"{_flag(name, rule_flag)}{typed(value)}: {rule_flag}{_named(rule)} is given "
                    "too; one of the two is needed"
                )
        if isinstance(rule, Rule):
            return ChosenRule(rule, where=f"{rule_flag}{type(rule).__name__}")
        if isinstance(rule, ChosenRule):
            return rule
        if not isinstance(rule, (str, os.PathLike)) or len(str(rule)) > LONGEST_PATH:
            raise InputError(
                f"{rule_flag}{shorten(rule)}: the path of a rule.yaml, or a Rule, is needed"
            )
        return load_rule(rule, rule_flag)
    beside = rule_beside(model_dir)
    # A link to nowhere or a folder is refused: the paper's vote is not what was chosen here.
    if lambda_ is None and eta is None and os.path.lexists(beside):
        return load_rule(beside)
    lambda_ = DEFAULT_LAMBDA if lambda_ is None else lambda_
    eta = DEFAULT_ETA if eta is None else eta
    return ChosenRule(VoteRule(lambda_, eta), where=f"{_flag('eta', rule_flag)}{eta}")


def _flag(name, rule_flag):
    """Return what messages put before a number: "--eta " where `rule_flag` is a flag too."""
    return f"--{name.rstrip('_')} " if rule_flag.startswith("--") else f"{name}="


def _named(rule):
    """Return what a message calls a rule that was given."""
    if isinstance(rule, (Rule, ChosenRule)):
        return type(rule).__name__
    return typed(str(rule)) if isinstance(rule, os.PathLike) else typed(rule)


def rule_beside(model_dir):
    """Return the path of the rule.yaml beside detectors, which may not be there."""
    folder = Path(model_dir)
    return (folder.parent if folder.is_file() else folder) / RULE
