"""Differences between two sets of videos, or of detectors, with intervals over seeds and videos."""

import numpy as np

from lvd.evaluation.metrics import LEVEL, RESAMPLES, percentiles
from lvd_study.intervals import SEED, Estimate, share


def paired_difference(*strata):
    """Return the Estimate of how much larger a share is, of the same videos.

    Only videos that changed count: the share of those that became right, less that of those that
    became wrong.

    Args:
        strata: (before, after) each, bool [seeds, videos], in the same order. Accuracy has two
            strata, the unsafe and the normal videos.
    """
    better = share(*(after & ~before for before, after in strata))
    worse = share(*(before & ~after for before, after in strata))
    return difference(better, worse)


def difference(more, less):
    """Return the Estimate of a difference of two shares from the Estimates of both.

    Each end adds the squares of how far the two intervals reach (Newcombe). It is never a point,
    and it takes the two as independent.

    Source: Newcombe, "Interval estimation for the difference between independent proportions",
    1998, method 10, with exact intervals in the place of Wilson's.
    """
    mean = more.mean - less.mean
    below = np.hypot(more.mean - more.low, less.high - less.mean)
    above = np.hypot(more.high - more.mean, less.mean - less.low)
    return Estimate(mean, float(mean - below), float(mean + above))


def area_difference(before, after, is_paired):
    """Return the Estimate of how much larger an AUROC is, by a bootstrap of seeds and videos.

    Args:
        before, after: (unsafe, normal) scores each, float [seeds, videos], by the same detectors;
            larger ones mean more likely unsafe.
        is_paired: whether both are of the same videos, in the same order.
    """
    pairs = [_in_order(*scores) for scores in (before, after)]
    drawn = [_areas(pairs[0], 0), _areas(pairs[1], 0 if is_paired else 1)]
    low, high = np.percentile(drawn[1] - drawn[0], percentiles(LEVEL))
    return Estimate(float(pairs[1].mean() - pairs[0].mean()), float(low), float(high))


def _in_order(unsafe, normal):
    """Which pairs of videos are in the right order, [seeds, unsafe, normal]; a tie is half."""
    unsafe, normal = unsafe[:, :, None], normal[:, None, :]
    return (unsafe > normal) + 0.5 * (unsafe == normal)


def _areas(pairs, draw):
    """The AUROC of each resample, [R]. The same `draw` takes the same videos, and all the same
    seeds."""
    seeds, unsafe, normal = pairs.shape
    of_seeds = _weights(seeds, [SEED, 0])
    of_unsafe, of_normal = _weights(unsafe, [SEED, 1, draw]), _weights(normal, [SEED, 2, draw])
    by_seed = [((of_unsafe @ part) * of_normal).sum(1) for part in pairs]
    return (of_seeds * np.stack(by_seed, 1)).sum(1)


def _weights(count, seed):
    """How often each of `count` is drawn in each resample, as shares, [R, count]."""
    draw = np.random.default_rng(seed)
    return draw.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
