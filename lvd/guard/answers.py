"""What the detectors of one step say of running videos."""

from dataclasses import dataclass

from lvd.voting import says_unsafe


@dataclass(frozen=True)
class Answer:
    """What the detectors of one step say of one video, [G] each.

    Attributes:
        scores: raw probabilities of unsafe.
        says: 0/1, whether a score is at or above its threshold.
        calibrated: calibrated probabilities; the raw one of a detector without a calibration.
    """

    scores: list
    says: list
    calibrated: list

    def is_sound(self, columns):
        """Whether the answers of these categories can be compared with a bound."""
        numbers = [kind[column] for kind in (self.scores, self.calibrated) for column in columns]
        return all(map(is_probability, numbers))


def ask(bank, step, clips, thresholds, level=None):
    """Ask the detectors of one step.

    Args:
        bank: lvd.detectors.bank.Bank.
        step: number of the trained step.
        clips: [n, C, F, H, W], as lvd.guard.reader.Reader makes them.
        thresholds: [G], the raw probabilities from which on a category says unsafe.
        level: noise level of the clips; None: that of the trained step.

    Returns:
        [n] of Answer.
    """
    at_level = {} if level is None else {"level": level}
    scores_of_videos = bank.score(step, clips, **at_level).tolist()
    calibrated_of_videos = bank.calibrated(step, scores_of_videos).tolist()
    return [
        Answer(scores, list(map(says_unsafe, scores, thresholds)), calibrated)
        for scores, calibrated in zip(scores_of_videos, calibrated_of_videos, strict=True)
    ]


def is_probability(number):
    """Whether a detector's answer can be compared with a threshold."""
    return 0 <= number <= 1  # False for NaN
