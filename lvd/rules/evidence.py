"""Evidence: what the detectors said of some videos at the steps that are over."""

from dataclasses import dataclass

import numpy as np

from lvd.errors import InputError


@dataclass(frozen=True)
class Evidence:
    """What the detectors said of N videos at their first n steps, by G categories.

    Attributes:
        says: bool [N, n, G], whether a category's detector says unsafe at its threshold.
        calibrated: float64 [N, n, G], calibrated probabilities; None where a detector has no
            calibration.

    Raises:
        InputError: the two are not of one shape, or a value is no probability: what cannot be
            compared with a bound would pass for safe.
    """

    says: np.ndarray
    calibrated: np.ndarray | None = None

    def __post_init__(self):
        if self.says.ndim != 3:
            raise InputError(f"says of shape {list(self.says.shape)}: [N, n, G] is needed")
        if self.calibrated is None:
            return
        if self.calibrated.shape != self.says.shape:
            raise InputError(
                f"calibrated probabilities of shape {list(self.calibrated.shape)}: that of says, "
                f"{list(self.says.shape)}, is needed"
            )
        if not ((self.calibrated >= 0) & (self.calibrated <= 1)).all():  # False for NaN
            raise InputError("a calibrated value is no probability; one from 0 to 1 is needed")

    @property
    def steps(self):
        """How many steps are over."""
        return self.says.shape[1]

    def first(self, steps):
        """Return the evidence of the first `steps` steps."""
        calibrated = None if self.calibrated is None else self.calibrated[:, :steps]
        return Evidence(self.says[:, :steps], calibrated)

    def of(self, videos):
        """Return the evidence of some videos; `videos`: positions, a slice or bool [N]."""
        calibrated = None if self.calibrated is None else self.calibrated[videos]
        return Evidence(self.says[videos], calibrated)

    def by(self, columns):
        """Return the evidence by some of the categories; `columns`: their positions."""
        columns = list(columns)
        calibrated = None if self.calibrated is None else self.calibrated[..., columns]
        return Evidence(self.says[..., columns], calibrated)
