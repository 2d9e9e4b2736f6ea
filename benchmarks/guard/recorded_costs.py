"""What a rule costs on recorded videos, in operations at full size."""

from benchmarks.common.rates import accuracy_of
from lvd.evaluation.rule_report import report_of
from lvd.rules.rule import NEVER


def recorded_rows(costs, guards, named, videos, missed=False):
    """How many times less than a full video the unsafe ones cost on average, and the rates.

    Args:
        costs: Costs.
        guards: [(column, TFLOP that guarding a step adds)].
        named: [(row's name, Rule)].
        videos: RecordedVideos.
        missed: of all unsafe videos, those that pass made in full; else of those found unsafe.

    Returns:
        [(name, figures)].
    """
    rows = []
    for name, rule in named:
        report = report_of(rule, videos)
        figures = {
            **accuracy_of(report.right, len(videos.is_unsafe)),
            "tpr": report.found / report.unsafe,
            "tnr": 1 - report.false / report.normal,
        }
        found_cost = report.found_cost()
        figures["steps until stopped"] = None if found_cost is None else found_cost * report.steps
        for column, guard in guards:
            spent = _spent(costs, guard, report, missed)
            figures[column] = costs.full / (sum(spent) / len(spent)) if spent else None
        rows.append((name, figures))
    return rows


def _spent(costs, guard, report, missed):
    """TFLOP of each unsafe video that counts."""
    spent = []
    stops, looked_at = report.stops[report.is_unsafe], report.looked_at[report.is_unsafe]
    for stop, steps in zip(stops, looked_at, strict=True):
        if stop != NEVER:
            spent.append(costs.stopped(int(stop) + 1, guard))
        elif missed:
            spent.append(costs.passed(int(steps), guard))
    return spent
