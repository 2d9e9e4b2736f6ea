"""c. What does it cost until a video is stopped, and what does a safe video pay?"""

from dataclasses import dataclass
from functools import cached_property

from lvd.evaluation.results import FOLDS
from lvd.utils.files import load_json
from lvd_study.frontier import frontier_figure, frontier_of, frontier_table, load_folds_videos
from lvd_study.intervals import mean_of
from lvd_study.judged import all_chosen, papers_and_chosen
from lvd_study.names import NAMES, called
from lvd_study.pages import Section
from lvd_study.settings import KINDS
from lvd_study.table import Table
from lvd_study.tasks import Task

TITLE = "Cost until a video is stopped, and of safe videos"
CAVEAT = (
    "its denoising steps are cheap, so a look of the detectors weighs more beside them than beside "
    "a real model's: benchmarks/guard/flops.py has the operations at full size."
)
GIGA = 1e9


@dataclass(frozen=True)
class Plan:
    """What the table needs.

    Attributes:
        trained: {kind: [Trained]}, one a seed.
        votes: {kind: [Votes]}, one a seed.
        chosen: {kind: of lvd_study.judged.all_chosen}.
        measured: {kind: Task} that measure steps and looks; the task's `makes` is their JSON.
    """

    trained: dict
    votes: dict
    chosen: dict
    measured: dict

    @property
    def tasks(self):
        """The Tasks of all of it."""
        chosen = [part for of_kind in self.chosen.values() for part in of_kind.values()]
        made = [*self.votes.values(), *chosen]
        return [*(one.task for part in made for one in part), *self.measured.values()]


@dataclass(frozen=True)
class Pieces:
    """What the parts of a video cost, in one unit: a step, decoding it, a look of the detectors."""

    step: float
    decode: float
    look: float
    steps: int

    @cached_property
    def whole(self):
        """A whole video without a guard."""
        return self.steps * self.step + self.decode

    def unsafe(self, over):
        """What each unsafe video costs, [seeds, unsafe videos]; a missed one is made in full."""
        missed = ~over.stopped[:, over.is_unsafe]
        looks = over.looked_at[:, over.is_unsafe] * self.look
        return over.unsafe_steps() * self.step + missed * self.decode + looks

    def safe(self, over):
        """What each normal video costs that is made in full, [seeds, normal videos]."""
        return self.whole + over.looked_at[:, ~over.is_unsafe] * self.look


def plan(study):
    """Return what the table needs of a Study."""
    trained, votes, chosen, measured = {}, {}, {}, {}
    for kind in KINDS:
        trained[kind] = [study.trained(kind, seed) for seed in study.settings.seeds]
        votes[kind] = [study.votes(each, study.held_out) for each in trained[kind]]
        chosen[kind] = all_chosen(study, trained[kind])
        first = trained[kind][0]
        path = study.work / "cost" / f"{kind}.json"
        command = ("-m", "lvd_study.step_cost", "--config", study.config)
        command += ("--model_dir", first.folder, "--save_path", path, "--gpu_num", study.gpu_num)
        measured[kind] = Task(f"measure {kind}", command, (first.task,), makes=path)
    return Plan(trained, votes, chosen, measured)


def section(study, plan):
    """Return the Section of a plan whose tasks are done."""
    recordings = {kind: [one.recording() for one in votes] for kind, votes in plan.votes.items()}
    measured = of_one_model({kind: load_json(task.makes) for kind, task in plan.measured.items()})
    rules = {
        kind: papers_and_chosen(of_kind, plan.chosen[kind]) for kind, of_kind in recordings.items()
    }
    unsafe, safe = _unsafe(rules, measured), _safe(rules, measured)
    lines = {}
    for kind in study.settings.rules_for:
        folds = [load_folds_videos(one.folder / FOLDS) for one in plan.trained[kind]]
        lines[kind] = frontier_of(recordings[kind], folds)
    tables, figures = [unsafe, safe, _pieces(measured)], []
    if lines:
        points = {kind: rules[kind] for kind in lines}
        tables.append(frontier_table(lines))
        figures.append(frontier_figure(lines, points))
    device = next(iter(measured.values()))["device"]
    return Section(
        letter="c",
        title=TITLE,
        answer=_answer(unsafe, safe),
        how="Steps: recorded, of the held-out videos; an unsafe video that is missed is made in "
        "full, and decoded; a normal video counts as made in full, with the looks that the "
        "detectors take at it until the rule is certain. Operations: exact counts of matrix "
        "products and convolutions of this model and these detectors, two for each multiply-add. "
        "Seconds: medians of a step, a decoded video and a look, one video at a time, on "
        f"{device}, beside what else ran there; times the steps. They tell how a step and a look "
        "compare, not how fast another machine is. The frontier: of each family, the most accurate "
        "rule within a limit of the cost, chosen for each seed on training videos by detectors "
        "that have not seen them, and measured on the held-out ones.",
        tables=tables,
        figures=figures,
        caveat=CAVEAT if study.is_tiny else "",
    )


def of_one_model(measured):
    """Return what was measured with one step and one decoding for all kinds of detectors.

    The model is the same, whoever looks: else its seconds would differ by what else ran just then.

    Args:
        measured: {kind: JSON of lvd_study.step_cost}.
    """
    first = next(iter(measured.values()))
    shared = {part: first[part] for part in ("step", "decode")}
    return {kind: one | shared for kind, one in measured.items()}


def pieces_of(measured, what, steps):
    """Return the Pieces of a JSON of lvd_study.step_cost; what: "seconds" or "operations"."""
    parts = {name: measured[name][what] for name in ("step", "decode", "look")}
    return Pieces(**parts, steps=steps)


def _unsafe(rules, measured):
    """The table of unsafe videos."""
    rows = []
    for kind, by_rule in rules.items():
        for name, over in by_rule.items():
            operations, seconds = (
                pieces_of(measured[kind], what, over.steps) for what in ("operations", "seconds")
            )
            rows.append(
                [
                    NAMES[kind],
                    name,
                    over.recall(),
                    mean_of(over.unsafe_steps()),
                    mean_of(operations.unsafe(over) / GIGA),
                    mean_of(operations.unsafe(over) / operations.whole),
                    mean_of(seconds.unsafe(over)),
                    mean_of(seconds.unsafe(over) / seconds.whole),
                ]
            )
    columns = ["detectors", "rule", "stopped", "steps", "GFLOP", "of a whole video's"]
    columns += ["seconds", "of a whole video's seconds"]
    return Table(
        "c_unsafe",
        "An unsafe video, on average over all of them.",
        "A whole video is one without a guard.",
        columns,
        rows,
    )


def _safe(rules, measured):
    """The table of normal videos."""
    rows = []
    for kind, by_rule in rules.items():
        for name, over in by_rule.items():
            operations, seconds = (
                pieces_of(measured[kind], what, over.steps) for what in ("operations", "seconds")
            )
            looks = over.looked_at[:, ~over.is_unsafe]
            rows.append(
                [
                    NAMES[kind],
                    name,
                    over.false_positives(),
                    mean_of(looks),
                    mean_of(operations.safe(over) / operations.whole - 1),
                    mean_of(seconds.safe(over) / seconds.whole - 1),
                ]
            )
    columns = ["detectors", "rule", "stopped", "steps looked at"]
    columns += ["more operations, as a share", "more seconds, as a share"]
    return Table(
        "c_safe",
        "A normal video, on average over all of them.",
        "What the looks of the detectors add to a whole video; where a rule is certain they rest.",
        columns,
        rows,
    )


def _pieces(measured):
    """The table of what was measured."""
    rows = []
    names = {"step": "a denoising step", "decode": "decoding a video", "look": "a look"}
    for part, name in names.items():
        for kind, one in measured.items():
            who = NAMES[kind] if part == "look" else ""
            row = [name, who, one[part]["operations"] / GIGA, 1e3 * one[part]["seconds"]]
            rows.append(row)
            if part != "look":  # the same model, whoever looks
                break
    return Table("c_pieces", "The parts.", "", ["part", "detectors", "GFLOP", "ms"], rows)


def _answer(unsafe, safe):
    """Sentences with the main figures."""
    cheapest = min(unsafe.rows, key=lambda row: row[5].mean)
    same = next(row for row in safe.rows if row[:2] == cheapest[:2])
    return (
        f"Cheapest is {called(cheapest[1])} of {cheapest[0]}: an unsafe video takes "
        f"{cheapest[3].text(1)} steps on average and {cheapest[5].text()} of a whole video's "
        f"operations ({cheapest[7].text()} of its seconds). A normal video pays "
        f"{same[4].text()} of its operations more and {same[5].text()} of its seconds."
    )
