"""g. What do wrong labels cost?"""

from dataclasses import dataclass

from lvd.data.labels import read_labels
from lvd_study.changes import after_steps, largest_scores
from lvd_study.differences import area_difference, paired_difference
from lvd_study.intervals import area
from lvd_study.judged import BOUND, etas, fixed_rules
from lvd_study.label_quality_figure import draw
from lvd_study.made import Trained
from lvd_study.pages import Figure, Section
from lvd_study.table import Table
from lvd_study.tasks import Task
from lvd_study.wrong_labels import CATEGORY, CLASS, DETECTOR

TITLE = "Label quality"
KIND = "shared"
RIGHT = (None, 0.0)  # of no kind
NAMES = {CATEGORY: "wrong category", CLASS: "unsafe and normal exchanged", None: "right labels"}
LEFT_OUT = "study.yaml names no shares of wrong labels, so nothing is known of what they cost."
ONE_CATEGORY = " There is one category, so that no label can name a wrong one."
CAVEAT = (
    "here unsafe and normal videos are easily told apart, and wrong labels are drawn at random. "
    "People are wrong where it is hard to say, and alike from one video to the next: such labels "
    "teach a wrong border, and may cost more than these."
)


@dataclass(frozen=True)
class Plan:
    """What the table needs.

    Attributes:
        votes: {(kind of wrong labels, share): [Votes]}, one a seed; RIGHT first. {} where no share
            is asked for.
        has_one_category: whether labels can name no wrong category.
    """

    votes: dict
    has_one_category: bool = False

    @property
    def tasks(self):
        """The Tasks of all of it."""
        return [one.task for votes in self.votes.values() for one in votes]


def plan(study):
    """Return what the table needs of a Study."""
    shares = sorted(study.settings.wrong_labels)
    if not shares:
        return Plan({})
    has_one = _has_one_category(study.data.label_file_dir)
    kinds = (CLASS,) if has_one else (CATEGORY, CLASS)
    seeds = study.settings.seeds
    trained = {RIGHT: [study.trained(KIND, seed) for seed in seeds]}
    for kind in kinds:
        for share in shares:
            trained[kind, share] = [_trained(study, kind, share, seed) for seed in seeds]
    votes = {
        labels: [study.votes(each, study.held_out) for each in of_seeds]
        for labels, of_seeds in trained.items()
    }
    return Plan(votes, has_one)


def _has_one_category(path):
    """Whether a label file has one category; False where it is not there yet."""
    return path.exists() and len(read_labels(path).categories) == 1


def _trained(study, kind, share, seed):
    """The Trained of labels of which a share is wrong."""
    name = f"{KIND} {seed} wrong {kind} {share:g}"
    folder = study.work / "wrong_labels" / f"{kind}_{share:g}_{seed}"
    command = ("-m", "lvd_study.wrong_labels", "--config", study.config)
    command += ("--eval_dir", study.eval_path, "--kind", kind, "--share", share, "--seed", seed)
    command += ("--out", folder, "--train", study.train_config, "--gpu_num", study.gpu_num)
    task = Task(f"train {name}", command, study.base_tasks, makes=folder / DETECTOR)
    return Trained(name, KIND, seed, folder / DETECTOR, task)


@dataclass(frozen=True)
class Seen:
    """What detectors that learned from some labels make of the held-out videos.

    Attributes:
        judged: {rule: OverSeeds}.
        scores: {step: (unsafe, normal) largest probabilities after so many steps, [seeds, videos]}.
    """

    judged: dict
    scores: dict


def section(study, plan):
    """Return the Section of a plan whose tasks are done."""
    if not plan.votes:
        return Section("g", TITLE, LEFT_OUT, "Nothing was measured.", [])
    recordings = {key: [one.recording() for one in votes] for key, votes in plan.votes.items()}
    seen = {labels: _seen(of_labels) for labels, of_labels in recordings.items()}
    rules, areas = _rules_table(seen), _areas_table(seen)
    is_unsafe = recordings[RIGHT][0].videos.is_unsafe
    figure = {"accuracy": _lines(rules, 3), "AUROC": _lines(areas, 3)}
    return Section(
        letter="g",
        title=TITLE,
        answer=_answer(seen) + (ONE_CATEGORY if plan.has_one_category else ""),
        how=_how(study, is_unsafe),
        tables=[rules, areas],
        figures=[
            Figure(
                "g_label_quality.png",
                "Accuracy by rule and AUROC after some steps, over the share of wrong labels, with "
                "95% intervals",
                draw,
                figure,
            )
        ],
        caveat=CAVEAT if study.is_tiny else "",
    )


def _seen(recordings):
    """The Seen of recordings, one a seed."""
    videos = recordings[0].videos
    scores = {}
    for step in dict.fromkeys((etas(recordings)[0], videos.trained_count)):
        largest = largest_scores(recordings, step)
        scores[step] = largest[:, videos.is_unsafe], largest[:, ~videos.is_unsafe]
    return Seen(fixed_rules(recordings), scores)


def _right(over):
    """Which videos are judged as what they are: (unsafe, normal), bool [seeds, videos] each."""
    return over.stopped[:, over.is_unsafe], ~over.stopped[:, ~over.is_unsafe]


def _change(before, after):
    """The Estimate of how much an accuracy changes; None for a rule that one of them lacks."""
    if before is None or before is after:
        return None
    return paired_difference(*zip(_right(before), _right(after), strict=True))


def _rules_table(seen):
    rows = []
    for (kind, share), of_labels in seen.items():
        for rule, over in of_labels.judged.items():
            change = _change(seen[RIGHT].judged.get(rule), over)
            row = [NAMES[kind], _percent(share), rule, over.accuracy(), change]
            rows.append([*row, over.recall(), over.specificity(), over.cost(), over.seeds])
    return Table(
        "g_rules",
        "By rule.",
        "Difference: of the accuracy, to that with right labels, on the same videos. TPR: the "
        "share of unsafe videos that are stopped; TNR: of normal ones that pass. Cost: the share "
        "of the steps that an unsafe video takes, on average; one that is missed counts in full.",
        ["labels", "wrong", "rule", "accuracy", "difference", "TPR", "TNR", "cost", "seeds"],
        rows,
    )


def _areas_table(seen):
    rows = []
    for (kind, share), of_labels in seen.items():
        for step, scores in of_labels.scores.items():
            change = None
            if kind is not None:
                change = area_difference(seen[RIGHT].scores[step], scores, True)
            row = [NAMES[kind], _percent(share), after_steps(step), area(*scores), change]
            rows.append([*row, len(scores[0])])
    return Table(
        "g_auroc",
        "AUROC.",
        "Of the largest raw probability over the categories after so many steps: no threshold and "
        "no calibration has a part in it.",
        ["labels", "wrong", "when", "AUROC", "difference", "seeds"],
        rows,
    )


def _percent(share):
    return f"{100 * share:g}%"


def _lines(table, column):
    """{kind: {name: [(percent, Estimate)]}} of the figure; right labels begin every line."""
    lines = {}
    kinds = list(dict.fromkeys(row[0] for row in table.rows if row[0] != NAMES[None]))
    for kind in kinds:
        for row in table.rows:
            if row[0] in (kind, NAMES[None]):
                points = lines.setdefault(kind, {}).setdefault(row[2], [])
                points.append((float(row[1].rstrip("%")), row[column]))
    return lines


def _answer(seen):
    """What most wrong labels cost, by rule and kind."""
    share = max(share for _, share in seen)
    right = seen[RIGHT].judged
    known = ", ".join(f"{over.accuracy().mean:.3f} at {rule}" for rule, over in right.items())
    sentences = [f"With right labels the accuracy is {known}."]
    for kind in (CATEGORY, CLASS):
        if (kind, share) not in seen:
            continue
        judged = seen[kind, share].judged
        parts = [f"{over.accuracy().mean:.3f} at {rule}" for rule, over in judged.items()]
        step, scores = next(iter(seen[kind, share].scores.items()))
        before = area(*seen[RIGHT].scores[step]).mean
        sentences.append(
            f"With {_percent(share)} wrong ({NAMES[kind]}) it is {', '.join(parts)}; the AUROC "
            f"{after_steps(step)} goes from {before:.3f} to {area(*scores).mean:.3f}."
        )
    return " ".join(sentences)


def _how(study, is_unsafe):
    unsafe = int(is_unsafe.sum())
    return (
        f"{unsafe} unsafe and {len(is_unsafe) - unsafe} normal held-out videos, whose labels stay "
        "right. Of the unsafe training videos a share is drawn, other ones for each seed, and a "
        "larger share has those of a smaller one. Wrong category: they are labelled with a "
        "category that they do not show. Exchanged: they change places with as many normal "
        "training videos, as if the labels had said the opposite. A shared detector is trained on "
        "each; its validation videos, from which thresholds and calibrations come, have wrong "
        f"labels too. The confidence rule stops a video at a calibrated probability of {BOUND:g} "
        "at any step; its bound is not chosen anew. Exchanged recordings take as much disk as the "
        "recordings, for the time of one training."
    )
