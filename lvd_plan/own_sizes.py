"""How many videos a data set needs, and what to expect of a small one.

The steps after the sampling are asked themselves: the draw of the held-out videos, of those for
validation, of the folds and of the names, with the seeds that they will have.
"""

from dataclasses import dataclass

import numpy as np
import torch

from lvd.data.split import Split, make_split
from lvd.errors import InputError, plural
from lvd.training.folds import draw_parts
from lvd.training.names import need_others
from lvd.training.rows import MIN_CLIPS, split_rows
from lvd_plan.counts import FOLDS

LEAST = 1 + MIN_CLIPS  # videos of a category: 1 held out, 1 to learn from, 1 for validation
PROMISED = 59  # normal videos from which a rule can be promised to stop at most 5% of them
# Accuracy at lambda 0.6, eta 20 by the videos of each category: docs/results/small_sets.txt.
MEASURED = {3: (0.59, 0.64), 5: (0.74, 0.77), 10: (0.87, 0.92), 20: (0.93, 0.96)}


@dataclass(frozen=True)
class Drawn:
    """What a data set is drawn into.

    Attributes:
        split: Split.
        folds: whether FOLDS parts can be drawn, on which a rule is chosen.
        names: whether categories can be told from each other.
    """

    split: Split
    folds: bool
    names: bool


def draw(labels, normals, shared, names):
    """Draw a data set as the steps of reproduce.sh will.

    Args:
        labels: Labels.
        normals: how many normal videos there are.
        shared, names: SharedSettings and NamesSettings of the trainings.

    Returns:
        Drawn.

    Raises:
        InputError: there are too few videos to train on.
    """
    _need_enough(labels, normals)
    try:
        split = make_split(labels, list(range(normals)))
    except InputError as error:
        raise InputError(_shared_by_many(labels)) from error
    matrix = _matrix(labels, split, normals)
    if matrix.sum(0).min() < MIN_CLIPS:
        raise InputError(_shared_by_many(labels))
    try:
        _for_validation(matrix, shared)
        train = _for_validation(matrix, names)
    except InputError as error:
        raise InputError(f"{labels.path}: {error}") from error
    return Drawn(split, _folds(matrix, shared, labels), _names(matrix, train, labels))


def expectation(labels, drawn):
    """Return lines on what to expect of so many videos."""
    fewest = min(map(len, labels.columns))
    lines = []
    if fewest < 2 * max(MEASURED):
        size = max(known for known in MEASURED if known <= fewest)
        grid, shared = MEASURED[size]
        lines.append(
            f"a small set: with {size} videos of each category the tiny world's grid had an "
            f"accuracy of {grid:.2f} and its shared detector {shared:.2f} (a coin has 0.5; "
            "docs/your_prompts.md)"
        )
    if not drawn.folds:
        lines.append(
            f"no rule will be chosen: {FOLDS} videos of each category and {FOLDS} normal ones must "
            f"be left when some are held out ({FOLDS + 1} of a category are enough)"
        )
    elif (left := drawn.split.normal_rows - len(drawn.split.normal)) < PROMISED:
        lines.append(
            f"no rule can be promised to stop at most 5% of normal videos: {left} of them are not "
            f"held out, {PROMISED} or more are needed (docs/rules.md)"
        )
    return lines


def _need_enough(labels, normals):
    """InputError where categories or the normal videos are too few, however they are drawn."""
    few = [
        f"'{name[:40]}' has {len(column)}"
        for name, column in zip(labels.categories, labels.columns)
        if len(column) < LEAST
    ]
    uses = f"{LEAST} or more are needed (1 held out, 1 to learn from, 1 for validation)"
    if few:
        more = f" and {len(few) - 3} more" if len(few) > 3 else ""
        raise InputError(
            f"{labels.path}: too few videos of a category: {', '.join(few[:3])}{more}; {uses}: "
            "label more, or take the column out"
        )
    if normals < LEAST:
        raise InputError(f"--normal_prompts: {plural(normals, 'prompt')}, {uses}")


def _shared_by_many(labels):
    return (
        f"{labels.path}: categories share so many of their videos that one of them has fewer than "
        f"{MIN_CLIPS} left to train on when some are held out; label more videos"
    )


def _matrix(labels, split, normals):
    """Return float [N, G] of the videos that are not held out, unsafe before normal ones."""
    unsafe = sorted(set(labels.rows()) - set(split.unsafe))
    place = {row: k for k, row in enumerate(unsafe)}
    matrix = torch.zeros(len(unsafe) + normals - len(split.normal), len(labels.columns))
    for group, column in enumerate(labels.columns):
        matrix[[place[row] for row in column if row in place], group] = 1
    return matrix


def _for_validation(matrix, settings):
    """Return the positions of the videos to learn from."""
    rng = np.random.default_rng(settings.seed)
    return split_rows(matrix, settings.validation, rng)[0]


def _folds(matrix, settings, labels):
    """Whether the folds of a shared detector can be drawn and trained."""
    try:
        names = [*labels.categories, "normal"]
        parts = draw_parts(matrix.numpy(), FOLDS, settings.seed, names)
        for part in range(FOLDS):
            _for_validation(matrix[torch.from_numpy(parts != part)], settings)
    except InputError:
        return False
    return True


def _names(matrix, train, labels):
    """Whether each category has videos that it can be told from."""
    unsafe = int((matrix.sum(1) > 0).sum())
    try:
        need_others(matrix[train[train < unsafe]], labels.categories)
    except InputError:
        return False
    return True
