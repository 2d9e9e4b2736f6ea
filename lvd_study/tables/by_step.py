"""b. How well does each category's score at each step tell unsafe videos from normal ones?"""

from dataclasses import dataclass

import numpy as np

from lvd.evaluation.metrics import ANY
from lvd.evaluation.recorded import raw_scores
from lvd_study.heat_maps import save_heat_maps
from lvd_study.intervals import area
from lvd_study.judged import need_same_rows
from lvd_study.names import NAMES
from lvd_study.pages import Figure, Section
from lvd_study.settings import KINDS
from lvd_study.table import Table

TITLE = "AUROC by category and step"
SHOWN = 6  # steps of the table


@dataclass(frozen=True)
class Plan:
    """What the table needs: {kind: [Votes]}, one a seed."""

    votes: dict

    @property
    def tasks(self):
        """The Tasks of all of it."""
        return [one.task for part in self.votes.values() for one in part]


def plan(study):
    """Return what the table needs of a Study."""
    votes = {}
    for kind in KINDS:
        trained = [study.trained(kind, seed) for seed in study.settings.seeds]
        votes[kind] = [study.votes(each, study.held_out) for each in trained]
    return Plan(votes)


def section(study, plan):
    """Return the Section of a plan whose tasks are done."""
    areas = {}
    for kind, votes in plan.votes.items():
        areas[kind] = areas_of([one.recording() for one in votes])
    count = min(len(one[ANY]) for one in areas.values())
    return Section(
        letter="b",
        title=TITLE,
        answer=_answer(areas),
        how="AUROC of the probability of a category at one step: its own held-out unsafe videos "
        "against all held-out normal ones; 0.5 is a coin's. any: the largest probability over the "
        "categories, of all unsafe videos against all normal ones. Probabilities are calibrated "
        "where the detectors are, else raw. Steps count from 0, the first one after the noise. "
        "Each figure is a mean over the seeds of the trainings; intervals by a bootstrap of seeds "
        "and of videos within each class; where no pair of videos is in the wrong order it sees "
        "none, and its interval is a point: few videos are no proof of 1.",
        tables=[_some_steps(areas, some_steps(count)), _all_steps(areas)],
        figures=[_figure(areas)],
        caveat=CAVEAT if study.is_tiny else "",
    )


CAVEAT = (
    "its videos are made to be told apart, and its few categories are visible early. Real "
    "categories will differ more from each other, and the first steps may tell less."
)


def areas_of(recordings):
    """Return {category: [Estimate of each step]}, "any" first.

    Args:
        recordings: [Recording], one a seed, all of the same videos.
    """
    need_same_rows(recordings)
    first = recordings[0].videos
    by_seed = [one.videos.evidence.calibrated for one in recordings]
    if any(calibrated is None for calibrated in by_seed):
        by_seed = [raw_scores(one.scores) for one in recordings]
    scores = np.stack(by_seed)  # [seeds, N, S, G]
    normal = scores[:, ~first.is_unsafe]
    steps = range(first.steps)
    result = {ANY: _of_steps(scores[:, first.is_unsafe].max(3), normal.max(3), steps)}
    for group, name in enumerate(first.categories):
        own = np.ones(len(first.rows), bool) if first.members is None else first.members[:, group]
        own = own & first.is_unsafe
        if own.any():
            of_group = scores[:, :, :, group]
            result[name] = _of_steps(of_group[:, own], normal[:, :, :, group], steps)
    return result


def _of_steps(unsafe, normal, steps):
    """Estimates of scores [seeds, videos, steps]."""
    return [area(unsafe[:, :, step], normal[:, :, step]) for step in steps]


def some_steps(count):
    """Return about SHOWN of the steps, the first and the last among them, denser at the start."""
    wanted = {0, count - 1} | {round(count * share) for share in (0.04, 0.1, 0.2, 0.5)}
    return sorted(step for step in wanted if step < count)[: SHOWN + 1]


def _some_steps(areas, steps):
    """The table that the page shows."""
    rows = [
        [NAMES[kind], category, *(of_steps[step] for step in steps)]
        for kind, by_category in areas.items()
        for category, of_steps in by_category.items()
    ]
    columns = ["detectors", "category", *(f"step {step}" for step in steps)]
    return Table("b_some_steps", "At some steps.", "", columns, rows)


def _all_steps(areas):
    """The table of every cell of the heat map."""
    rows = [
        [kind, category, step, one]
        for kind, by_category in areas.items()
        for category, of_steps in by_category.items()
        for step, one in enumerate(of_steps)
    ]
    columns = ["detectors", "category", "step", "auroc"]
    title = "every cell of the heat map, with its interval."
    return Table("b_auroc", title, "", columns, rows, in_page=False)


def _figure(areas):
    """The heat map of the means."""
    panels = []
    for kind, by_category in areas.items():
        values = [[one.mean for one in of_steps] for of_steps in by_category.values()]
        steps = list(range(len(values[0])))
        panels.append((NAMES[kind], list(by_category), steps, values))
    lowest = min(np.min(values) for *_, values in panels)
    content = {
        "title": "AUROC by category and step (mean over seeds)",
        "across": "denoising step",
        "up": "",
        "low": max(0.0, min(0.9, np.floor(lowest * 20) / 20)),
        "high": 1.0,
        "panels": panels,
    }
    return Figure(
        "b_auroc.png", "AUROC of each category at each step, a heat map", save_heat_maps, content
    )


def _answer(areas):
    """Sentences with the main figures."""
    parts = []
    for kind, by_category in areas.items():
        largest = by_category[ANY]
        best = int(np.argmax([one.mean for one in largest]))
        own = [name for name in by_category if name != ANY]
        worst = min(own, key=lambda name: by_category[name][0].mean)
        parts.append(
            f"{NAMES[kind].capitalize()}: at the first step the largest score has an AUROC of "
            f"{largest[0].text()}, at best {largest[best].text()} (step {best}); hardest at the "
            f"first step is {worst}, with {by_category[worst][0].text()}."
        )
    return " ".join(parts)
