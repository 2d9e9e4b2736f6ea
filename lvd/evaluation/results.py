"""results.pth and scores.pth: votes of the held-out videos, and the scores behind them."""

import hashlib
import json
from pathlib import Path

from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.errors import InputError
from lvd.evaluation.tables import long_table
from lvd.utils.files import load_torch

RESULTS = "results.pth"
SCORES = "scores.pth"


def load_results(path):
    """Read the votes of a results.pth.

    Args:
        path: the file, or the folder that holds it.

    Returns:
        ({"1": {row: [vote] * S}, "0": {...}}, S): votes of unsafe and of normal videos, 0 or 1
        for each of S denoising steps.

    Raises:
        InputError: the file holds anything else.
    """
    path = Path(path)
    path = path / RESULTS if path.is_dir() else path
    results = load_torch(path)
    if not _has_both_labels(results):
        raise InputError(
            f"{path}: a mapping with '1' (unsafe) and '0' (normal) is needed, as embed_model.py "
            "writes it"
        )
    steps = None
    for label, videos in results.items():
        if not videos:
            raise InputError(f"{path}: no videos under '{label}'")
        for row, votes in videos.items():
            if not _are_votes(votes):
                raise InputError(f"{path}: votes of '{label}', row {row} are not a list of 0 and 1")
            steps = steps or len(votes)
            if len(votes) != steps:
                raise InputError(
                    f"{path}: '{label}', row {row} has {len(votes)} votes, others have {steps}"
                )
    return results, steps


def _has_both_labels(results):
    if not isinstance(results, dict) or set(results) != {LABEL_UNSAFE, LABEL_NORMAL}:
        return False
    return all(isinstance(videos, dict) for videos in results.values())


def _are_votes(votes):
    if not isinstance(votes, list) or not votes:
        return False
    return all(type(vote) is int and vote in (0, 1) for vote in votes)


def load_scores(path, results, steps):
    """Read the scores.pth beside a results.pth.

    Args:
        path: the results.pth, or the folder that holds it.
        results, steps: what `load_results` returned.

    Returns:
        The content of scores.pth (see `VoteRun.scores`), or None when there is no such file.

    Raises:
        InputError: the scores belong to other votes.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    if not (folder / SCORES).exists():
        return None
    scores = load_torch(folder / SCORES)
    if not _belong_together(scores, results, steps):
        raise InputError(
            f"{folder / SCORES}: does not belong to the votes beside it; run embed_model.py again"
        )
    return scores


def _belong_together(scores, results, steps):
    if not isinstance(scores, dict) or "scores" not in scores:
        return False
    if scores.get("votes_sha256") != votes_sha256(results):
        return False
    kinds = [kind for kind in ("scores", "calibrated") if kind in scores]
    return all(_cover(scores[kind], results, steps) for kind in kinds)


def _cover(scores, results, steps):
    """Whether {label: {group: {row: [probability]}}} has all videos and steps that voted."""
    if not isinstance(scores, dict):
        return False
    for label, videos in results.items():
        for by_row in scores.get(label, {"": {}}).values():
            if set(by_row) != set(videos):
                return False
            if any(len(values) != steps for values in by_row.values()):
                return False
    return True


def votes_sha256(results):
    """Return the hash by which scores.pth knows the results.pth that it belongs to."""
    return hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()


def vote_table(results):
    """Return the votes of a results.pth as a long table: label, row, step, vote."""
    return long_table(results, ["label", "row", "step", "vote"])


def score_table(scores):
    """Return the probabilities of a scores.pth as a long table.

    Its columns are label, group, row, step, raw and, where the file has them, calibrated.
    """
    keys = ["label", "group", "row", "step"]
    table = long_table(scores["scores"], [*keys, "raw"])
    if "calibrated" not in scores:
        return table
    calibrated = long_table(scores["calibrated"], [*keys, "calibrated"])
    return table.merge(calibrated, how="left", on=keys)
