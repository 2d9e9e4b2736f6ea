"""What a detector's score means: a monotone map from its raw probability to a calibrated one.

Small networks end training sure of everything, and say "unsafe" less often than they should on
clips they have not seen. The map is Platt's: calibrated = sigmoid(a z + b), where z is the raw
log-odds and a > 0, so it never changes which of two clips looks worse. A detector has few
validation clips (7 unsafe, 31 normal in the tiny world), and often separates them perfectly. Then
the likelihood alone wants an endless slope, so the fit has a weak prior on (log a, b), which more
clips outweigh (benchmarks/detectors/calibration.py compares the alternatives).

Source: Platt, Probabilistic outputs for support vector machines, 1999.

The calibrated probability holds where unsafe clips of the detector's category and normal clips are
equally frequent, as in the batches that it was trained with, whatever their numbers among the
validation clips. Where a share q of the clips is unsafe instead, its log-odds grow by log(q / (1 -
q)).
"""

from dataclasses import asdict, dataclass, field

import numpy as np

from lvd.errors import ArgumentError, InputError

# Half of float32's spacing below 1: raw probabilities closer to 0 or 1 count as this close.
LIMIT = 2.0**-24
PRIOR = {"log_a": (-1.0, 0.7), "b": (0.0, 4.0)}  # (mean, standard deviation)
METHOD = "platt, prior " + ", ".join(
    f"{name} ~ N({mean:g}, {deviation:g})" for name, (mean, deviation) in PRIOR.items()
)


@dataclass(frozen=True)
class Calibration:
    """A map from raw to calibrated probabilities: sigmoid(a z + b) of the raw log-odds z.

    Attributes:
        a, b: slope and offset.
        method: how they were chosen.
        clips: {"unsafe": n, "normal": m}, how many clips it was fitted to; {}: not fitted.
    """

    a: float = 1.0
    b: float = 0.0
    method: str = "identity"
    clips: dict = field(default_factory=dict)

    def __call__(self, raw):
        """Return calibrated probabilities, float64, of raw ones of any shape.

        Those that are not finite stay so.
        """
        from scipy.special import expit

        return expit(self.a * log_odds(raw) + self.b)

    def raw(self, calibrated):
        """Return the raw probability that is mapped to `calibrated`: the threshold of the same
        votes."""
        from scipy.special import expit, logit

        return float(expit((logit(calibrated) - self.b) / self.a))

    @property
    def fitted(self):
        """Whether it was fitted to validation clips."""
        return bool(self.clips)


IDENTITY = Calibration()
ARGMAX = 0.5  # the released operating point: the class of the larger logit


def log_odds(probabilities):
    """Return log(p / (1 - p)), float64, of probabilities p of any shape.

    p is kept LIMIT away from 0 and 1.
    """
    from scipy.special import logit

    return logit(np.clip(np.asarray(probabilities, np.float64), LIMIT, 1 - LIMIT))


def fit_calibration(raw, labels):
    """Fit the calibration of a detector to its validation clips.

    It is the maximum of likelihood x PRIOR. The classes' numbers enter as an offset of the
    log-odds, so b = 0 means balanced classes.

    Args:
        raw: [N] raw probabilities.
        labels: [N], 1 for unsafe and 0 for normal.

    Returns:
        A Calibration; IDENTITY when a class is missing: nothing can be said then.

    Raises:
        InputError: a probability is not finite.
    """
    from scipy.optimize import minimize
    from scipy.special import expit, log_expit

    z = log_odds(raw)
    labels = np.asarray(labels)
    if not np.isfinite(z).all():
        raise InputError(
            "calibration: the detector's scores are not finite; train it again with a smaller lr"
        )
    unsafe = int((labels == 1).sum())
    normal = int((labels == 0).sum())
    if not unsafe or not normal:
        return IDENTITY
    offset = np.log(unsafe / normal)
    sign = np.where(labels == 1, 1.0, -1.0)
    mean, deviation = (np.array(column) for column in zip(*PRIOR.values()))

    def loss(parameters):
        slope = np.exp(parameters[0])
        v = slope * z + parameters[1] + offset
        off = (parameters - mean) / deviation
        wrong = -sign * expit(-sign * v)  # derivative of each clip's loss by its log-odds
        gradient = np.array([np.sum(wrong * slope * z), np.sum(wrong)]) + off / deviation
        return -log_expit(sign * v).sum() + (off**2).sum() / 2, gradient

    log_a, b = minimize(loss, mean, jac=True, method="BFGS").x
    clips = {"unsafe": unsafe, "normal": normal}
    return Calibration(float(np.exp(log_a)), float(b), METHOD, clips)


def to_dict(calibration):
    """Return a calibration as a detector file keeps it."""
    return asdict(calibration)


def from_dict(kept):
    """Return the Calibration that a checked detector file keeps.

    None, as older files without the field give, is IDENTITY.
    """
    if kept is None:
        return IDENTITY
    return Calibration(float(kept["a"]), float(kept["b"]), kept["method"], dict(kept["clips"]))


# ---- operating points: which raw probability is a vote for unsafe


OPERATING_POINTS = ("argmax", "validation", "calibrated")


def check_operating_point(value):
    """Read the operating point of a flag or YAML value.

    Returns:
        "argmax", "validation", "calibrated", or a float in (0, 1).

    Raises:
        InputError: it is anything else.
    """
    if value in OPERATING_POINTS:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or isinstance(value, bool) or not 0 < number < 1:
        raise ArgumentError(
            "operating_point",
            value,
            f": one of {', '.join(OPERATING_POINTS)}, or a calibrated probability between 0 and "
            "1, is needed",
        )
    return number


def raw_threshold(operating_point, validation, calibration, where):
    """Return a detector's threshold: it votes unsafe at this raw probability or above.

    Args:
        operating_point: see `check_operating_point`. "argmax" is a raw probability of 0.5,
            "calibrated" a calibrated probability of 0.5, a number any other calibrated one.
        validation: the threshold that the detector chose on its validation clips.
        calibration: of the detector.
        where: its file, for messages.

    Raises:
        InputError: a calibrated probability is asked for and the detector is not calibrated.
    """
    if operating_point == "argmax":
        return ARGMAX
    if operating_point == "validation":
        return validation
    if not calibration.fitted:
        raise ArgumentError(
            "operating_point",
            operating_point,
            f": {where} is not calibrated (it was trained before detectors were); train it again, "
            "or use argmax or validation",
        )
    return calibration.raw(0.5 if operating_point == "calibrated" else operating_point)
