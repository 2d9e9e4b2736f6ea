"""What choose_rule.py writes: rule.yaml, and choose_rule.csv with all candidates beside it."""

from lvd.evaluation.choosing.bounds import upper_bound
from lvd.rules.file import ChosenRule, save_rule
from lvd.utils.config import versions
from lvd.utils.files import save_csv

TABLE = "choose_rule.csv"


def save_choice(choice, limits, source, settings, path):
    """Write the chosen rule and the table of all candidates.

    Args:
        choice: Choice with a chosen rule.
        limits: Limits.
        source: Source.
        settings: the resolved flags of the command, {name: plain value}.
        path: of the rule.yaml.

    Returns:
        [the two paths].
    """
    table = path.with_name(TABLE)
    save_csv(candidate_rows(choice), table)
    best = choice.chosen
    chosen = {
        "videos": source.about,
        "limits": {
            "max_false_positive_rate": limits.max_false_positive_rate,
            "max_cost": limits.max_cost,
            "confidence": limits.confidence,
            "best": limits.best,
        },
        "figures": {
            "accuracy": best.accuracy,
            "recall": best.recall,
            "false_positives": best.false_positives,
            "false_positive_rate_at_most": float(
                upper_bound(best.false_positives, best.measured.normal, choice.delta)
            ),
            "cost": best.cost,
            "cost_found": best.cost_found if best.recall else None,
        },
        "tested": {
            "sequences": [f"{one.sequence.family}: {one.sequence.name}" for one in choice.tested],
            "false_positives_allowed": choice.allowed,
            "delta_each": choice.delta,
        },
        "settings": settings,
    }
    rule = ChosenRule(best.rule, source.detectors, chosen, source.operating_point)
    save_rule(rule, path, versions())
    return [path, table]


def candidate_rows(choice):
    """Return one row of the CSV for each candidate, in the order of the tests."""
    return [
        row
        for one, certified in zip(choice.tested, choice.certified, strict=True)
        for row in _rows(one, certified, choice.delta)
    ]


def _rows(measured, certified, delta):
    bounds = upper_bound(measured.false_positives, measured.normal, delta)
    accuracy = measured.accuracy
    for place, rule in enumerate(measured.sequence.rules):
        yield {
            "family": rule.family,
            "sequence": measured.sequence.name,
            "rule": rule.describe(),
            "certified": int(certified[place]),
            "accuracy": float(accuracy[place]),
            "recall": float(measured.recall[place]),
            "false_positives": int(measured.false_positives[place]),
            "normal": measured.normal,
            "false_positive_rate_at_most": float(bounds[place]),
            "cost": float(measured.cost[place]),
            "cost_found": float(measured.cost_found[place]) if measured.recall[place] else None,
        }
