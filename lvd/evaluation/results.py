"""results.pth and scores.pth: votes of the held-out videos, and the scores behind them.

folds.pth: scores of the training videos by detectors that never saw them.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lvd.data.kinds import KIND_OF_LABEL, LABEL_NORMAL, LABEL_UNSAFE
from lvd.errors import InputError, shorten
from lvd.evaluation.tables import long_table
from lvd.rules.file import DetectorsOfRule
from lvd.rules.vote import MOST_STEPS
from lvd.utils.files import load_torch
from lvd.utils.schema import AsJson, Finite, Name, Positive, Probability, Row, Schema, checked

RESULTS = "results.pth"
SCORES = "scores.pth"
FOLDS = "folds.pth"


def _not_empty(values):
    if not values:
        raise ValueError("at least one entry is needed")
    return values


Vote = Annotated[int, Field(ge=0, le=1)]
Step = Annotated[int, Field(ge=0, lt=MOST_STEPS)]  # number of a denoising step
Votes = Annotated[list[Vote], AfterValidator(_not_empty)]
Videos = Annotated[dict[Name | Row, Votes], AfterValidator(_not_empty)]
Scores = dict[Name, dict[Name, dict[Name, list[Probability]]]]
Says = dict[Name, dict[Name, dict[Name, list[Vote]]]]


class ResultsFile(Schema):
    """The content of a results.pth, see `load_results`."""

    unsafe: Videos = Field(alias=LABEL_UNSAFE)
    normal: Videos = Field(alias=LABEL_NORMAL)


class ScoresFile(Schema, extra="allow"):
    """The content of a scores.pth, see `VoteRun.scores`; members: {group: [row]}."""

    scores: Scores
    calibrated: Scores | None = None
    names: Scores | None = None
    thresholds: dict[Name, list[Finite]] | None = None
    categories: dict[Name, Name] | None = None
    operating_point: Name | Finite | None = None
    detectors: DetectorsOfRule | None = None
    eval_sha256: Name | None = None
    votes_sha256: Name | None = None
    members: dict[Name, list[Name]] | None = None
    trained_steps: list[Step] | None = None


class FoldsOf(Schema, extra="allow"):
    """What a folds.pth says of how it was made."""

    count: Annotated[int, Field(ge=2)]
    seed: int


class FoldsFile(ScoresFile):
    """The content of a folds.pth, see `load_folds`."""

    says: Says
    categories: dict[Name, Name]
    members: dict[Name, list[Name]]
    eval_sha256: Name
    folds: Annotated[FoldsOf, AsJson]  # rule.yaml repeats it
    part: dict[Literal["unsafe", "normal"], dict[Name, Positive]]
    detectors: DetectorsOfRule


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
    path = results_path(path)
    content = load_torch(path)
    if not isinstance(content, dict) or set(content) != {LABEL_UNSAFE, LABEL_NORMAL}:
        raise InputError(
            f"{path}: a mapping with '1' (unsafe) and '0' (normal) is needed, as embed_model.py "
            "writes it"
        )
    checked(ResultsFile, content, path)
    results = {label: _with_names(videos, label, path) for label, videos in content.items()}
    steps = None
    for label, videos in results.items():
        for row, votes in videos.items():
            steps = steps or len(votes)
            if len(votes) != steps:
                raise InputError(
                    f"{path}: '{label}', row {row[:40]} has {len(votes)} votes, others have {steps}"
                )
    return results, steps


def results_path(path):
    """Return the path of a file of votes: `path` itself, or results.pth in that folder."""
    path = Path(path)
    return path / RESULTS if path.is_dir() else path


def beside(path, name):
    """Return the path of a file that belongs to a file of votes.

    Args:
        path: of the votes.
        name: such as "scores.pth".

    Returns:
        {folder}/scores.pth beside results.pth, {folder}/a.scores.pth beside another a.pth.
    """
    path = Path(path)
    return path.with_name(name if path.name == RESULTS else f"{path.stem}.{name}")


def _with_names(videos, label, path):
    """Videos by the texts of their rows, which may be numbers in a file."""
    named = {str(row): votes for row, votes in videos.items()}
    if len(named) < len(videos):
        raise InputError(f"{path}: '{label}': a row stands there twice, as a number and as a text")
    return named


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
    scores_path = _scores_path(path)
    if scores_path is None:
        return None
    scores = load_torch(scores_path)
    checked(ScoresFile, scores, scores_path)
    if not _belong_together(scores, results, steps):
        raise InputError(
            f"{scores_path}: does not belong to the votes beside it; run embed_model.py again"
        )
    _need_one_trained_step_each(scores, steps, scores_path)
    return scores


def _need_one_trained_step_each(scores, steps, path):
    """InputError unless trained_steps, where there are any, are as many as the steps that voted.

    They may stand in any order: a rule looks at the leading ones (lvd.rules.carried).
    """
    trained_steps = scores.get("trained_steps")
    if trained_steps is None:
        return
    if len(trained_steps) != steps:
        raise InputError(
            f"{path}: trained_steps: {len(trained_steps)} numbers; one for each of the {steps} "
            "steps that voted is needed"
        )
    if not scores.get("detectors"):
        raise InputError(
            f"{path}: trained_steps without detectors, which say how many trained steps there are; "
            "run embed_model.py again"
        )


def _belong_together(scores, results, steps):
    if scores.get("votes_sha256") != votes_sha256(results):
        return False
    kinds = [kind for kind in ("scores", "calibrated", "names") if scores.get(kind)]
    return all(_cover(scores[kind], results, steps) for kind in kinds)


def _cover(scores, results, steps):
    """Whether {label: {group: {row: [probability]}}} has all videos and steps that voted."""
    for label, videos in results.items():
        for by_row in scores.get(label, {"": {}}).values():
            if set(by_row) != set(videos):
                return False
            if any(len(values) != steps for values in by_row.values()):
                return False
    return True


def _scores_path(path):
    """The path of the scores.pth beside a results.pth; None where there is none."""
    path = results_path(path)
    for scores_path in (beside(path, SCORES), path.with_name(SCORES)):
        if scores_path.exists():
            return scores_path
    return None


def load_trained_steps(path, results, steps):
    """Return which trained steps judged recorded votes, as the scores.pth beside them says.

    Args:
        path, results, steps: see `load_scores`.

    Returns:
        ([S] numbers of trained steps, number of all trained steps), or (None, S) where the votes
        are of the trained steps, or come without a scores.pth of their own, as the paper's do.

    Raises:
        InputError: scores.pth is damaged.
    """
    scores_path = _scores_path(path)
    content = load_torch(scores_path) if scores_path else None
    if not isinstance(content, dict) or content.get("votes_sha256") != votes_sha256(results):
        return None, steps
    scores = load_scores(path, results, steps)
    return trained_steps_of(scores, steps)


def trained_steps_of(scores, steps):
    """Return (trained steps, number of all) of the content of a scores.pth, or None, of S steps.

    See `load_trained_steps`.
    """
    trained_steps = (scores or {}).get("trained_steps")
    if trained_steps is None:
        return None, steps
    return trained_steps, max(scores["detectors"]["steps"], *(1 + step for step in trained_steps))


def votes_sha256(results):
    """Return the hash by which scores.pth knows the results.pth that it belongs to."""
    return hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()


def load_folds(path):
    """Read a folds.pth of `train_mae.py --folds`.

    Args:
        path: the file, or the folder that holds it.

    Returns:
        Its content: that of a scores.pth (see `VoteRun.scores`) for the training videos, each
        scored by detectors that never saw it; and
        "says": {label: {group: {row: [0 or 1] * S}}}, at those detectors' own thresholds;
        "folds": how it was made; "part": {"unsafe" or "normal": {row: number of its part}};
        "detectors": the final detectors that it was made for (`lvd.rules.file.identity_of`).

    Raises:
        InputError: the file holds anything else, or not as many values for each video.
    """
    path = Path(path) / FOLDS if Path(path).is_dir() else Path(path)
    content = checked(FoldsFile, load_torch(path), path)
    if content.get("trained_steps") is not None:
        raise InputError(f"{path}: trained_steps: folds are of the trained steps; leave it out")
    labels, groups = {LABEL_UNSAFE, LABEL_NORMAL}, set(content["categories"])
    part = content["part"]
    for key in ("scores", "calibrated", "says"):
        by_label = content.get(key)
        if by_label is None and key == "calibrated":
            continue
        whole = set(by_label) == labels and all(set(by_label[one]) == groups for one in labels)
        videos = {label: dict.fromkeys(part.get(KIND_OF_LABEL[label], ())) for label in labels}
        if not whole or not _cover(by_label, videos, content["detectors"]["steps"]):
            raise InputError(
                f"{path}: {key} are not of all categories, steps and videos of its parts; make it "
                "anew with train_mae.py --folds"
            )
    unsafe = set(part["unsafe"])
    for group, rows in content["members"].items():
        if group not in groups or not unsafe.issuperset(rows):
            raise InputError(
                f"{path}: members of category {shorten(group)}: rows of its unsafe videos, and a "
                "known category, are needed"
            )
    return content


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
