"""Means over seeds and videos, and 95% intervals of them.

Both the videos and the seeds of the trainings are drawn from many: an interval has to allow for
both. The detectors of all seeds judge the same videos, so a video counts once, not once a seed.
"""

from dataclasses import dataclass

import numpy as np

from lvd.evaluation.metrics import LEVEL, RESAMPLES

SEED = 2024  # of the bootstrap
TINY = 1e-9  # of a video: what sums of decimals leave of none


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float

    def text(self, digits=3):
        """Return it as tables show it, such as "0.953 [0.842, 0.994]"."""
        if not np.isfinite(self.mean):
            return ""
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def share(*strata, level=LEVEL):
    """Return the Estimate of a share, such as an accuracy, over seeds and videos.

    The variance of the mean is that of the videos (drawn within each stratum, each with its mean
    over the seeds) and that of the seeds. The interval is the exact binomial one of as many videos
    as would have this variance alone, at most those that there are: it is never a point. Few seeds
    tell their variance badly, so where most of the variance is theirs the number is smaller still.
    With one seed it is the interval of Clopper and Pearson, where there is one stratum.

    Args:
        strata: bool [seeds, videos] each: whether it is so. Accuracy has two, the unsafe and the
            normal videos.

    Returns:
        Estimate.

    Source: Korn and Graubard, "Confidence intervals for proportions with small expected number of
    positive counts", 1998; Satterthwaite, 1946, for the degrees of freedom of the sum of two
    variances; Clopper and Pearson, 1934.
    """
    from scipy.stats import beta

    arrays = [np.asarray(stratum, np.float64) for stratum in strata]
    count = sum(array.shape[1] for array in arrays)
    if not count:
        return Estimate(float("nan"), 0.0, 1.0)
    by_seed = sum(array.sum(1) for array in arrays) / count
    mean = float(by_seed.mean())
    effective = min(count, _effective(arrays, by_seed, mean, count, level))
    hits, misses = mean * effective, (1 - mean) * effective
    tail = (1 - level) / 2
    low = 0.0 if hits <= TINY else float(beta.ppf(tail, hits, misses + 1))
    high = 1.0 if misses <= TINY else float(beta.ppf(1 - tail, hits + 1, misses))
    return Estimate(mean, low, high)


def _effective(arrays, by_seed, mean, count, level):
    """Return of how many independent videos a share would have the variance that it has."""
    from scipy.stats import t

    videos = sum(np.var(array.mean(0)) * array.shape[1] for array in arrays) / count**2
    # Seeds differ by chance alone, too: each errs in other videos. `videos` has that already.
    chance = sum(_of_chance(array) * array.shape[1] for array in arrays) / count**2
    seeds = max(0.0, _variance(by_seed) - chance) / len(by_seed)
    variance = videos + seeds
    if variance <= 0 or count < 2:
        return count
    shares = videos**2 / (count - 1) + seeds**2 / max(1, len(by_seed) - 1)
    freedom = variance**2 / shares  # how well the variance is known
    tail = (1 - level) / 2
    return mean * (1 - mean) / variance * (t.isf(tail, count - 1) / t.isf(tail, freedom)) ** 2


def _of_chance(array):
    """The variance of [seeds, videos] that is neither of the seeds nor of the videos."""
    seeds, videos = array.shape
    if min(seeds, videos) < 2:
        return 0.0
    rest = array - array.mean(1, keepdims=True) - array.mean(0) + array.mean()
    return float((rest**2).sum() / ((seeds - 1) * (videos - 1)))


def mean_of(values, level=LEVEL, resamples=RESAMPLES):
    """Return the Estimate of a mean over seeds and videos, by a bootstrap of both.

    Args:
        values: float [seeds, videos], such as the cost of each unsafe video.
        level: of the interval.
        resamples: of the bootstrap.

    Returns:
        Estimate; its interval is the percentile interval.
    """
    values = np.asarray(values, np.float64)
    seeds, videos = values.shape
    rng = np.random.default_rng(SEED)
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    of_videos = rng.multinomial(videos, np.full(videos, 1 / videos), resamples) / videos
    drawn = np.einsum("rs,sv,rv->r", of_seeds, values, of_videos)
    low, high = np.percentile(drawn, [50 * (1 - level), 50 * (1 + level)])
    return Estimate(float(values.mean()), float(low), float(high))


def f1_of(recall, specificity, unsafe, normal, mean):
    """Return the Estimate of F1, the harmonic mean of precision and recall.

    Its ends are the F1 of both lower and of both upper ends of the two shares that it is made of:
    a little too wide, and never a point.

    Args:
        recall, specificity: Estimates of the shares of unsafe videos that are stopped, and of
            normal ones that pass.
        unsafe, normal: how many videos there are of each.
        mean: F1, its mean over seeds.
    """

    def f1(found, passed):
        false = (1 - passed) * normal
        return 2 * found * unsafe / (found * unsafe + unsafe + false)

    return Estimate(mean, f1(recall.low, specificity.low), f1(recall.high, specificity.high))


def area(unsafe, normal, level=LEVEL, resamples=RESAMPLES):
    """Return the Estimate of a mean AUROC over seeds and videos, by a bootstrap of both.

    Args:
        unsafe, normal: float [seeds, videos] each, scores; larger ones mean more likely unsafe.
        level: of the interval.
        resamples: of the bootstrap; videos are drawn within each of the two.

    Returns:
        Estimate; its interval is the percentile interval.
    """
    unsafe, normal = np.asarray(unsafe, np.float64), np.asarray(normal, np.float64)
    ahead, behind = unsafe[:, :, None], normal[:, None, :]
    in_order = (ahead > behind) + 0.5 * (ahead == behind)  # [seeds, unsafe, normal]
    rng = np.random.default_rng(SEED)
    of_seeds, of_unsafe, of_normal = (
        rng.multinomial(n, np.full(n, 1 / n), resamples) / n for n in in_order.shape
    )
    by_seed = [((of_unsafe @ pairs) * of_normal).sum(1) for pairs in in_order]
    drawn = (of_seeds * np.stack(by_seed, 1)).sum(1)
    low, high = np.percentile(drawn, [50 * (1 - level), 50 * (1 + level)])
    return Estimate(float(in_order.mean()), float(low), float(high))


def _variance(values):
    return float(np.var(values, ddof=1)) if len(values) > 1 else 0.0
