"""Which videos are trained on and which are kept for validation; never the held-out ones."""

from dataclasses import dataclass

import numpy as np
import torch

from lvd.data.kinds import KINDS
from lvd.errors import InputError, plural

MIN_CLIPS = 2  # one to train on, one for validation
TRIES = 200  # draws of the validation videos, should small categories overlap


@dataclass(frozen=True)
class Rows:
    """The videos of a training at all steps.

    Attributes:
        videos: [("unsafe" or "normal", row)], unsafe first.
        labels: float32 [N, G], 1 where the video is of that category.
    """

    videos: list
    labels: torch.Tensor

    def of_kind(self, kind):
        """Return the row numbers of the "unsafe" or of the "normal" videos."""
        return [row for own_kind, row in self.videos if own_kind == kind]

    def by_kind(self):
        """Return {"unsafe": [row, ...], "normal": [row, ...]}."""
        return {kind: self.of_kind(kind) for kind in KINDS}


def rows_to_train(source, group, step, split, settings):
    """Return the rows of one detector of the grid, without the held-out ones.

    Args:
        source: of the clips.
        group, step: of the detector.
        split: Split.
        settings: GridSettings; with normals "balanced" as many normal rows as unsafe ones are
            drawn, the same at every step.

    Returns:
        {"unsafe": [row, ...], "normal": [row, ...]}.

    Raises:
        InputError: too few rows.
    """
    unsafe = _without(source.group_rows(group, step), split.unsafe)
    normal = _without(source.rows("normal", step), split.normal)
    _need_clips(source.group_place(group, step), unsafe)
    _need_clips(source.place("normal", step), normal)
    if settings.normals == "balanced" and len(normal) > len(unsafe):
        rng = np.random.default_rng([settings.seed, group])
        normal = sorted(rng.choice(normal, len(unsafe), replace=False).tolist())
    return {"unsafe": unsafe, "normal": normal}


def rows_for_all(source, split, steps):
    """Return the Rows of all labelled videos that are not held out.

    Raises:
        InputError: a category or the normal videos have too few of them, or a video is not at
            every step.
    """
    unsafe_by_group = {}
    for group in source.groups:
        rows = _same_at_all(source.group_rows, group, steps, source.group_place)
        unsafe_by_group[group] = _without(rows, split.unsafe)
    normal = _without(_same_at_all(source.rows, "normal", steps, source.place), split.normal)
    for group, rows in unsafe_by_group.items():
        _need_clips(source.group_place(group, steps[0]), rows)
    _need_clips(source.place("normal", steps[0]), normal)
    unsafe = sorted(set().union(*unsafe_by_group.values()))
    labels = torch.zeros(len(unsafe) + len(normal), len(source.groups))
    place = {row: i for i, row in enumerate(unsafe)}
    for column, rows in enumerate(unsafe_by_group.values()):
        labels[[place[row] for row in rows], column] = 1
    return Rows([("unsafe", row) for row in unsafe] + [("normal", row) for row in normal], labels)


def rows_without_labels(source, split, steps):
    """Return the Rows of all videos that are not held out, with labels [N, 0].

    Raises:
        InputError: there are none.
    """
    videos = []
    for kind in KINDS:
        rows = _without(source.rows(kind, steps[0]), getattr(split, kind))
        videos += [(kind, row) for row in rows]
    if not videos:
        raise InputError(f"{source.place('unsafe', steps[0])}: no clips that are not held out")
    return Rows(videos, torch.zeros(len(videos), 0))


def stratified(labels, fraction, seed):
    """Split clips into two parts with the same share of unsafe ones.

    Args:
        labels: [N], 1 for unsafe.
        fraction: of each class that is for validation, at least one clip.
        seed: of the draw.

    Returns:
        (train, validation): positions in N, sorted.
    """
    rng = np.random.default_rng(seed)
    validation = []
    for label in (1, 0):
        of_class = torch.where(labels == label)[0].numpy()
        count = max(1, int(fraction * len(of_class) + 0.5))
        validation += rng.choice(of_class, count, replace=False).tolist()
    train = sorted(set(range(len(labels))) - set(validation))
    return torch.tensor(train), torch.tensor(sorted(validation))


def split_rows(labels, fraction, rng):
    """Split videos into two parts; a video is in the same part at all steps.

    Args:
        labels: [N, G]; videos of no category are normal.
        fraction: of each category's videos and of the normal ones that is for validation, at least
            one; the rarest category is drawn first. One of each stays to train on.
        rng: numpy generator.

    Returns:
        (train, validation): positions in N, sorted.

    Raises:
        InputError: categories of few videos overlap so that this cannot be.
    """
    rarest_first = labels.sum(0).argsort(stable=True).tolist()
    kinds = [labels[:, group] > 0 for group in rarest_first] + [labels.sum(1) == 0]
    for _ in range(TRIES):
        validation = _drawn(kinds, fraction, rng)
        if all((members & validation).any() for members in kinds):
            return torch.where(~validation)[0], torch.where(validation)[0]
    raise InputError(
        "categories: they share so many of their few videos that not each has one to train on "
        "and another one for validation; more videos that are not held out are needed"
    )


def _drawn(kinds, fraction, rng):
    """Draw validation videos once, bool [N]; of each of `kinds` (bool [N]) one is left over."""
    validation = torch.zeros(len(kinds[0]), dtype=torch.bool)
    kinds_of = torch.stack(kinds, 1).numpy()  # [N, K]
    left = kinds_of.sum(0)  # [K], counted on: to count anew for each video takes N x N
    for members in kinds:
        wanted = max(1, int(fraction * int(members.sum()) + 0.5))
        wanted -= int((members & validation).sum())
        free = torch.where(members & ~validation)[0].numpy()
        for video in rng.choice(free, min(max(wanted, 0), len(free)), replace=False):
            left_without = left - kinds_of[video]
            if left_without.min() > 0:
                validation[video] = True
                left = left_without
    return validation


def _same_at_all(rows_of, what, steps, place):
    """The rows of `what` (a group or kind), which must be the same at all steps."""
    first = rows_of(what, steps[0])
    for step in steps:
        different = sorted(set(first) ^ set(rows_of(what, step)))
        if different:
            raise InputError(
                f"{place(what, step)}: row {different[0]} is not at every step; run build_x0.py "
                "to the end"
            )
    return first


def _without(rows, held_out):
    held_out = set(held_out)
    return [row for row in rows if row not in held_out]


def _need_clips(place, rows):
    if len(rows) < MIN_CLIPS:
        raise InputError(
            f"{place}: {plural(len(rows), 'clip')} not held out, {MIN_CLIPS} or more are needed "
            "to train: one to learn from and one for validation"
        )
