"""Are probabilities what they say? Bins of probabilities and errors of calibration."""

import numpy as np
import pandas as pd

from lvd.errors import InputError
from lvd.evaluation.metrics import LEVEL, percentiles

BINS = 10


def balanced_weights(labels):
    """Return weights [N] by which unsafe and normal clips count half each, whatever their numbers.

    Raises:
        InputError: all clips are of one class.
    """
    labels = np.asarray(labels)
    unsafe = (labels == 1).sum()
    if not 0 < unsafe < len(labels):
        raise InputError("metrics: clips of one class only, so probabilities cannot be checked")
    return np.where(labels == 1, 0.5 / unsafe, 0.5 / (len(labels) - unsafe))


def reliability(probabilities, labels, weights, resamples=None, level=LEVEL):
    """Sort clips into bins of their probability and say how many of each bin are unsafe.

    Args:
        probabilities, weights: [V, K], K clips of each of V videos.
        labels: [V], 1 for unsafe and 0 for normal.
        resamples: Resamples of these videos, for intervals; a video's clips are drawn together.

    Returns:
        A table (pandas) of the bins that hold clips: "from" and "to", "weight" (the bin's share
        of all weight), "mean" (its mean probability) and "unsafe" (its share of unsafe clips),
        all weighted. With `resamples` also "low" and "high", the interval of "unsafe".
    """
    probabilities = np.asarray(probabilities, np.float64)
    weights = np.asarray(weights, np.float64)
    labels = np.asarray(labels)
    at = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    held = np.stack([(weights * (at == k)).sum(1) for k in range(BINS)], 1)  # [V, BINS]
    mean = np.stack([(weights * probabilities * (at == k)).sum() for k in range(BINS)])
    unsafe = held[labels == 1].sum(0)
    total = held.sum(0)
    used = np.flatnonzero(total)
    table = pd.DataFrame(
        {
            "from": used / BINS,
            "to": (used + 1) / BINS,
            "weight": total[used] / total.sum(),
            "mean": mean[used] / total[used],
            "unsafe": unsafe[used] / total[used],
        }
    )
    if resamples:
        drawn = resamples.unsafe @ held[labels == 1]  # [R, BINS]
        both = drawn + resamples.normal @ held[labels == 0]
        share = np.divide(drawn, both, out=np.full_like(both, np.nan), where=both > 0)
        ends = np.nanpercentile(share[:, used], percentiles(level), axis=0)
        table["low"], table["high"] = ends
    return table


def calibration_errors(probabilities, labels, weights):
    """Measure how far probabilities are from what they say. Shapes are those of `reliability`.

    Returns:
        {"log_loss", "brier", "ece"}: weighted means; "ece", the expected calibration error, is
        taken over the bins of `reliability`.

    Source: scikit-learn, `log_loss` and `brier_score_loss`.
    """
    from sklearn.metrics import brier_score_loss, log_loss

    bins = reliability(probabilities, labels, weights)
    truth = np.broadcast_to(np.asarray(labels)[:, None], np.shape(probabilities)).ravel()
    flat = np.asarray(probabilities, np.float64).ravel()
    weights = np.asarray(weights, np.float64).ravel()
    counted = weights > 0
    truth = truth[counted]
    flat = flat[counted]
    weights = weights[counted]
    return {
        "log_loss": float(log_loss(truth, flat, sample_weight=weights, labels=[0, 1])),
        "brier": float(brier_score_loss(truth, flat, sample_weight=weights)),
        "ece": float(sum(bins["weight"] * (bins["mean"] - bins["unsafe"]).abs())),
    }
