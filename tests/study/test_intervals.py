"""Means over seeds and videos, and their intervals: known values, and coverage by simulation."""

import numpy as np
import pytest

from lvd.evaluation.intervals import interval
from lvd.evaluation.metrics import auroc
from lvd_study.intervals import Estimate, area, f1_of, mean_of, share


def hits(count, total, seeds=1):
    return np.tile(np.arange(total) < count, (seeds, 1))


@pytest.mark.parametrize("count, total", [(0, 43), (43, 43), (3, 43), (40, 43), (1, 1), (0, 1)])
@pytest.mark.parametrize("seeds", [1, 3])
def test_seeds_that_agree_give_clopper_and_pearson(count, total, seeds):
    """With one seed, and with several that judge every video alike, a video is one trial."""
    estimate = share(hits(count, total, seeds))
    low, high = interval(count, total)
    assert estimate.mean == pytest.approx(count / total)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-9)


def test_by_hand():
    """Two seeds, four videos: the exact interval of the effective number of videos."""
    from scipy.stats import beta, t

    judged = np.array([[1, 1, 1, 1], [1, 0, 0, 0]], bool)
    # means of videos 1, .5, .5, .5: variance .046875 (n); of seeds 1, .25: .28125 (n - 1).
    # What is left, by chance: ±.28125 and ±.09375 → .375 / 3 = .125 a video.
    videos, seeds = 0.046875 / 4, (0.28125 - 0.125 / 4) / 2
    freedom = (videos + seeds) ** 2 / (videos**2 / 3 + seeds**2 / 1)
    widening = t.isf(0.025, 3) / t.isf(0.025, freedom)
    effective = 0.625 * 0.375 / (videos + seeds) * widening**2
    assert 0.1 < effective < 1.5
    low = beta.ppf(0.025, 0.625 * effective, 0.375 * effective + 1)
    high = beta.ppf(0.975, 0.625 * effective + 1, 0.375 * effective)
    estimate = share(judged)
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((0.625, low, high))


def test_strata_of_other_sizes_weigh_by_their_videos():
    estimate = share(hits(9, 10, 2), hits(5, 30, 2))
    assert estimate.mean == pytest.approx(14 / 40)
    assert estimate.high - estimate.low < np.subtract(*interval(14, 40)[::-1]) + 0.02
    assert np.isnan(share(np.zeros((2, 0), bool)).mean)


@pytest.mark.parametrize("rate, spread", [(0.9, 0.03), (0.97, 0.02), (0.6, 0.1), (0.6, 0.2)])
def test_coverage(rate, spread):
    """Videos differ, and detectors of other seeds err in other places and differ as a whole."""
    draw = np.random.default_rng(7)
    inside = runs = 0
    for _ in range(300):
        hard = draw.beta(4 * rate, 4 * (1 - rate), 80)  # each video's own rate
        shift = draw.normal(0, spread, 3)[:, None]  # each seed's own quality
        judged = draw.random((3, 80)) < np.clip(hard + shift, 0, 1)
        estimate = share(judged)
        inside += estimate.low <= rate <= estimate.high
        runs += 1
    assert inside / runs >= 0.93


def test_mean_has_the_width_that_variances_say():
    """Values of a part by seed and a part by video: the variance of the mean is a sum of two."""
    draw = np.random.default_rng(3)
    seeds, videos = 40, 60
    values = draw.normal(0, 1, (seeds, 1)) + draw.normal(0, 2, (1, videos))
    estimate = mean_of(values, resamples=4000)
    deviation = np.sqrt(values.mean(1).var() / seeds + values.mean(0).var() / videos)
    assert estimate.mean == pytest.approx(values.mean())
    assert (estimate.high - estimate.low) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.06)


def test_area_is_the_mean_auroc():
    draw = np.random.default_rng(5)
    unsafe, normal = draw.normal(1, 1, (3, 20)).round(1), draw.normal(0, 1, (3, 30)).round(1)
    truth = np.repeat([1, 0], [20, 30])
    alone = [auroc(np.r_[u, n], truth) for u, n in zip(unsafe, normal, strict=True)]
    estimate = area(unsafe, normal)
    assert estimate.mean == pytest.approx(np.mean(alone))
    assert estimate.low < estimate.mean < estimate.high
    assert area(unsafe, normal) == estimate  # the same again


def test_area_has_the_width_of_an_auroc():
    """With one seed it is about Hanley and McNeil's: A(1 - A) and the pairs' correlations."""
    draw = np.random.default_rng(5)
    unsafe, normal = draw.normal(1, 1, (1, 60)), draw.normal(0, 1, (1, 60))
    estimate = area(unsafe, normal)
    a = estimate.mean
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    deviation = np.sqrt((a * (1 - a) + 59 * (q1 - a * a) + 59 * (q2 - a * a)) / 3600)
    assert (estimate.high - estimate.low) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.15)


def test_f1():
    recall, specificity = share(hits(8, 10)), share(hits(9, 10))
    estimate = f1_of(recall, specificity, 10, 10, 2 * 8 / (2 * 8 + 2 + 1))
    assert estimate.low < estimate.mean < estimate.high
    assert estimate.low == pytest.approx(2 * recall.low / (recall.low + 1 + 1 - specificity.low))
    perfect = f1_of(share(hits(10, 10)), share(hits(10, 10)), 10, 10, 1.0)
    assert perfect.low < 0.9 and perfect.high == 1


def test_text():
    assert Estimate(0.9534, 0.84, 1).text() == "0.953 [0.840, 1.000]"
    assert Estimate(float("nan"), 0, 1).text() == ""
