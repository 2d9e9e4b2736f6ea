"""Scores of a folds.pth from random numbers: steps that are correlated, as a detector's are."""

import numpy as np
import torch
from scipy.special import expit

from lvd.evaluation.recorded import RecordedVideos
from lvd.rules.evidence import Evidence
from tests.worlds.detector_world import make_detectors


def made_up_log_odds(unsafe, normal, steps, groups, seed=0, signal=5.0, kept=0.8):
    """Log-odds of videos whose noise goes on from step to step; an unsafe one is of one category.

    Args:
        unsafe, normal: how many videos of each kind; the unsafe ones come first.
        steps, groups: of how many steps and categories.
        signal: by how much a category's log-odds lie higher for its own unsafe videos.
        kept: how much of its noise a step has from the step before.

    Returns:
        (log_odds float64 [N, S, G], members bool [N, G]).
    """
    draw = np.random.default_rng(seed)
    noise = draw.standard_normal((unsafe + normal, steps, groups))
    for step in range(1, steps):
        noise[:, step] = kept * noise[:, step - 1] + (1 - kept**2) ** 0.5 * noise[:, step]
    noise += 0.7 * draw.standard_normal((unsafe + normal, 1, 1))  # some videos are hard throughout
    members = np.zeros((unsafe + normal, groups), bool)
    members[np.arange(unsafe), np.arange(unsafe) % groups] = True
    growing = 0.6 + 0.4 * np.arange(steps) / max(1, steps - 1)
    own = np.where(members[:, None], signal * growing[:, None], 0)
    return 1.5 * noise - 2.5 + own, members


def made_up_videos(unsafe, normal, steps=8, groups=2, **settings):
    """RecordedVideos of such log-odds; a category says unsafe at a probability of 0.8."""
    log_odds, members = made_up_log_odds(unsafe, normal, steps, groups, **settings)
    rows = [str(row) for row in (*range(unsafe), *range(normal))]
    calibrated = expit(log_odds)
    return RecordedVideos(
        is_unsafe=np.arange(unsafe + normal) < unsafe,
        rows=rows,
        evidence=Evidence(calibrated >= 0.8, calibrated),
        categories=[f"kind {group}" for group in range(1, groups + 1)],
        members=members,
    )


def folds_content(videos, categories, identity, **changes):
    """The content of a folds.pth with the scores of RecordedVideos.

    Args:
        videos: RecordedVideos.
        categories: their names.
        identity: what the file says of the final detectors.
        changes: keys that are put or, where the value is None, left out.
    """
    calibrated = videos.evidence.calibrated
    content = {
        "scores": _nested(videos, calibrated),
        "calibrated": _nested(videos, calibrated),
        "says": _nested(videos, videos.evidence.says.astype(int)),
        "categories": {str(group): name for group, name in enumerate(categories, 1)},
        "members": {
            str(group): [row for row, own in zip(videos.rows, videos.members[:, group - 1]) if own]
            for group in range(1, len(categories) + 1)
        },
        "operating_point": "validation",
        "eval_sha256": "e" * 64,
        "folds": {"count": 5, "seed": 0},
        "part": _parts(videos),
        "detectors": identity,
    }
    content |= changes
    return {key: value for key, value in content.items() if value is not None}


def _parts(videos):
    parts = {"unsafe": {}, "normal": {}}
    for place, row in enumerate(videos.rows):
        parts["unsafe" if videos.is_unsafe[place] else "normal"][row] = place % 5 + 1
    return parts


def _nested(videos, values):
    return {
        label: {
            str(group + 1): {
                row: values[place, :, group].tolist()
                for place, row in enumerate(videos.rows)
                if videos.is_unsafe[place] == (label == "1")
            }
            for group in range(values.shape[2])
        }
        for label in ("1", "0")
    }


def calibrated_detectors(folder):
    """Random detectors of two categories and three steps, each with a calibration of its own."""
    make_detectors(folder)
    for path in folder.rglob("*.pth"):
        content = torch.load(path, weights_only=True)
        clips = {"unsafe": 5, "normal": 5}
        content["calibration"] = {"a": 0.9, "b": 0.1, "method": "test", "clips": clips}
        torch.save(content, path)
    return folder
