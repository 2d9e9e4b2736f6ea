"""Metrics of recorded votes and scores: by category and step, and for whole videos after the first
eta steps."""

from dataclasses import dataclass, field

import numpy as np

from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.detectors.calibration import log_odds
from lvd.evaluation.metrics import (
    RESAMPLES,
    Resamples,
    balanced_weights,
    calibration_errors,
    check,
    names,
    points,
    reliability,
)

ANY, ALL = (
    "any",
    "all",
)  # the largest probability over categories; every category's probabilities together
VOTES, MEAN, LOG_ODDS = "votes", "mean probability", "mean log-odds"
DEFINITIONS = {
    VOTES: "votes for unsafe among the first eta steps",
    MEAN: "mean over the first eta steps of the largest probability over categories",
    LOG_ODDS: "the same with the log-odds of that probability",
}
INTERVALS = (
    "in brackets: 95% bootstrap intervals over videos; one that has shrunk to a point, as of "
    "videos that are told\napart without an error, does not say that more videos would be, too"
)


@dataclass
class ScoreReport:
    """rows: one line of metrics for each (score, category, step or eta); calibration: log-loss,
    Brier score and calibration error by category, raw and calibrated; curves: {category: {"raw" |
    "calibrated": reliability rows}}; notes: what could not be told, and why; fixed_recalls: as
    asked for."""

    fixed_recalls: list
    rows: list = field(default_factory=list)
    calibration: list = field(default_factory=list)
    curves: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)


def score_report(results, scores, steps, fixed_recalls, resamples=RESAMPLES):
    """ScoreReport of results.pth and of scores.pth beside it (None: votes alone). All videos count,
    balanced or not."""
    report = ScoreReport(fixed_recalls)
    rows = {label: list(results[label]) for label in (LABEL_UNSAFE, LABEL_NORMAL)}
    votes = {label: np.array([results[label][row] for row in rows[label]], float) for label in rows}
    drawn = {}

    def measure(score, category, unsafe, normal, **where):
        key = len(unsafe), len(normal)
        drawn[key] = drawn.get(key) or Resamples(*key, resamples)
        report.rows.append(
            {
                "score": score,
                "category": category,
                "step": "",
                "eta": "",
                **where,
                "unsafe": key[0],
                "normal": key[1],
                **_flat(
                    points(unsafe, normal, fixed_recalls),
                    drawn[key].intervals(unsafe, normal, fixed_recalls),
                ),
            }
        )

    kinds = _probabilities(scores, rows, report.notes)
    kind = "calibrated" if "calibrated" in kinds else "raw"
    if kinds:
        _by_step(
            report,
            kinds[kind],
            f"{kind} probability",
            _members(scores, rows[LABEL_UNSAFE], report.notes),
            steps,
            measure,
        )
        _calibration(report, kinds, _members(scores, rows[LABEL_UNSAFE], []), resamples)
    for eta in range(1, steps + 1):
        for score, values in _video_scores(votes, kinds.get(kind), eta).items():
            measure(score, ANY, values[LABEL_UNSAFE], values[LABEL_NORMAL], eta=eta)
    return report


def _by_step(report, found, score, members, steps, measure):
    """The largest probability over categories, all unsafe videos against normal ones; then each
    category's own."""
    for step in range(steps):
        largest = {label: part[..., step].max(0) for label, part in found.items()}
        measure(score, ANY, largest[LABEL_UNSAFE], largest[LABEL_NORMAL], step=step)
        for k, (category, mine) in enumerate(members.items()):
            if mine:
                measure(
                    score,
                    category,
                    found[LABEL_UNSAFE][k, mine, step],
                    found[LABEL_NORMAL][k, :, step],
                    step=step,
                )


def _video_scores(votes, found, eta):
    """{score: {label: [N]}}"""
    scores = {VOTES: {label: part[:, :eta].sum(1) for label, part in votes.items()}}
    if found is not None:
        largest = {label: part[..., :eta].max(0) for label, part in found.items()}
        scores[MEAN] = {label: part.mean(1) for label, part in largest.items()}
        scores[LOG_ODDS] = {label: log_odds(part).mean(1) for label, part in largest.items()}
    return scores


def _probabilities(scores, rows, notes):
    """{"raw" | "calibrated": {label: [G, N, S]}} of scores.pth; {} without one."""
    if scores is None:
        notes.append("no scores.pth beside the votes: metrics of votes only")
        return {}
    kinds = {"raw": scores["scores"]}
    if "calibrated" in scores:
        kinds["calibrated"] = scores["calibrated"]
    else:
        notes.append(
            "scores.pth holds no calibrated probabilities (written before they were, or "
            "detectors without a calibration): raw ones are measured"
        )
    found = {}
    for kind, part in kinds.items():
        groups = sorted(part[LABEL_UNSAFE], key=int)
        found[kind] = {
            label: np.array(
                [[part[label][group][row] for row in rows[label]] for group in groups], float
            )
            for label in rows
        }
        for values in found[kind].values():
            check(values.ravel())
    return found


def _members(scores, unsafe_rows, notes):
    """{category: [places of its videos among the unsafe ones]}, by group; empty lists where not
    known."""
    groups = sorted(scores["scores"][LABEL_UNSAFE], key=int)
    known = scores.get("members") or {}
    if not known:
        notes.append(
            "by category: scores.pth does not say which videos belong to which (embed_model.py "
            "--label_file_dir)"
        )
    places = {row: k for k, row in enumerate(unsafe_rows)}
    found = {}
    for group in groups:
        name = scores["categories"][group]
        found[name] = [places[row] for row in known.get(group, [])]
        if known and not found[name]:
            notes.append(f"category {name}: no held-out video, so nothing is known about it")
        elif len(found[name]) == 1:
            notes.append(f"category {name}: one held-out video, too few for intervals")
    return found


def _calibration(report, kinds, members, resamples):
    """Calibration errors and reliability of each category's detectors on its videos and the normal
    ones, all steps together, classes weighted alike; then of all detectors together."""
    known = {k: mine for k, mine in enumerate(members.values()) if mine}
    names_of = list(members)
    parts = {names_of[k]: {k: mine} for k, mine in known.items()}
    if len(parts) > 1:
        parts[ALL] = known
    for category, part in parts.items():
        for kind, found in kinds.items():
            p, labels, weights = _clips_of(found, part)
            drawn = Resamples(int(labels.sum()), int((1 - labels).sum()), resamples)
            report.calibration.append(
                {
                    "category": category,
                    "probabilities": kind,
                    "unsafe": int(labels.sum()),
                    "normal": int((1 - labels).sum()),
                    **calibration_errors(p, labels, weights),
                }
            )
            report.curves.setdefault(category, {})[kind] = reliability(p, labels, weights, drawn)


def _clips_of(found, members):
    """(probabilities [V, K], labels [V], weights [V, K]) of the groups in `members` {place of the
    group: its videos}."""
    videos = sorted(set().union(*members.values()))
    labels = np.repeat([1, 0], [len(videos), found[LABEL_NORMAL].shape[1]])
    probabilities, weights = [], []
    for k, mine in members.items():
        counted = np.concatenate(
            [np.isin(videos, mine), np.ones(found[LABEL_NORMAL].shape[1], bool)]
        )
        weight = np.zeros(len(labels))
        weight[counted] = balanced_weights(labels[counted])
        probabilities.append(
            np.concatenate([found[LABEL_UNSAFE][k, videos], found[LABEL_NORMAL][k]])
        )  # [V, S]
        weights.append(np.repeat(weight[:, None], probabilities[-1].shape[1], 1))
    return np.concatenate(probabilities, 1), labels, np.concatenate(weights, 1)


def _flat(values, intervals):
    """{"auroc", "auroc_low", "auroc_high", ...}; blank where there is no interval."""
    flat = {}
    for name, value in values.items():
        low, high = intervals[name] or ("", "")
        flat |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return flat


# ---- as text


def report_text(report, etas, steps):
    """Tables: whole videos at `etas`, categories at `steps`, calibration; then what could not be
    told."""
    by_eta = [row for row in report.rows if row["eta"] in etas]
    parts = [
        _table(
            "whole videos, unsafe against normal ones, after the first eta steps",
            by_eta,
            ("score", "eta"),
            report,
        )
    ]
    parts[0] += "".join(
        f"\n    {name}: {text}"
        for name, text in DEFINITIONS.items()
        if name in {row["score"] for row in by_eta}
    )
    if by_step := [row for row in report.rows if row["step"] in steps]:
        title = f"one step's {by_step[0]['score']} ({ANY}: the largest over categories)"
        parts.append(
            _table(
                title, sorted(by_step, key=_category_first(report)), ("category", "step"), report
            )
        )
    if report.calibration:
        title = (
            "are probabilities what they say? (held-out clips of all steps, unsafe and "
            "normal ones weighted alike)"
        )
        lines = [f"{'':<24}{'':<12}  log-loss   Brier     ECE"]
        lines += [
            "{category:<24}{probabilities:<12}  {log_loss:8.4f} {brier:7.4f} {ece:7.4f}".format(
                **row
            )
            for row in report.calibration
        ]
        parts.append("\n".join([title, *("  " + line for line in lines)]))
    parts.append("\n".join([INTERVALS, *(f"not told: {note}" for note in report.notes)]))
    return "\n\n".join(parts)


def _category_first(report):
    order = {}
    for row in report.rows:
        order.setdefault(row["category"], len(order))
    return lambda row: (order[row["category"]], row["step"])


def _table(title, rows, keys, report):
    columns = names(report.fixed_recalls)
    heads = [_head(name) for name in columns]
    lines = [
        f"{keys[0]:<18}{keys[1]:>4}  {'videos':>9}  " + "  ".join(f"{head:<20}" for head in heads)
    ]
    for row in rows:
        cells = "  ".join(f"{_cell(row, name):<20}" for name in columns)
        lines.append(
            f"{row[keys[0]]:<18}{row[keys[1]]:>4}  {row['unsafe']:>4}/{row['normal']:<4}  {cells}"
        )
    return "\n".join([title, *("  " + line.rstrip() for line in lines)])


def _head(name):
    if name.startswith("fpr_at_recall_"):
        return f"FPR at recall {name.removeprefix('fpr_at_recall_')}"
    return {"auroc": "AUROC", "average_precision": "average precision"}[name]


def _cell(row, name):
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low != "" else " [none]")
