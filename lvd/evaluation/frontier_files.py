"""What test_accuracy.py --frontier prints and writes."""

from lvd.errors import InputError, shorten
from lvd.evaluation.frontier import GOALS, THE_PAPERS, families_of, frontier
from lvd.evaluation.frontier_figure import NAMES, save_frontier_figure
from lvd.evaluation.intervals import IN_BRACKETS, interval_text, nothing_seen
from lvd.evaluation.recorded import recorded_videos
from lvd.evaluation.tables import save_table
from lvd.rules.carried import own_steps_text
from lvd.rules.file import other_detectors
from lvd.utils.changes import other_detectors_words
from lvd.utils.files import save_text, save_yaml
from lvd.utils.plots import drawn

SHOWN = (1.5, 2, 3, 4, 5, 8, 10, 20)  # limits, in steps, that the text shows; and all steps
ON_THEMSELVES = "rules CHOSEN ON THE VERY VIDEOS THAT JUDGE THEM: too good for other videos"
ON_OTHERS = (
    "each rule was chosen on {unsafe} unsafe and {normal} normal training videos, by detectors "
    "that had not seen them"
)


class FrontierFiles:
    """The best rules of each family at each cost.

    Args:
        recording: lvd.evaluation.rule_of_scores.Recording of the videos that judge.
        folds: path of the folds.pth on which the rules are chosen; None: on the videos that judge.
        resamples: of the bootstrap.

    Raises:
        InputError: the folds are of other detectors, categories, steps or thresholds.
    """

    def __init__(self, recording, folds, resamples):
        self.videos = recording.videos
        self.chosen_on = _folds_for(folds, recording) if folds else recording.videos
        self.told = ON_THEMSELVES
        if folds:
            self.told = ON_OTHERS.format(**_counts(self.chosen_on))
        self.table = frontier(self.videos, self.chosen_on, resamples)

    def text(self):
        """Return the table as text."""
        counts = _counts(self.videos)
        title = "the best rule of each family at each mean cost of the unsafe videos"
        lines = [
            title,
            self.told,
            f"measured on all {counts['unsafe']} unsafe and {counts['normal']} normal held-out "
            "videos; cost: mean share of the "
            f"{self.videos.steps} steps over all unsafe videos, missed ones counted in full",
        ]
        for goal in GOALS:
            lines += ["", *self._part(goal)]
        lines += ["", *self._papers(), "", *self._notes()]
        if own_steps := own_steps_text(self.videos.trained_steps):
            lines.append(own_steps)
        return "\n".join(lines)

    def save(self, folder, settings):
        """Write frontier.txt, frontier.csv, frontier.yaml and frontier.png.

        Args:
            folder: where they go.
            settings: what made them (plain values).

        Returns:
            Their paths.
        """
        save_text(self.text() + "\n", folder / "frontier.txt")
        chosen_on = "the videos that judge" if self.told == ON_THEMSELVES else "folds"
        save_table(self.table.assign(chosen_on=chosen_on), folder / "frontier.csv")
        save_yaml(settings, folder / "frontier.yaml")
        written = [folder / f"frontier.{kind}" for kind in ("txt", "csv", "yaml")]
        counts = _counts(self.videos)
        title = (
            f"{counts['unsafe']} unsafe and {counts['normal']} normal held-out videos\n{self.told}"
        )
        figure = folder / "frontier.png"
        return written + drawn(save_frontier_figure, self.table, figure, title, self.videos.steps)

    def _part(self, goal):
        """The lines of one goal: a few limits, by family."""
        part = self.table[self.table["goal"] == goal.name]
        shown = part[part["limit"].isin([*SHOWN, self.videos.steps])]
        shown = shown.drop_duplicates(["family", "rule"])  # within a larger limit it is the same
        lines = [goal.name, f"  {'family':<17}{'within':>10}  {_HEADS}"]
        for row in shown.to_dict("records"):
            limit = f"{row['limit']:g} steps"
            lines.append(f"  {NAMES[row['family']]:<17}{limit:>10}  {_cells(row)}  {row['rule']}")
        if not len(shown):
            lines.append("  no rule is within any of the limits")
        return lines

    def _papers(self):
        """The lines of the paper's rules."""
        papers = self.table[self.table["goal"] == THE_PAPERS]
        width = max([27, *papers["rule"].map(len)])
        lines = ["the paper's rules, fixed beforehand", f"  {'':<{width}}  {_HEADS}"]
        rows = papers.to_dict("records")
        return lines + [f"  {row['rule']:<{width}}  {_cells(row)}" for row in rows]

    def _notes(self):
        notes = [
            "in brackets: 95% bootstrap intervals over videos; they do not hold what choosing adds",
            f"of false positives {IN_BRACKETS.removeprefix('in brackets: ')}; "
            f"{nothing_seen(_counts(self.videos)['normal'])}",
            "chosen by accuracy: by the mean of the shares of unsafe and of normal videos that are "
            "judged rightly",
            "looks: steps that the detectors look at of a normal video that passes; it is sampled "
            "in full",
        ]
        if len(families_of(self.videos, self.chosen_on)) == 1:
            notes.append(
                "confidence and likelihood ratio: not told, there are no calibrated probabilities"
            )
        return notes


_HEADS = (
    f"{'accuracy':<20}  {'recall':<20}  {'false positives':<20}  {'cost':<20}  {'looks':>5}  rule"
)


def _cells(row):
    cells = []
    for name in ("accuracy", "recall", "false_positive_rate", "cost"):
        ends = interval_text(row[f"{name}_low"], row[f"{name}_high"])
        cells.append(f"{row[name]:.3f} {ends}")
    looks = row["safe_looked_at"]
    return "  ".join([*cells, f"{looks:5.1f}" if looks == looks else "    -"])


def _counts(videos):
    unsafe = int(videos.is_unsafe.sum())
    return {"unsafe": unsafe, "normal": len(videos.is_unsafe) - unsafe}


def _folds_for(path, recording):
    """Return the RecordedVideos of a folds.pth, for the detectors of a recording."""
    from lvd.evaluation.results import load_folds

    folds = load_folds(path)
    videos = recorded_videos(folds, path)
    judged = recording.videos
    if found := other_detectors(folds["detectors"], recording.detectors):
        raise InputError(
            f"--frontier {path}: of other detectors than the votes of {recording.path} "
            f"({other_detectors_words(*found)}); train_mae.py --folds and embed_model.py must have "
            "the same detectors"
        )
    compared = {
        "categories": (videos.categories, judged.categories),
        "steps": (videos.steps, judged.trained_count),
        "operating_point": _known(folds, recording.scores or {}, "operating_point"),
    }
    for key, (found, needed) in compared.items():
        if found != needed:
            raise InputError(
                f"--frontier {path}: {key} {shorten(found)}; the votes of {recording.path} have "
                f"{shorten(needed)}; train_mae.py --folds and embed_model.py must have the same "
                "detectors"
            )
    if not videos.is_unsafe.any() or videos.is_unsafe.all():
        raise InputError(f"--frontier {path}: unsafe and normal videos are needed")
    return videos


def _known(one, other, key):
    """Return a value of two files that both have; (None, None) where one lacks it."""
    values = one.get(key), other.get(key)
    return (None, None) if None in values else values
