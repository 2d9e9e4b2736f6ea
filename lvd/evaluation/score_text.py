"""A ScoreReport as text."""

import pandas as pd

from lvd.evaluation.metrics import ANY, names
from lvd.evaluation.score_report import LOG_ODDS, MEAN, VOTES

DEFINITIONS = {
    VOTES: "votes for unsafe among the first eta steps",
    MEAN: "mean over the first eta steps of the largest probability over categories",
    LOG_ODDS: "the same with the log-odds of that probability",
}
INTERVALS = (
    "in brackets: 95% bootstrap intervals over videos; one that has shrunk to a point, as of "
    "videos that are told\napart without an error, does not say that more videos would be, too"
)


def report_text(report, etas, steps):
    """Return the tables of a ScoreReport as text, then what could not be told.

    Args:
        report: ScoreReport.
        etas, steps: which of them the tables show.
    """
    metrics = report.metrics
    parts = [_videos_text(report, metrics[metrics["eta"].isin(etas)])]
    by_step = metrics[metrics["step"].isin(steps)]
    if len(by_step):
        parts.append(_steps_text(report, by_step))
    if len(report.calibration):
        parts.append(_calibration_text(report.calibration))
    notes = [f"not told: {note}" for note in report.notes]
    parts.append("\n".join([INTERVALS, *notes]))
    return "\n\n".join(parts)


def _videos_text(report, by_eta):
    title = "whole videos, unsafe against normal ones, after the first eta steps"
    text = _table_text(title, by_eta, ("score", "eta"), report)
    shown = set(by_eta["score"])
    for name, meaning in DEFINITIONS.items():
        if name in shown:
            text += f"\n    {name}: {meaning}"
    return text


def _steps_text(report, by_step):
    score = by_step["score"].iloc[0]
    title = f"one step's {score} ({ANY}: the largest over categories)"
    categories = [part for _, part in by_step.groupby("category", sort=False)]
    return _table_text(title, pd.concat(categories), ("category", "step"), report)


def _calibration_text(calibration):
    lines = [
        "are probabilities what they say? (held-out clips of all steps, unsafe and normal ones "
        "weighted alike)",
        f"  {'':<24}{'':<12}  log-loss   Brier     ECE",
    ]
    for row in calibration.itertuples():
        errors = f"{row.log_loss:8.4f} {row.brier:7.4f} {row.ece:7.4f}"
        lines.append(f"  {row.category:<24}{row.probabilities:<12}  {errors}")
    return "\n".join(lines)


def _table_text(title, table, keys, report):
    """Return a title and a line for each line of the table; keys: its first two columns."""
    columns = names(report.fixed_recalls)
    heads = "  ".join(f"{_head(name):<20}" for name in columns)
    lines = [title, f"  {keys[0]:<18}{keys[1]:>4}  {'videos':>9}  {heads}"]
    for row in table.to_dict("records"):
        cells = "  ".join(f"{_cell(row, name):<20}" for name in columns)
        videos = f"{row['unsafe']:>4}/{row['normal']:<4}"
        lines.append(f"  {row[keys[0]]:<18}{row[keys[1]]:>4}  {videos}  {cells}")
    return "\n".join(line.rstrip() for line in lines)


def _head(name):
    if name.startswith("fpr_at_recall_"):
        return f"FPR at recall {name.removeprefix('fpr_at_recall_')}"
    return {"auroc": "AUROC", "average_precision": "average precision"}[name]


def _cell(row, name):
    low = row[f"{name}_low"]
    high = row[f"{name}_high"]
    interval = "none" if pd.isna(low) else f"{low:.3f}, {high:.3f}"
    return f"{row[name]:.3f} [{interval}]"
