"""results.pth, scores.pth and folds.pth of made-up scores, small enough to be judged by hand."""

import numpy as np
from scipy.special import expit

from lvd.evaluation.results import votes_sha256
from lvd.utils.files import save_torch

GROUPS = {"1": "warped", "2": "banner"}
THRESHOLD = 0.7


def identity(steps, sha256="a" * 64):
    """What the files say of the detectors."""
    return {
        "kind": "shared",
        "sha256": sha256,
        "calibration_sha256": "c" * 64,
        "categories": list(GROUPS.values()),
        "steps": steps,
    }


def made_up_scores(unsafe, normal, steps, seed):
    """Content of a scores.pth, without its votes; unsafe video n is of category 1 + n % 2."""
    draw = np.random.default_rng(seed)
    scores, members = {}, {"1": [], "2": []}
    for label, count in (("1", unsafe), ("0", normal)):
        of_label = {}
        for group in GROUPS:
            of_label[group] = {}
            for row in range(count):
                own = label == "1" and row % 2 == int(group) - 1
                odds = draw.normal(1.4 if own else -1.8, 1.5, steps) + draw.normal(0, 1.2)
                of_label[group][str(10 * row)] = expit(odds).tolist()
                if own:
                    members[group].append(str(10 * row))
        scores[label] = of_label
    return {
        "scores": scores,
        "calibrated": scores,
        "thresholds": {group: [THRESHOLD] * steps for group in GROUPS},
        "categories": GROUPS,
        "operating_point": "validation",
        "members": members,
        "detectors": identity(steps),
    }


def says_of(scores):
    """{label: {group: {row: [0 or 1] * S}}} at THRESHOLD."""
    return {
        label: {
            group: {row: [int(value >= THRESHOLD) for value in values] for row, values in by_row}
            for group, by_row in ((group, part.items()) for group, part in by_group.items())
        }
        for label, by_group in scores["scores"].items()
    }


def write_recording(folder, unsafe=9, normal=12, steps=6, seed=6, **changes):
    """Write results.pth and scores.pth, and return both; a change of None leaves a key out."""
    scores = made_up_scores(unsafe, normal, steps, seed) | changes
    scores = {key: value for key, value in scores.items() if value is not None}
    results = {}
    for label, by_group in says_of(scores).items():
        results[label] = {
            row: [max(votes) for votes in zip(*(by_group[group][row] for group in GROUPS))]
            for row in by_group["1"]
        }
    scores["votes_sha256"] = votes_sha256(results)
    folder.mkdir(exist_ok=True)
    save_torch(results, folder / "results.pth")
    save_torch(scores, folder / "scores.pth")
    return results, scores


def write_folds(path, unsafe=14, normal=18, steps=6, seed=5, **changes):
    """Write a folds.pth, and return its content."""
    scores = made_up_scores(unsafe, normal, steps, seed)
    del scores["thresholds"]
    kinds = {"unsafe": "1", "normal": "0"}
    part = {
        kind: {row: 1 + place % 2 for place, row in enumerate(scores["scores"][label]["1"])}
        for kind, label in kinds.items()
    }
    scores |= {
        "says": says_of(scores),
        "eval_sha256": "e" * 64,
        "folds": {"count": 2, "seed": 0},
        "part": part,
    }
    scores |= changes
    save_torch(scores, path)
    return scores
