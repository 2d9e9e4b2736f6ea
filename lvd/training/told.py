"""What the summary of a training says of its detectors, in words."""

import numpy as np

from lvd.errors import plural
from lvd.evaluation.metrics import beats_chance, constant_accuracy

NAMED = 5  # detectors that a line names


def validation_facts(rows):
    """Return {fact: text} of how good detectors are on their validation clips.

    The accuracy alone says little: where most clips are normal, the constant answer "normal" has a
    high one. So that is told beside it, and which detectors are not better than a coin.

    Args:
        rows: [row of metrics]. Rows of earlier versions, which do not tell how many validation
            clips there were, count in the means alone.
    """
    rows = list(rows)
    accuracies = [row["val_accuracy"] for row in rows]
    balanced = [(row["val_tpr"] + row["val_tnr"]) / 2 for row in rows]
    facts = {
        "mean validation accuracy": f"{np.mean(accuracies):.3f}{_constant(rows)}",
        "mean balanced accuracy": f"{np.mean(balanced):.3f} (of unsafe and normal clips alike; "
        "chance has 0.5)",
    }
    return {**facts, **_no_better(rows), **_over_aim(rows)}


def _constant(rows):
    """Say what the constant answer would have, where it is known for all detectors."""
    counts = [(row.get("val_unsafe_clips"), row.get("val_normal_clips")) for row in rows]
    if not all(unsafe and normal for unsafe, normal in counts):
        return ""
    constant = np.mean([constant_accuracy(*both) for both in counts])
    answer = "normal" if sum(u for u, _ in counts) <= sum(n for _, n in counts) else "unsafe"
    return f' (always answering "{answer}": {constant:.3f})'


def _no_better(rows):
    """Return a line where detectors do not tell unsafe validation clips from normal ones."""
    known = [row for row in rows if row.get("val_unsafe_clips") and row.get("val_normal_clips")]
    poor = [
        row
        for row in known
        if not beats_chance(row["val_auroc"], row["val_unsafe_clips"], row["val_normal_clips"])
    ]
    if not poor:
        return {}
    clips = plural(min(row["val_unsafe_clips"] for row in poor), "unsafe clip")
    return {
        "WARNING: no better than chance": f"{_places(poor, rows)}: on validation clips (as few as "
        f"{clips}) their scores do not rank unsafe above normal"
    }


def _over_aim(rows):
    """Return a line where no threshold keeps the false positives low enough."""
    over = [row for row in rows if row.get("val_false_positives_met") is False]
    if not over:
        return {}
    return {
        "more false positives than aimed at": f"{_places(over, rows)}: too many normal validation "
        "clips score 1"
    }


def _places(some, rows):
    """Name the first of some detectors: "2 of 250 (group/step 1/0, 1/1)"."""
    places = ", ".join(f"{row['group']}/{row['step']}" for row in some[:NAMED])
    more = ", ..." if len(some) > NAMED else ""
    return f"{len(some)} of {len(rows)} (group/step {places}{more})"
