"""Evidence: what the detectors said of some videos at the steps that are over."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Evidence:
    """What the detectors said of N videos at their first n steps, by G categories.

    Attributes:
        says: bool [N, n, G], whether a category's detector says unsafe at its threshold.
        calibrated: float64 [N, n, G], calibrated probabilities; None where a detector has no
            calibration.
    """

    says: np.ndarray
    calibrated: np.ndarray | None = None

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
