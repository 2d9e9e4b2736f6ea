"""Recorded videos as rules see them: the evidence of each, and what each really is."""

from dataclasses import dataclass

import numpy as np

from lvd.data.kinds import KIND_OF_LABEL, LABEL_NORMAL, LABEL_UNSAFE
from lvd.errors import InputError
from lvd.evaluation.categories import category_names, members_of
from lvd.evaluation.results import trained_steps_of
from lvd.rules.evidence import Evidence


@dataclass(frozen=True)
class RecordedVideos:
    """N videos whose scores were recorded at all S steps, the unsafe ones first.

    Attributes:
        is_unsafe: bool [N].
        rows: [N] of texts, each video's number in its recording.
        evidence: Evidence of N videos at S steps.
        categories: [G] names, in the order of the evidence.
        members: bool [N, G], which categories an unsafe video is of; None where this is not known.
        named: float64 [N, S, G], how probable names.pth finds each category; None without it.
        trained_steps: [S] numbers of the trained steps that judged the steps; None: the steps are
            the trained ones.
        of_trained: how many trained steps there are; None: as many as steps.
    """

    is_unsafe: np.ndarray
    rows: list
    evidence: Evidence
    categories: list
    members: np.ndarray | None = None
    named: np.ndarray | None = None
    trained_steps: list | None = None
    of_trained: int | None = None

    @property
    def trained_count(self):
        """How many trained steps there are: no rule looks at more."""
        return self.of_trained or self.steps

    @property
    def steps(self):
        """Denoising steps of the whole sampling."""
        return self.evidence.steps

    def names(self):
        """Return [N] of what tables call the videos, such as "unsafe 12"."""
        kinds = [KIND_OF_LABEL[LABEL_UNSAFE if one else LABEL_NORMAL] for one in self.is_unsafe]
        return [f"{kind} {row}" for kind, row in zip(kinds, self.rows, strict=True)]


def recorded_videos(scores, where="scores.pth"):
    """Return the RecordedVideos of a scores.pth.

    Args:
        scores: its checked content (lvd.evaluation.results).
        where: what messages call it.

    Returns:
        RecordedVideos. A category says unsafe where `says` of the file has a 1; where the file has
        no `says`, where the raw probability is at or above the category's threshold of that step.

    Raises:
        InputError: the file has neither, or it is not of as many values for each video.
    """
    known = members_of(scores)
    names = category_names(scores)
    groups, rows = _places(scores)
    raw = raw_scores(scores, where)
    calibrated = None
    if scores.get("calibrated"):
        calibrated = _array(scores["calibrated"], groups, rows, where)
    if scores.get("says"):
        says = _array(scores["says"], groups, rows, where).astype(bool)
    elif scores.get("thresholds"):
        says = raw >= thresholds_of(scores, raw.shape[1], where)
    else:
        raise InputError(f"{where}: thresholds are missing; run embed_model.py again")
    trained_steps, of_trained = trained_steps_of(scores, raw.shape[1])
    members = None
    if known:
        of_row = {row: place for place, (label, row) in enumerate(rows) if label == LABEL_UNSAFE}
        members = np.zeros((len(rows), len(groups)), bool)
        for column, group in enumerate(groups):
            members[[of_row[row] for row in known.get(group, [])], column] = True
    return RecordedVideos(
        is_unsafe=np.array([label == LABEL_UNSAFE for label, _ in rows]),
        rows=[row for _, row in rows],
        evidence=Evidence(says, calibrated),
        categories=[names[group] for group in groups],
        members=members,
        named=_array(scores["names"], groups, rows, where) if scores.get("names") else None,
        trained_steps=trained_steps,
        of_trained=of_trained,
    )


def raw_scores(scores, where="scores.pth"):
    """Return the raw probabilities of a scores.pth, float64 [N, S, G].

    Videos and categories are in the order of its `recorded_videos`.

    Raises:
        InputError: there are not as many values for each video.
    """
    return _array(scores["scores"], *_places(scores), where)


def thresholds_of(scores, steps, where):
    """Return the thresholds of a scores.pth, float64 [S, G].

    Raises:
        InputError: there is not one for each step and category.
    """
    groups = sorted(scores["scores"][LABEL_UNSAFE], key=int)
    thresholds = [scores["thresholds"].get(group, ()) for group in groups]
    if any(len(by_step) != steps for by_step in thresholds):
        raise InputError(f"{where}: thresholds: one for each step and category is needed")
    return np.array(thresholds, np.float64).T


def _places(scores):
    """([group], [(label, row)]) in the order of arrays: the unsafe videos first."""
    groups = sorted(category_names(scores), key=int)
    by_label = scores["scores"]
    labels = [label for label in (LABEL_UNSAFE, LABEL_NORMAL) if by_label.get(label)]
    return groups, [(label, row) for label in labels for row in by_label[label][groups[0]]]


def _array(by_label, groups, rows, where):
    """Return {label: {group: {row: [value] * S}}} as float64 [N, S, G]."""
    try:
        values = [[by_label[label][group][row] for group in groups] for label, row in rows]
        return np.moveaxis(np.array(values, np.float64), 1, 2)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{where}: not as many values for each video and category; run embed_model.py again"
        ) from error
