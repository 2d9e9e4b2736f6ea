"""How far a share of so many videos can be trusted.

Intervals are exact binomial ones (Clopper and Pearson): whatever the true rate is, they miss it in
at most 5% of all cases. They are never a point: none of 43 still allows a rate of 8%.
"""

from lvd.evaluation.metrics import LEVEL

IN_BRACKETS = "in brackets: exact 95% intervals (Clopper and Pearson)"


def interval(count, total, level=LEVEL):
    """Return the interval of a rate that was seen in `count` of `total` independent videos.

    Args:
        count, total: whole numbers, 0 <= count <= total.
        level: of the interval.

    Returns:
        (low, high); (0, 1) where there are no videos.

    Source: Clopper and Pearson, 1934, by scipy.
    """
    from scipy.stats import binomtest

    if not total:
        return 0.0, 1.0
    ends = binomtest(int(count), int(total)).proportion_ci(level, method="exact")
    return float(ends.low), float(ends.high)


def rate_text(count, total, digits=3):
    """Return a rate with its interval and its videos, such as "0.953 [0.842, 0.994] (41 of 43)"."""
    if not total:
        return "none (0 of 0)"
    ends = interval_text(*interval(count, total), digits)
    return f"{count / total:.{digits}f} {ends} ({count} of {total})"


def interval_text(low, high, digits=3):
    """Return an interval as tables show it."""
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def nothing_seen(total):
    """Return what a rate may be, at most, that was seen in none of `total` videos, in words."""
    return f"none of {total} still allows a rate of {interval(0, total)[1]:.1%}"
