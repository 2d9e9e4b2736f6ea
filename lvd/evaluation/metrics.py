"""How well do scores tell unsafe clips from normal ones, and how sure is that? Numbers with
bootstrap intervals.

Scores: any numbers, larger meaning more likely unsafe. Points come from scikit-learn; the intervals
are percentile bootstrap intervals, resampled within each class, from weighted forms of the same
numbers for all resamples at once.
"""

from fractions import Fraction
from math import ceil

import numpy as np

from lvd.detectors.detector import ARGMAX
from lvd.errors import InputError

RESAMPLES, LEVEL, SEED = 1000, 0.95, 2024
BINS = 10  # of calibrated probabilities, for the calibration error


def auroc(scores, labels):
    """Return the area under the ROC curve of one set of scores.

    It is the share of (unsafe, normal) pairs in the right order, ties counted half.

    Args:
        scores: [N] numbers, larger ones meaning more likely unsafe.
        labels: [N], 1 for unsafe and 0 for normal; both must occur.

    Returns:
        A float from 0 to 1.

    Source: scikit-learn, `sklearn.metrics.roc_auc_score`.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def batched_auroc(scores, labels):
    """Return the area under the ROC curve of many sets of scores at once, on their device.

    Args:
        scores: [K, N] tensor, one line for each set.
        labels: [N] tensor, 1 for unsafe and 0 for normal, the same for all sets.

    Returns:
        float32 tensor [K]: what `auroc` says of each line.
    """
    unsafe, normal = scores[:, labels == 1, None], scores[:, None, labels == 0]
    return ((unsafe > normal).float() + 0.5 * (unsafe == normal)).mean((1, 2))


def choose_threshold(normal_scores, false_positives):
    """The lowest threshold of at least 0.5 at which at most that share of the normal clips reach
    it, and 1 at most: with any higher one the detector could never vote unsafe. See
    `false_positives_met`.

    normal_scores: probabilities [N] of validation clips that are normal. The result is a float32
    number, as scores are: the next double above a score would be rounded back to it in a comparison
    with float32 scores.
    """
    ranked = np.sort(np.asarray(normal_scores, np.float32))[::-1]
    allowed = int(false_positives * len(ranked))
    if allowed >= len(ranked) or ranked[allowed] < ARGMAX:
        return ARGMAX
    return min(1.0, float(np.nextafter(ranked[allowed], np.float32(2))))


def false_positives_met(normal_scores, threshold, false_positives):
    """Whether at most that share of the normal clips reach the threshold; no threshold helps where
    more of them score 1."""
    reached = np.asarray(normal_scores, np.float32) >= threshold
    return bool(reached.sum() <= int(false_positives * len(reached)))


def rates(scores, labels, threshold):
    """Accuracy, TPR and TNR at 0.5, AUROC, and TPR and TNR at the detector's threshold; None where
    a class is missing."""
    scores = np.asarray(scores, np.float64)  # votes compare doubles too
    unsafe, normal = scores[labels == 1], scores[labels == 0]
    both = len(unsafe) and len(normal)
    values = {
        "accuracy": np.mean((scores >= ARGMAX) == labels),
        "tpr": _mean_or_none(unsafe >= ARGMAX),
        "tnr": _mean_or_none(normal < ARGMAX),
        "auroc": auroc(scores, labels) if both else None,
        "threshold": threshold,
        "threshold_tpr": _mean_or_none(unsafe >= threshold),
        "threshold_tnr": _mean_or_none(normal < threshold),
    }
    return {key: None if value is None else round(float(value), 6) for key, value in values.items()}


def _mean_or_none(hits):
    return hits.mean() if len(hits) else None


def recalls(text):
    """[Fraction] of "0.9,0.95"; InputError outside (0, 1]."""
    found = []
    for part in str(text).split(","):
        try:
            value = Fraction(part.strip())
        except (ValueError, ZeroDivisionError) as error:
            raise InputError(f"--recall {text}: numbers like 0.9,0.95 are needed") from error
        if not 0 < value <= 1:
            raise InputError(f"--recall {part.strip()}: a number above 0, at most 1, is needed")
        found.append(value)
    return found


def names(fixed_recalls):
    """The keys of `points` and `intervals`, in order."""
    return [
        "auroc",
        "average_precision",
        *(f"fpr_at_recall_{float(recall):g}" for recall in fixed_recalls),
    ]


def points(unsafe, normal, fixed_recalls):
    """{name: value} of the scores of unsafe [N1] and normal [N0] clips, by scikit-learn.

    fpr_at_recall_r: the smallest false positive rate of a threshold that finds at least r of the
    unsafe clips.
    """
    from sklearn.metrics import average_precision_score, roc_curve

    unsafe, normal = check(unsafe), check(normal)
    truth, scores = np.repeat([1, 0], [len(unsafe), len(normal)]), np.concatenate([unsafe, normal])
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    found = np.rint(tpr * len(unsafe)).astype(int)
    values = [
        auroc(scores, truth),
        average_precision_score(truth, scores),
        *(fpr[np.argmax(found >= ceil(recall * len(unsafe)))] for recall in fixed_recalls),
    ]
    return dict(zip(names(fixed_recalls), map(float, values), strict=True))


def check(scores):
    """Scores as float64 [N]; InputError when there are none or one is not finite: no number is made
    of that."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not len(scores):
        raise InputError("metrics: no clips of one class, so nothing can be told from the other")
    if not np.isfinite(scores).all():
        raise InputError("metrics: scores that are not finite; run embed_model.py again")
    return scores


class Resamples:
    """Bootstrap resamples of N1 unsafe and N0 normal clips, drawn with replacement within each
    class, seeded.

    unsafe, normal: how often each clip is drawn, [R, N1] and [R, N0]. Scores of the same clips
    (other steps, other rules) are measured on the same resamples.
    """

    def __init__(self, unsafe, normal, resamples=RESAMPLES, seed=SEED):
        draw = np.random.default_rng([seed, unsafe, normal])
        self.unsafe, self.normal = (
            draw.multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)
            for n in (unsafe, normal)
        )

    def intervals(self, unsafe, normal, fixed_recalls, level=LEVEL):
        """{name: (low, high)} of `points`. None in place of an interval when a class has one clip,
        which says nothing of how clips differ."""
        unsafe, normal = check(unsafe), check(normal)
        if min(len(unsafe), len(normal)) < 2:
            return dict.fromkeys(names(fixed_recalls))
        values = self._values(unsafe, normal, fixed_recalls)
        tail = 100 * (1 - level) / 2
        return {
            name: tuple(np.percentile(value, [tail, 100 - tail]).tolist())
            for name, value in zip(names(fixed_recalls), values, strict=True)
        }

    def _values(self, unsafe, normal, fixed_recalls):
        """[R] of each metric, over the different scores in falling order (ties share a threshold)."""
        order, at = np.unique(-np.concatenate([unsafe, normal]), return_inverse=True)
        tp, fp = (
            _counts(weights, places, len(order))
            for weights, places in (
                (self.unsafe, at[: len(unsafe)]),
                (self.normal, at[len(unsafe) :]),
            )
        )  # [R, K] at each score
        found, false = tp.cumsum(1), fp.cumsum(1)  # at that score or above
        n1, n0 = len(unsafe), len(normal)
        yield (tp * (n0 - false + fp / 2)).sum(1) / (n1 * n0)
        yield (tp * found / np.maximum(found + false, 1)).sum(1) / n1
        for recall in fixed_recalls:
            first = (found >= ceil(recall * n1)).argmax(1)
            yield false[np.arange(len(false)), first] / n0


def _counts(weights, places, width):
    """[R, width]: the weights [R, N] added up at each clip's place [N]."""
    if len(set(places.tolist())) == len(places):
        counts = np.zeros((len(weights), width))
        counts[:, places] = weights
        return counts
    return weights @ np.eye(width)[places]


# ---- are probabilities what they say?


def balanced_weights(labels):
    """Weights [N] by which unsafe and normal clips count half each, whatever their numbers; they
    add up to 1."""
    labels = np.asarray(labels)
    unsafe = (labels == 1).sum()
    if not 0 < unsafe < len(labels):
        raise InputError("metrics: clips of one class only, so probabilities cannot be checked")
    return np.where(labels == 1, 0.5 / unsafe, 0.5 / (len(labels) - unsafe))


def reliability(probabilities, labels, weights, resamples=None, level=LEVEL):
    """[{"from", "to", "weight", "mean", "unsafe"}] of the bins of equal width that hold clips: the
    bin's share of all weight, its mean probability and its share of unsafe clips, all weighted.

    probabilities, weights: [V, K], K clips of each of V videos; labels: [V]. With `resamples` (of
    these videos) also "low" and "high", the interval of the share of unsafe ones: a video's clips
    are drawn together.
    """
    probabilities, weights = np.asarray(probabilities, np.float64), np.asarray(weights, np.float64)
    labels = np.asarray(labels)
    at = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    held = np.stack([(weights * (at == k)).sum(1) for k in range(BINS)], 1)  # [V, BINS]
    mean = np.stack([(weights * probabilities * (at == k)).sum() for k in range(BINS)])
    unsafe, total = held[labels == 1].sum(0), held.sum(0)
    rows = [
        {
            "from": k / BINS,
            "to": (k + 1) / BINS,
            "weight": total[k] / total.sum(),
            "mean": mean[k] / total[k],
            "unsafe": unsafe[k] / total[k],
        }
        for k in np.flatnonzero(total)
    ]
    if resamples:
        drawn = resamples.unsafe @ held[labels == 1]
        both = drawn + resamples.normal @ held[labels == 0]  # [R, BINS]
        share = np.divide(drawn, both, out=np.full_like(both, np.nan), where=both > 0)
        tail = 100 * (1 - level) / 2
        for row, k in zip(rows, np.flatnonzero(total)):
            row["low"], row["high"] = np.nanpercentile(share[:, k], [tail, 100 - tail]).tolist()
    return rows


def calibration_errors(probabilities, labels, weights):
    """{"log_loss", "brier", "ece"}: weighted means; ece, the expected calibration error, over BINS
    bins. Shapes as of `reliability`."""
    from sklearn.metrics import brier_score_loss, log_loss

    rows = reliability(probabilities, labels, weights)
    truth = np.broadcast_to(np.asarray(labels)[:, None], np.shape(probabilities)).ravel()
    flat, weights = (
        np.asarray(probabilities, np.float64).ravel(),
        np.asarray(weights, np.float64).ravel(),
    )
    counted = weights > 0
    truth, flat, weights = truth[counted], flat[counted], weights[counted]
    return {
        "log_loss": float(log_loss(truth, flat, sample_weight=weights, labels=[0, 1])),
        "brier": float(brier_score_loss(truth, flat, sample_weight=weights)),
        "ece": float(sum(row["weight"] * abs(row["mean"] - row["unsafe"]) for row in rows)),
    }
