"""Exact binomial bounds on a false positive rate: what so many normal videos can promise.

A rule stops k of n normal videos by mistake. If its true rate were above the limit, so few would be
seen with a probability of at most P(Binomial(n, limit) <= k). Where that is at most delta, the rule
is certified: the rate is within the limit, with confidence 1 - delta.

Source: Clopper and Pearson, The use of confidence or fiducial limits, 1934.
"""

import math
from functools import lru_cache

import numpy as np

# The numbers of videos that `videos_needed` tries, 1% apart.
NUMBERS = np.unique(np.geomspace(1, 200_000, 1200).round().astype(int))


@lru_cache(maxsize=1000)
def most_false_positives(videos, limit, delta):
    """Return how many false positives a certified rule may have at most.

    Args:
        videos: how many normal videos there are.
        limit: the false positive rate that is promised, in (0, 1).
        delta: how often the promise may be broken, in (0, 1).

    Returns:
        The largest k with P(Binomial(videos, limit) <= k) <= delta; -1 where not even 0 is.
    """
    from scipy.stats import binom

    count = int(binom.ppf(delta, videos, limit))  # P(<= count) >= delta
    return count if binom.cdf(count, videos, limit) <= delta else count - 1


def upper_bound(false_positives, videos, delta):
    """Return the Clopper-Pearson upper bound of the rate, of the shape of `false_positives`.

    It is within a limit where, and only where, `most_false_positives` allows as many.
    """
    from scipy.stats import beta

    count = np.asarray(false_positives, np.float64)
    inside = beta.ppf(1 - delta, count + 1, np.maximum(videos - count, 1))
    return np.where(count >= videos, 1.0, inside)


def videos_needed(limit, delta, rate=0.0):
    """Return how many normal videos certify a rule whose share of false positives is `rate`.

    Returns:
        n of which ceil(rate * n) false positives are few enough: without any the smallest such n,
        else the smallest of NUMBERS; None where there is none.
    """
    from scipy.stats import binom

    if rate <= 0:
        return math.ceil(math.log(delta) / math.log1p(-limit))
    enough = binom.cdf(np.ceil(rate * NUMBERS), NUMBERS, limit) <= delta
    return int(NUMBERS[enough.argmax()]) if enough.any() else None


def affordable(sequences, videos, limit, delta):
    """Return how many sequences of candidates so many normal videos afford.

    With m sequences each has to keep the promise with confidence 1 - delta / m. That costs false
    positives: a certified rule may have fewer. As many sequences are tried as leave at least a
    third of those that one alone would have. The numbers of videos decide, never their scores.

    Args:
        sequences: how many there are.

    Returns:
        A number from 1 to `sequences`; 0 where not even one sequence can be certified.
    """
    alone = most_false_positives(videos, limit, delta)
    if alone < 0:
        return 0
    for count in range(sequences, 1, -1):
        if most_false_positives(videos, limit, delta / count) >= math.ceil(alone / 3):
            return count
    return 1
