"""What the figures of a study were taken on."""

from benchmarks.common.machine import facts


def facts_of(study):
    """Return {fact: text}: scale, seeds, intervals, commit, versions, date and machine."""
    return {
        "scale": study.scale,
        "seeds of the trainings": ", ".join(map(str, study.settings.seeds)),
        "intervals": "95%, over videos and seeds together: shares by Korn and Graubard's form of "
        "the exact binomial interval, means and AUROC by a bootstrap of both",
        **facts(),
    }
