"""Detectors that never saw one of the categories, and what they say of its videos."""

from dataclasses import dataclass, field

import numpy as np

from lvd.data.labels import read_recorded_labels
from lvd_study.changes import largest_scores
from lvd_study.differences import paired_difference
from lvd_study.intervals import area, share
from lvd_study.judged import etas, fixed_rules, need_same_rows
from lvd_study.other_labels import other_labels
from lvd_study.table import Table

ALL = "all of these"
NEVER_SAW, SAW = "never saw it", "saw it"


@dataclass(frozen=True)
class LeftOut:
    """One category that detectors of some seeds never saw.

    Attributes:
        category: its name.
        column: its place among the categories, from 0.
        votes: [Votes] of these detectors on all held-out videos, one a seed.
    """

    category: str
    column: int
    votes: list


@dataclass(frozen=True)
class Asked:
    """What detectors say of the held-out videos.

    Attributes:
        stopped: {rule: bool [seeds, videos]}.
        scores: [seeds, videos], largest ones at the last step of the shortest vote.
    """

    stopped: dict
    scores: np.ndarray

    def of(self, videos):
        """Return {rule: bool [seeds, some videos]} of some of the videos, bool [videos]."""
        return {rule: stopped[:, videos] for rule, stopped in self.stopped.items()}


@dataclass(frozen=True)
class Both:
    """The held-out videos of one category alone, as detectors judge them that never saw it, and
    detectors that did.

    Attributes:
        name: of the category.
        unseen, seen: {rule: bool [seeds, its videos]}, whether each is stopped.
        normal: {rule: bool [seeds, normal videos]}, the same by those that never saw it.
        areas: Estimates of the AUROC of its videos against the normal ones: unseen, seen.
    """

    name: str
    unseen: dict
    seen: dict
    normal: dict = field(default_factory=dict)
    areas: tuple = (None, None)

    @property
    def count(self):
        """How many videos it has."""
        return next(iter(self.unseen.values())).shape[1]


def left_out_of(study):
    """Return a LeftOut for each category; [] where there is one alone, or the settings want none.

    Args:
        study: Study; its label file is read.
    """
    seeds = study.settings.seeds[: study.settings.leave_one_out]
    data = study.data
    categories = []
    if seeds:
        categories = read_recorded_labels(data.label_file_dir, data.pred_x0).categories
    found = []
    for column, category in enumerate(categories if len(categories) > 1 else []):
        number = column + 1
        data = other_labels(study, f"without {number}", "--without", number)
        trained = [study.trained("shared", seed, data) for seed in seeds]
        votes = [study.votes(each, study.held_out) for each in trained]
        found.append(LeftOut(category, column, votes))
    return found


def compare(left_out, base):
    """Return [Both], one a category that has held-out videos of its own.

    Args:
        left_out: [LeftOut], whose tasks are done.
        base: [Recording] of the held-out videos, of detectors that saw all categories, one a seed
            of all.
    """
    base = base[: len(left_out[0].votes)]
    videos, saw = base[0].videos, _ask(base)
    found = []
    for each in left_out:
        recordings = [votes.recording() for votes in each.votes]
        need_same_rows([base[0], *recordings])
        never_saw = _ask(recordings)
        alone = videos.members[:, each.column] & (videos.members.sum(1) == 1)
        if alone.any():
            normal = ~videos.is_unsafe
            found.append(
                Both(
                    each.category,
                    never_saw.of(alone),
                    saw.of(alone),
                    never_saw.of(normal),
                    tuple(
                        area(asked.scores[:, alone], asked.scores[:, normal])
                        for asked in (never_saw, saw)
                    ),
                )
            )
    return found


def together(found):
    """Return the Both of all categories' videos, each judged by detectors without its own."""
    rules = [rule for rule in found[0].unseen if all(rule in each.unseen for each in found)]
    unseen, seen = (
        {rule: np.concatenate([getattr(each, name)[rule] for each in found], 1) for rule in rules}
        for name in ("unseen", "seen")
    )
    return Both(ALL, unseen, seen)


def table_of(found):
    """Return the Table of how many videos of each category are stopped."""
    whole = together(found)
    rules = list(whole.unseen)
    rows = []
    for each in [*found, whole]:
        for detectors, stopped, auroc in (
            (NEVER_SAW, each.unseen, each.areas[0]),
            (SAW, each.seen, each.areas[1]),
        ):
            shares = [share(stopped[rule]) for rule in rules]
            rows.append([each.name, detectors, each.count, *shares, auroc])
    gaps = [paired_difference((whole.seen[rule], whole.unseen[rule])) for rule in rules]
    rows.append([ALL, "difference", whole.count, *gaps, None])
    return Table(
        "e_left_out",
        "A category never trained on: share of its videos that is stopped.",
        "Videos of this category alone. AUROC: of these against the normal videos, at the last "
        "step of the first vote.",
        ["category", "detectors", "videos", *rules, "AUROC"],
        rows,
    )


def normal_table(found, base):
    """Return the Table of how many normal videos are stopped by the same detectors.

    Args:
        found: [Both].
        base: [Recording], see `compare`.
    """
    rules = list(together(found).unseen)
    rows = [
        [f"without {each.name}", *(share(each.normal[rule]) for rule in rules)] for each in found
    ]
    saw = _ask(base[: len(found[0].normal[rules[0]])]).of(~base[0].videos.is_unsafe)
    rows.append(["that saw all", *(share(saw[rule]) for rule in rules)])
    return Table(
        "e_left_out_normal",
        "Share of the normal videos that the same detectors stop.",
        "",
        ["detectors", *rules],
        rows,
    )


def _ask(recordings):
    """Return what the detectors of some seeds say, by rules that were chosen for none of them."""
    stopped = {name: over.stopped for name, over in fixed_rules(recordings).items()}
    return Asked(stopped, largest_scores(recordings, etas(recordings)[0]))
