"""a. How accurate is it, by (lambda, eta) and by rule?"""

from dataclasses import dataclass

import numpy as np

from lvd.evaluation.vote_report import LAMBDAS, some_etas
from lvd.voting import votes_needed
from lvd_study.heat_maps import save_heat_maps
from lvd_study.intervals import share
from lvd_study.judged import all_chosen, papers_and_chosen
from lvd_study.names import NAMES, called
from lvd_study.pages import Figure, Section
from lvd_study.settings import KINDS
from lvd_study.table import Table

TITLE = "Accuracy by (lambda, eta) and by rule"
CAVEAT = (
    "its unsafe videos are harmless stand-ins that are easy to label. Which (lambda, eta) is best, "
    "and how good it is, has to be measured again on a real model's own prompts."
)


@dataclass(frozen=True)
class Plan:
    """What the table needs.

    Attributes:
        votes: {kind: [Votes]}, one a seed.
        chosen: {kind: of lvd_study.judged.all_chosen}.
    """

    votes: dict
    chosen: dict

    @property
    def tasks(self):
        """The Tasks of all of it."""
        chosen = [part for of_kind in self.chosen.values() for part in of_kind.values()]
        made = [*self.votes.values(), *chosen]
        return [one.task for part in made for one in part]


def plan(study):
    """Return what the table needs of a Study."""
    votes, chosen = {}, {}
    for kind in KINDS:
        trained = [study.trained(kind, seed) for seed in study.settings.seeds]
        votes[kind] = [study.votes(each, study.held_out) for each in trained]
        chosen[kind] = all_chosen(study, trained)
    return Plan(votes, chosen)


def section(study, plan):
    """Return the Section of a plan whose tasks are done."""
    recordings = {kind: [one.recording() for one in votes] for kind, votes in plan.votes.items()}
    by_rule = _by_rule(recordings, plan)
    grids = [_grid(kind, recordings[kind]) for kind in recordings]
    videos = recordings["shared"][0].videos
    unsafe = int(videos.is_unsafe.sum())
    return Section(
        letter="a",
        title=TITLE,
        answer=_answer(by_rule),
        how=f"{unsafe} unsafe and {len(videos.rows) - unsafe} normal held-out videos, which no "
        "detector was trained on and no rule was chosen on; all of them count. TPR: the share of "
        "unsafe videos that are stopped; TNR: the share of normal videos that pass. Rules are "
        "chosen on training videos, by detectors that have not seen them. A video is unsafe when "
        "at least lambda x eta of the votes of the first eta steps say so. The best of several was "
        "picked on the very videos that judge it: on others it is worse.",
        tables=[by_rule, *grids],
        figures=[_figure(grids)],
        caveat=CAVEAT if study.is_tiny else "",
    )


def _answer(by_rule):
    """Sentences with the best rule, and with the paper's last point beside it."""
    best = max(by_rule.rows, key=lambda row: row[2].mean)
    papers = [row for row in by_rule.rows if row[1].startswith("(")][-1]
    text = (
        f"Most accurate is {called(best[1])} of {best[0]}: {best[2].text()}; it stops "
        f"{best[3].text()} of the unsafe videos and lets {best[4].text()} of the normal ones pass."
    )
    if papers is not best:
        text += f" {called(papers[1]).capitalize()} of {papers[0]} reaches {papers[2].text()}."
    return text


def _figure(grids):
    """The heat map of the mean accuracies."""
    panels = []
    for table in grids:
        names = [row[0] for row in table.rows]
        etas = [column.removeprefix("eta ") for column in table.columns[1:]]
        values = [[cell.mean for cell in row[1:]] for row in table.rows]
        panels.append((table.title.partition(", ")[2].rstrip("."), names, etas, values))
    lowest = min(np.min(values) for *_, values in panels)
    content = {
        "title": "accuracy by lambda and eta (mean over seeds)",
        "across": "eta: steps that vote",
        "up": "lambda",
        "low": np.floor(lowest * 20) / 20,
        "high": 1.0,
        "panels": panels,
    }
    says = "Accuracy by lambda and eta, a heat map for each kind of detectors"
    return Figure("a_grid.png", says, save_heat_maps, content)


def _by_rule(recordings, plan):
    """The table of the paper's two points, and of the chosen rules."""
    rows = []
    for kind, of_kind in recordings.items():
        for name, over in papers_and_chosen(of_kind, plan.chosen[kind]).items():
            rows.append(
                [
                    NAMES[kind],
                    name,
                    over.accuracy(),
                    over.recall(),
                    over.specificity(),
                    over.f1(),
                    over.cost(),
                    over.seeds,
                ]
            )
    return Table(
        "a_rules",
        "By rule.",
        "Cost: the share of the steps that an unsafe video takes, on average; one that is missed "
        "counts in full.",
        ["detectors", "rule", "accuracy", "TPR", "TNR", "F1", "cost", "seeds"],
        rows,
    )


def _grid(kind, recordings):
    """The table of accuracy by lambda and eta."""
    # bool [seeds, videos, steps]: does any category say unsafe at that step?
    says = np.array([each.videos.evidence.says.any(2) for each in recordings])
    is_unsafe = recordings[0].videos.is_unsafe
    counts = says.cumsum(2)
    etas = some_etas(says.shape[2])
    rows = []
    for lambda_ in LAMBDAS:
        row = [f"{float(lambda_):g}"]
        for eta in etas:
            stopped = counts[:, :, eta - 1] >= votes_needed(lambda_, eta)
            row.append(share(stopped[:, is_unsafe], ~stopped[:, ~is_unsafe]))
        rows.append(row)
    return Table(
        f"a_grid_{kind}",
        f"Accuracy by lambda and eta, {NAMES[kind]}.",
        "",
        ["lambda", *(f"eta {eta}" for eta in etas)],
        rows,
    )
