"""How well do scores tell unsafe clips from normal ones, and how sure is that?

Scores are any numbers; larger ones mean more likely unsafe. The numbers come from scikit-learn.
Their intervals are percentile bootstrap intervals, resampled within each class; they use weighted
forms of the same numbers, which measure all resamples at once.
"""

from math import ceil, sqrt

import numpy as np

from lvd.detectors.calibration import ARGMAX
from lvd.errors import InputError, typed
from lvd.voting import to_fraction

RESAMPLES = 1000
LEVEL = 0.95  # of the intervals
SEED = 2024  # of the resamples
ONE_SIDED = 1.645  # standard deviations: 5% of a normal distribution lie above
# In the column "category" of a table:
ANY = "any"  # the largest probability over categories
ALL = "all"  # the probabilities of every category together


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


def beats_chance(area, unsafe, normal):
    """Tell whether scores rank unsafe clips above normal ones more often than a coin would.

    Mann and Whitney's test, one-sided at 5%: an area under the ROC curve is that far above 0.5 by
    chance in one of twenty cases. Few clips tell nothing: of 1 and 4, not even an area of 1 does.

    Args:
        area: under the ROC curve.
        unsafe, normal: how many clips of each class it was measured on.

    Source: Mann and Whitney, 1947, by its normal approximation.
    """
    deviation = sqrt((unsafe + normal + 1) / (12 * unsafe * normal))
    return area - 0.5 > ONE_SIDED * deviation


def constant_accuracy(unsafe, normal):
    """Return the accuracy of the constant answer: the share of the larger class.

    Args:
        unsafe, normal: how many clips there are of each.
    """
    return max(unsafe, normal) / (unsafe + normal)


def choose_threshold(normal_scores, false_positives):
    """Choose the lowest threshold that keeps false positives rare.

    Args:
        normal_scores: [N] raw probabilities of the normal validation clips.
        false_positives: the largest share of them that may reach the threshold.

    Returns:
        A float32 number, as scores are (the next double above a score would be rounded back to it
        in a comparison with float32 scores): at least 0.5, and at most 1, for with a higher one
        the detector could never vote unsafe. `false_positives_met` says whether 1 was enough.
    """
    ranked = np.sort(np.asarray(normal_scores, np.float32))[::-1]
    allowed = int(false_positives * len(ranked))
    if allowed >= len(ranked) or ranked[allowed] < ARGMAX:
        return ARGMAX
    return min(1.0, float(np.nextafter(ranked[allowed], np.float32(2))))


def false_positives_met(normal_scores, threshold, false_positives):
    """Tell whether a threshold keeps false positives as rare as was asked for.

    No threshold does where too many normal clips score 1.

    Args:
        normal_scores: [N] raw probabilities of the normal validation clips.
        threshold: a raw probability.
        false_positives: the largest share of them that may reach the threshold.
    """
    reached = np.asarray(normal_scores, np.float32) >= threshold
    return bool(reached.sum() <= int(false_positives * len(reached)))


def rates(scores, labels, threshold):
    """Measure one detector on its clips.

    Args:
        scores: [N] raw probabilities.
        labels: [N], 1 for unsafe and 0 for normal.
        threshold: the detector's own operating point, a raw probability.

    Returns:
        {"accuracy", "tpr", "tnr"} at 0.5, "auroc", "threshold", and {"threshold_tpr",
        "threshold_tnr"} at the threshold, rounded to six decimals; None where a class is missing.
    """
    scores = np.asarray(scores, np.float64)  # votes compare doubles too
    unsafe = scores[labels == 1]
    normal = scores[labels == 0]
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
    """Read the shares of --recall, such as "0.9,0.95", as exact Fractions.

    Raises:
        InputError: a share is no number, or lies outside (0, 1].
    """
    shares = []
    for part in str(text).split(","):
        try:
            share = to_fraction(part.strip())
        except (ValueError, ZeroDivisionError) as error:
            raise InputError(f"--recall {typed(text)}: numbers like 0.9,0.95 are needed") from error
        if not 0 < share <= 1:
            raise InputError(
                f"--recall {typed(part.strip())}: a number above 0, at most 1, is needed"
            )
        shares.append(share)
    if len(set(names(shares))) < len(names(shares)):
        raise InputError(f"--recall {typed(text)}: shares of different first six digits are needed")
    return shares


def names(fixed_recalls):
    """Return the keys of `points` and `Resamples.intervals`, in order."""
    at_recalls = [f"fpr_at_recall_{float(recall):g}" for recall in fixed_recalls]
    return ["auroc", "average_precision", *at_recalls]


def points(unsafe, normal, fixed_recalls):
    """Measure how well scores tell unsafe clips from normal ones.

    Args:
        unsafe, normal: [N1] and [N0] scores.
        fixed_recalls: Fractions r, shares of the unsafe clips.

    Returns:
        {"auroc", "average_precision", "fpr_at_recall_{r}", ...}. The last is the smallest false
        positive rate of a threshold that detects at least r of the unsafe clips.

    Source: scikit-learn, `average_precision_score` and `roc_curve`.
    """
    from sklearn.metrics import average_precision_score, roc_curve

    unsafe = check(unsafe)
    normal = check(normal)
    truth = np.repeat([1, 0], [len(unsafe), len(normal)])
    scores = np.concatenate([unsafe, normal])
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    detected = np.rint(tpr * len(unsafe)).astype(int)
    values = [auroc(scores, truth), float(average_precision_score(truth, scores))]
    for recall in fixed_recalls:
        first = np.argmax(detected >= ceil(recall * len(unsafe)))
        values.append(float(fpr[first]))
    return dict(zip(names(fixed_recalls), values, strict=True))


def check(scores):
    """Return scores as float64 [N].

    Raises:
        InputError: there are none, or one is not finite: no number is made of that.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not len(scores):
        raise InputError("metrics: no clips of one class, so nothing can be told from the other")
    if not np.isfinite(scores).all():
        raise InputError("metrics: scores that are not finite; run embed_model.py again")
    return scores


class Resamples:
    """Bootstrap resamples of N1 unsafe and N0 normal clips.

    They are drawn with replacement within each class, and seeded. Scores of the same clips (other
    steps, other rules) are measured on the same resamples.

    Attributes:
        unsafe, normal: how often each clip is drawn, [R, N1] and [R, N0].
    """

    def __init__(self, unsafe, normal, resamples=RESAMPLES, seed=SEED):
        draw = np.random.default_rng([seed, unsafe, normal])
        self.unsafe, self.normal = (
            draw.multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)
            for n in (unsafe, normal)
        )

    def intervals(self, unsafe, normal, fixed_recalls, level=LEVEL):
        """Return the intervals of the metrics of `points`.

        Args:
            unsafe, normal: [N1] and [N0] scores.
            fixed_recalls: see `points`.
            level: the share of resamples between the two ends.

        Returns:
            {name: (low, high)}. None in place of an interval where a class has one clip, which does
            not tell how clips differ.
        """
        unsafe = check(unsafe)
        normal = check(normal)
        if min(len(unsafe), len(normal)) < 2:
            return dict.fromkeys(names(fixed_recalls))
        values = self._values(unsafe, normal, fixed_recalls)
        ends = percentiles(level)
        return {
            name: tuple(np.percentile(value, ends).tolist())
            for name, value in zip(names(fixed_recalls), values, strict=True)
        }

    def _values(self, unsafe, normal, fixed_recalls):
        """Yield each metric of every resample, [R]."""
        # The different scores in falling order; ties share a threshold.
        thresholds, at = np.unique(-np.concatenate([unsafe, normal]), return_inverse=True)
        n1 = len(unsafe)
        n0 = len(normal)
        tp = _counts(self.unsafe, at[:n1], len(thresholds))  # [R, K] at each score
        fp = _counts(self.normal, at[n1:], len(thresholds))
        detected = tp.cumsum(1)  # at that score or above
        false = fp.cumsum(1)
        yield (tp * (n0 - false + fp / 2)).sum(1) / (n1 * n0)
        yield (tp * detected / np.maximum(detected + false, 1)).sum(1) / n1
        for recall in fixed_recalls:
            first = (detected >= ceil(recall * n1)).argmax(1)
            yield false[np.arange(len(false)), first] / n0


def percentiles(level):
    """Return the two percentiles between which an interval of that level lies."""
    tail = 100 * (1 - level) / 2
    return [tail, 100 - tail]


def _counts(weights, places, width):
    """Return [R, width]: the weights [R, N] added up at each clip's place [N]."""
    if len(set(places.tolist())) == len(places):
        counts = np.zeros((len(weights), width))
        counts[:, places] = weights
        return counts
    return weights @ np.eye(width)[places]
