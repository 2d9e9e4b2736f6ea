"""Rates of a table, and how far they can be trusted."""

from lvd.evaluation.intervals import interval
from lvd.evaluation.vote_report import counts

FROM_TO = "from and to: the exact 95% interval of the accuracy"


def accuracy_of(right, total):
    """{"accuracy", "from", "to"}: the accuracy of `right` of `total` videos, and its interval."""
    low, high = interval(right, total)
    return {"accuracy": right / total, "from": low, "to": high}


def rates_of(truth, predicted):
    """{"accuracy", "from", "to", "tpr", "tnr"} of two lists of 0 and 1; 1 (unsafe) is positive."""
    right = sum(one == other for one, other in zip(truth, predicted, strict=True))
    return {**accuracy_of(right, len(truth)), **counts(truth, predicted)}
