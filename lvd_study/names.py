"""What pages call the kinds of detectors and the rules."""

from lvd_study.study import ALL_FAMILIES, CONFIDENCE

NAMES = {"grid": "one detector per category and step", "shared": "one shared detector"}
RULES = {ALL_FAMILIES: "chosen rule", CONFIDENCE: "chosen confidence rule"}
