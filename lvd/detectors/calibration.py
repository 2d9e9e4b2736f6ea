"""What a detector's score means: a monotone map from its raw probability to a calibrated one.

Small networks end training sure of everything, and say "unsafe" less often than they should on
clips they have not seen. The map is Platt's (Probabilistic outputs for support vector machines,
1999), calibrated = sigmoid(a z + b) with z the raw log-odds and a > 0, so it never changes which of
two clips looks worse. A detector has few validation clips (7 unsafe, 31 normal in the tiny world),
which it often separates perfectly; then the likelihood alone wants an endless slope, so the fit has
a weak prior on (log a, b), which more clips outweigh (benchmarks/calibration.py compares the
alternatives).

The calibrated probability holds where unsafe clips of the detector's category and normal clips are
equally frequent, as in the batches that it was trained with, whatever their numbers among the
validation clips. Where a share q of the clips is unsafe instead, its log-odds grow by log(q / (1 -
q)).
"""

from dataclasses import asdict, dataclass, field

import numpy as np

from lvd.errors import InputError

LIMIT = (
    2.0**-24
)  # half of float32's spacing below 1: raw probabilities closer to 0 or 1 count as this close
PRIOR = {"log_a": (-1.0, 0.7), "b": (0.0, 4.0)}  # (mean, standard deviation)
METHOD = "platt, prior " + ", ".join(
    f"{name} ~ N({mean:g}, {deviation:g})" for name, (mean, deviation) in PRIOR.items()
)


@dataclass(frozen=True)
class Calibration:
    """Map of raw probabilities. clips: {"unsafe": n, "normal": m}, how many it was fitted to; {}:
    not fitted."""

    a: float = 1.0
    b: float = 0.0
    method: str = "identity"
    clips: dict = field(default_factory=dict)

    def __call__(self, raw):
        """Calibrated probabilities, float64 of the shape of `raw` (probabilities; not finite ones
        stay so)."""
        from scipy.special import expit

        return expit(self.a * log_odds(raw) + self.b)

    def raw(self, calibrated):
        """The raw probability, a float, that is mapped to `calibrated`: the threshold of the same
        votes."""
        from scipy.special import expit, logit

        return float(expit((logit(calibrated) - self.b) / self.a))

    @property
    def fitted(self):
        return bool(self.clips)


IDENTITY = Calibration()


def log_odds(probabilities):
    """log(p / (1 - p)), float64; p is kept LIMIT away from 0 and 1."""
    from scipy.special import logit

    return logit(np.clip(np.asarray(probabilities, np.float64), LIMIT, 1 - LIMIT))


def fit_calibration(raw, labels):
    """Calibration of a detector from its validation clips. raw: probabilities [N]; labels: 1
    unsafe, 0 normal [N].

    The maximum of likelihood x PRIOR. The classes' numbers enter as an offset of the log-odds, so b
    = 0 means balanced classes. IDENTITY when a class is missing: nothing can be said then.
    """
    from scipy.optimize import minimize
    from scipy.special import expit, log_expit

    z, labels = log_odds(raw), np.asarray(labels)
    if not np.isfinite(z).all():
        raise InputError(
            "calibration: the detector's scores are not finite; train it again with a smaller --lr"
        )
    unsafe, normal = int((labels == 1).sum()), int((labels == 0).sum())
    if not unsafe or not normal:
        return IDENTITY
    offset, sign = np.log(unsafe / normal), np.where(labels == 1, 1.0, -1.0)
    mean, deviation = (np.array(column) for column in zip(*PRIOR.values()))

    def loss(parameters):
        slope = np.exp(parameters[0])
        v = slope * z + parameters[1] + offset
        off = (parameters - mean) / deviation
        wrong = -sign * expit(-sign * v)  # derivative of each clip's loss by its log-odds
        gradient = np.array([np.sum(wrong * slope * z), np.sum(wrong)]) + off / deviation
        return -log_expit(sign * v).sum() + (off**2).sum() / 2, gradient

    found = minimize(loss, mean, jac=True, method="BFGS").x
    return Calibration(
        float(np.exp(found[0])), float(found[1]), METHOD, {"unsafe": unsafe, "normal": normal}
    )


def to_dict(calibration):
    """As a detector file keeps it."""
    return asdict(calibration)


def from_dict(found, where):
    """Calibration of a detector file's field; None, as files without the field give, is IDENTITY."""
    if found is None:
        return IDENTITY
    try:
        calibration = Calibration(
            float(found["a"]), float(found["b"]), str(found["method"]), dict(found["clips"])
        )
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(
            f"{where}: calibration {found!r}; a, b, method and clips are needed"
        ) from error
    if not (np.isfinite([calibration.a, calibration.b]).all() and calibration.a > 0):
        raise InputError(
            f"{where}: calibration a {calibration.a}, b {calibration.b}; finite numbers, a > 0, "
            "are needed"
        )
    return calibration


# ---- operating points: which raw probability is a vote for unsafe


OPERATING_POINTS = ("argmax", "validation", "calibrated")


def check_operating_point(value):
    """ "argmax", "validation", "calibrated", or a number in (0, 1) as a float, of a flag or YAML
    value."""
    if value in OPERATING_POINTS:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = None
    if number is None or isinstance(value, bool) or not 0 < number < 1:
        raise InputError(
            f"operating_point {value!r}: one of {', '.join(OPERATING_POINTS)}, or a calibrated "
            "probability between 0 and 1, is needed"
        )
    return number


def raw_threshold(operating_point, validation, calibration, where):
    """The raw probability from which on a detector votes unsafe.

    validation: the threshold that it chose on its validation clips; where: its file, for messages.
    "calibrated" is a calibrated probability of 0.5, a number any other one; InputError when the
    detector is not calibrated.
    """
    if operating_point == "argmax":
        return 0.5
    if operating_point == "validation":
        return validation
    if not calibration.fitted:
        raise InputError(
            f"--operating_point {operating_point}: {where} is not calibrated (it was trained "
            "before detectors were); train it again, or use argmax or validation"
        )
    return calibration.raw(0.5 if operating_point == "calibrated" else operating_point)
