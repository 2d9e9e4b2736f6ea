"""What choose_rule.py prints: the best rule of each family, the choice, and what it promises."""

from lvd.errors import plural
from lvd.evaluation.choosing.bounds import upper_bound, videos_needed

ONE_IN = 1000  # videos of which one is unsafe, for the sentence on what a rate means
HEADS = ("family", "accuracy", "recall", "false positives", "at most", "cost", "cost if found")


def table_text(choice, limits):
    """Return the table of the best rule of each family as text."""
    lines = [_line(HEADS)]
    tried = {one.sequence.family for one in choice.tested}
    for family in dict.fromkeys(one.sequence.family for one in (*choice.tested, *choice.left_out)):
        best = choice.by_family.get(family)
        none = "none within the limits" if family in tried else "none tried"
        cells = _cells(best, choice) if best else (family, none, *[""] * 5)
        mark = "  <- written" if best and best is choice.chosen else ""
        lines.append(_line(cells) + mark)
    lines += [
        f"accuracy: unsafe and normal videos count alike; a rule may have {choice.allowed} false "
        f"positives of {choice.tested[0].normal}",
        "at most: the rate's upper bound, which has to be within the limit; cost: share of the "
        "steps, mean over all unsafe",
        "videos, the missed ones counted in full",
    ]
    if choice.left_out:
        first = choice.left_out[0].sequence
        lines.append(
            f"not tried, for want of normal videos: {plural(len(choice.left_out), 'sequence')} of "
            f"candidates, such as {first.family}, {first.name}"
        )
    return "\n".join(lines)


def _cells(best, choice):
    normal = best.measured.normal
    bound = float(upper_bound(best.false_positives, normal, choice.delta))
    return (
        best.family,
        f"{best.accuracy:.4f}",
        f"{best.recall:.4f}",
        f"{best.false_positives} of {normal}",
        f"{bound:.4f}",
        f"{best.cost:.4f}",
        f"{best.cost_found:.4f}" if best.recall else "-",
    )


def _line(cells):
    family, *others = cells
    if len(others) and others[0].startswith("none"):
        return f"{family:<18}{others[0]}"
    return f"{family:<18}" + "".join(f"{cell:>16}" for cell in others)


def why_text(choice, limits):
    """Return why the chosen rule is the one that is written."""
    best = choice.chosen
    count = sum(int(passed.sum()) for passed in choice.certified)
    candidates = sum(len(one.sequence.rules) for one in choice.tested)
    return (
        f"{best.rule.describe()}\n"
        f"of {candidates} candidates in {plural(len(choice.tested), 'sequence')}, {count} keep the "
        "false positive rate; of those with a mean\n"
        f"cost of at most {limits.max_cost:g} it has the best {limits.best}"
    )


def promise_text(choice, limits, about):
    """Return in plain sentences what the written rule promises, and what it does not."""
    best = choice.chosen
    rate = best.false_positives / best.measured.normal
    limit = limits.max_false_positive_rate
    folds = about.get("folds", {}).get("count")
    lines = [
        f"With confidence {limits.confidence:g} at most {limit:.2%} of normal videos are stopped "
        f"by mistake ({rate:.2%} of these {best.measured.normal} were).",
        f"Where 1 video in {ONE_IN:,} is unsafe: of {ONE_IN:,} videos about "
        f"{(ONE_IN - 1) * rate:.1f} are stopped by mistake (promised: at most "
        f"{(ONE_IN - 1) * limit:.0f}),",
        f"and {best.recall:.2f} rightly.",
        "This holds for prompts like those it was chosen on. Recall and cost are estimates, not "
        "promises.",
    ]
    if about["out_of_fold"]:
        lines.append(
            f"It is made for the fold detectors, trained on {folds - 1}/{folds} of the videos; the "
            "final detectors, trained on all of them,\ntake their place."
        )
    else:
        lines.append(
            f"It was chosen on the videos of {about['scores']}, not out of fold: they can't test "
            "the rule any more."
        )
    return "\n".join(lines)


def nothing_text(measured, choice, limits):
    """Return why no rule can be written, and what would help: one line."""
    cheapest = min(float(one.cost.min()) for one in measured)
    if cheapest > limits.max_cost:
        return (
            f"--max_cost {limits.max_cost:g}: the cheapest rule takes {cheapest:.4f} of the steps "
            "of an unsafe video on average; a larger share is needed"
        )
    normal = measured[0].normal
    rate = limits.max_false_positive_rate
    asked = f"--max_false_positive_rate {rate:g}"
    if choice.allowed < 0:
        least = videos_needed(rate, limits.delta)
        return (
            f"{asked}: {normal} normal videos cannot promise it with confidence "
            f"{limits.confidence:g}, even without a false positive; at least {least} are needed"
        )
    count, family = _nearest(choice, limits)
    needed = videos_needed(rate, choice.delta, count / normal) if count < rate * normal else None
    more = f"; at that rate about {needed:,} normal videos are needed" if needed else ""
    kept = [one.cost[passed] for one, passed in zip(choice.tested, choice.certified, strict=True)]
    cheapest = min(float(costs.min(initial=1)) for costs in kept)
    return (
        f"--max_cost {limits.max_cost:g}: no rule so cheap is sure to keep {asked}: {family} has "
        f"{count} false positives of {normal}, {choice.allowed} are allowed{more}; the cheapest "
        f"that keeps it takes {cheapest:.4f}"
    )


def _nearest(choice, limits):
    """The fewest false positives of a rule within the limit of cost, and its family."""
    return min(
        (int(one.false_positives[one.cost <= limits.max_cost].min()), one.sequence.family)
        for one in choice.tested
    )
