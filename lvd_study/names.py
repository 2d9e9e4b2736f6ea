"""What pages call the kinds of detectors and the rules."""

from lvd_study.study import ALL_FAMILIES, CONFIDENCE

NAMES = {"grid": "one detector per category and step", "shared": "one shared detector"}
RULES = {ALL_FAMILIES: "chosen rule", CONFIDENCE: "chosen confidence rule"}


def called(rule):
    """Return what a sentence calls a rule of a table: "the chosen rule", "the vote (0.6, 5)"."""
    return f"the {rule}" if rule in RULES.values() else f"the vote {rule}"
