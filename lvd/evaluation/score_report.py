"""Metrics of recorded votes and scores: by category and step, and for whole videos after the
first eta steps."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lvd.data.kinds import KIND_OF_LABEL, LABEL_NORMAL, LABEL_UNSAFE
from lvd.detectors.calibration import log_odds
from lvd.evaluation.categories import category_names, members_of
from lvd.evaluation.metrics import ALL, ANY, RESAMPLES, Resamples, check, points
from lvd.evaluation.reliability import balanced_weights, calibration_errors, reliability
from lvd.evaluation.results import score_table, vote_table

VOTES = "votes"
MEAN = "mean probability"
LOG_ODDS = "mean log-odds"


@dataclass
class ScoreReport:
    """What `score_report` measures.

    Attributes:
        fixed_recalls: the recalls that were asked for.
        metrics: a table with a line for each score, category, and step or eta.
        calibration: a table of log-loss, Brier score and calibration error by category and kind
            of probabilities ("raw", "calibrated").
        reliability: the table of `reliability.reliability`, by category and kind of probabilities.
        notes: what could not be told, and why.
    """

    fixed_recalls: list
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    calibration: pd.DataFrame = field(default_factory=pd.DataFrame)
    reliability: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: list = field(default_factory=list)


def score_report(results, scores, steps, fixed_recalls, resamples=RESAMPLES):
    """Measure the votes and scores of all videos, balanced or not.

    Args:
        results: content of results.pth.
        scores: content of the scores.pth beside it; None: votes alone are measured.
        steps: S, the number of denoising steps.
        fixed_recalls: Fractions, shares of the unsafe videos.
        resamples: the number of bootstrap resamples.

    Returns:
        A ScoreReport.
    """
    report = ScoreReport(fixed_recalls)
    metrics = _Metrics(fixed_recalls, resamples)
    rows = {label: list(results[label]) for label in KIND_OF_LABEL}
    votes = _by_video(vote_table(results), "vote", rows)
    largest = None
    if scores is None:
        report.notes.append("no scores.pth beside the votes: metrics of votes only")
    else:
        members_of(scores)  # before a table is made of them
        table = _checked(score_table(scores), report.notes)
        members = _members(scores, report.notes)
        categories = category_names(scores)
        kind = "calibrated" if "calibrated" in table else "raw"
        over_categories = table.groupby(["label", "row", "step"], as_index=False)[kind].max()
        largest = _by_video(over_categories, kind, rows)
        parts = {ANY: largest}
        for group, own in members.items():
            own_rows = {**rows, LABEL_UNSAFE: own}
            category = categories[group]
            parts[category] = _by_video(table[table["group"] == group], kind, own_rows)
        _add_steps(metrics, f"{kind} probability", parts, steps)
        _add_calibration(report, table, members, categories, rows, resamples)
    _add_etas(metrics, votes, largest, steps)
    report.metrics = metrics.table()
    return report


class _Metrics:
    """Collects lines of metrics; scores of as many videos are measured on the same resamples."""

    def __init__(self, fixed_recalls, resamples):
        self.fixed_recalls = fixed_recalls
        self.resamples = resamples
        self._drawn = {}  # (unsafe videos, normal videos) → Resamples
        self._lines = []

    def add(self, score, category, unsafe, normal, step=None, eta=None):
        """Measure the scores [N1] of unsafe and [N0] of normal videos."""
        size = len(unsafe), len(normal)
        if size not in self._drawn:
            self._drawn[size] = Resamples(*size, self.resamples)
        line = {"score": score, "category": category, "step": step, "eta": eta}
        line |= {"unsafe": size[0], "normal": size[1]}
        intervals = self._drawn[size].intervals(unsafe, normal, self.fixed_recalls)
        for name, value in points(unsafe, normal, self.fixed_recalls).items():
            low, high = intervals[name] or (None, None)
            line |= {name: value, f"{name}_low": low, f"{name}_high": high}
        self._lines.append(line)

    def table(self):
        return pd.DataFrame(self._lines).astype({"step": "Int64", "eta": "Int64"})


def _by_video(table, column, rows):
    """Return {label: [N, S]} of a long table that has one line for each video and step.

    Args:
        rows: {label: [row]}, which videos, in which order.
    """
    matrices = {}
    for label, part in table.groupby("label"):
        wide = part.pivot(index="row", columns="step", values=column).loc[rows[label]]
        matrices[label] = np.ascontiguousarray(wide.to_numpy(np.float64))
    return matrices


def _checked(table, notes):
    """Return a `score_table` whose probabilities are finite; note what it lacks."""
    if "calibrated" not in table:
        notes.append(
            "scores.pth holds no calibrated probabilities (written before they were, or "
            "detectors without a calibration): raw ones are measured"
        )
    for kind in _kinds(table):
        check(table[kind])
    return table


def _kinds(table):
    return [kind for kind in ("raw", "calibrated") if kind in table]


def _members(scores, notes):
    """Return {group: [rows of its unsafe videos]} of the groups where they are known."""
    known = members_of(scores)
    if not known:
        notes.append(
            "by category: scores.pth does not say which videos belong to which (embed_model.py "
            "--label_file_dir)"
        )
        return {}
    members = {}
    for group in sorted(scores["scores"][LABEL_UNSAFE], key=int):
        name = category_names(scores)[group]
        own = known.get(group, [])
        if own:
            members[group] = own
        else:
            notes.append(f"category {name}: no held-out video, so nothing is known about it")
        if len(own) == 1:
            notes.append(f"category {name}: one held-out video, too few for intervals")
    return members


def _add_steps(metrics, score, parts, steps):
    """Measure the scores of each step alone. parts: {category: {label: [N, S]}}."""
    for step in range(steps):
        for category, part in parts.items():
            unsafe = part[LABEL_UNSAFE][:, step]
            normal = part[LABEL_NORMAL][:, step]
            metrics.add(score, category, unsafe, normal, step=step)


def _add_etas(metrics, votes, largest, steps):
    """Measure whole videos after the first eta steps.

    Args:
        votes: {label: [N, S]}.
        largest: {label: [N, S]}, the largest probability over categories; None: not known.
    """
    for eta in range(1, steps + 1):
        scores = {VOTES: {label: part[:, :eta].sum(1) for label, part in votes.items()}}
        if largest is not None:
            first = {label: part[:, :eta] for label, part in largest.items()}
            scores[MEAN] = {label: part.mean(1) for label, part in first.items()}
            scores[LOG_ODDS] = {label: log_odds(part).mean(1) for label, part in first.items()}
        for score, values in scores.items():
            metrics.add(score, ANY, values[LABEL_UNSAFE], values[LABEL_NORMAL], eta=eta)


def _add_calibration(report, table, members, categories, rows, resamples):
    """Measure calibration errors and reliability of the detectors, all steps together.

    Each category's detectors are asked about its videos and the normal ones, classes weighted
    alike; then come the detectors of all categories together.
    """
    parts = {categories[group]: {group: own} for group, own in members.items()}
    if len(parts) > 1:
        parts[ALL] = members
    errors = []
    curves = []
    for category, part in parts.items():
        for kind in _kinds(table):
            probabilities, labels, weights = _clips_of(table, kind, part, rows)
            unsafe = int(labels.sum())
            normal = int((1 - labels).sum())
            about = {"category": category, "probabilities": kind}
            measured = calibration_errors(probabilities, labels, weights)
            errors.append({**about, "unsafe": unsafe, "normal": normal, **measured})
            drawn = Resamples(unsafe, normal, resamples)
            curves.append(reliability(probabilities, labels, weights, drawn).assign(**about))
    if errors:
        report.calibration = pd.DataFrame(errors)
        report.reliability = pd.concat(curves)


def _clips_of(table, kind, members, rows):
    """Return (probabilities [V, K], labels [V], weights [V, K]) of the videos of `members`.

    Args:
        members: {group: [rows of its unsafe videos]}.
        rows: {label: [row]} of all videos; the normal ones all count.
    """
    wanted = set().union(*members.values())
    unsafe = [row for row in rows[LABEL_UNSAFE] if row in wanted]
    normal = rows[LABEL_NORMAL]
    labels = np.repeat([1, 0], [len(unsafe), len(normal)])
    probabilities = []
    weights = []
    for group, own in members.items():
        part = _by_video(
            table[table["group"] == group], kind, {LABEL_UNSAFE: unsafe, LABEL_NORMAL: normal}
        )
        clips = np.concatenate([part[LABEL_UNSAFE], part[LABEL_NORMAL]])  # [V, S]
        counted = np.concatenate([np.isin(unsafe, own), np.ones(len(normal), bool)])
        weight = np.zeros(len(labels))
        weight[counted] = balanced_weights(labels[counted])
        probabilities.append(clips)
        weights.append(np.repeat(weight[:, None], clips.shape[1], 1))
    return np.concatenate(probabilities, 1), labels, np.concatenate(weights, 1)
