"""The tables of the study, one module each.

A module has TITLE, plan(study) → what it needs (any object with an attribute `tasks`), and
section(study, plan) → Section, called when all tasks of the plan are done.
"""

from importlib import import_module

# letter → module
TABLES = {
    "a": "accuracy",
    "b": "by_step",
    "c": "cost",
    "d": "defences",
    "e": "robustness",
    "f": "transfer",
    "g": "label_quality",
}


def table_module(letter):
    """Import the module of a letter."""
    return import_module(f"lvd_study.tables.{TABLES[letter]}")
