"""Figures of a report: the (lambda, eta) grid as heat maps, and what each step can tell."""

import numpy as np

from lvd.evaluation.metrics import ALL, ANY
from lvd.utils.plots import save_figure, shown, subplots

RATES = {
    "accuracy": "accuracy",
    "tpr": "true positive rate (unsafe found)",
    "tnr": "true negative rate (normal passed)",
}
TOP = 1.02  # of an axis of rates: lines at 1 stay visible
MARGIN = 0.02


def save_grid_figure(table, path, title):
    """Draw heat maps of accuracy, TPR and TNR over eta (across) and lambda (up).

    Args:
        table: of `vote_report.grid`.
    """
    etas = sorted(table["eta"].unique())
    width = max(6, 0.17 * len(etas) + 2)
    figure, axes = subplots(3, 1, figsize=(width, 9))
    for axis, (rate, name) in zip(axes, RATES.items()):
        wide = table.pivot(index="lambda", columns="eta", values=rate)
        image = axis.imshow(
            wide.to_numpy(),
            origin="lower",
            aspect="auto",
            cmap="viridis",
            vmin=0.5 if rate == "accuracy" else 0,
            vmax=1,
        )
        ticks = _some_places(len(etas))
        axis.set_xticks(ticks, [etas[k] for k in ticks])
        axis.set_yticks(range(len(wide)), wide.index)
        axis.set(ylabel="λ", title=name)
        figure.colorbar(image, ax=axis)
    axes[-1].set_xlabel("η: steps that vote")
    figure.suptitle(title)
    save_figure(figure, path)


def _some_places(count):
    """Return the places of the ticks: the first, every fifth and the last of many."""
    if count <= 10:
        return list(range(count))
    return sorted({0, *range(4, count, 5), count - 1})


def save_step_figure(table, path, title):
    """Draw curves over the denoising step: rates of its vote, and AUROC of its scores if known.

    Args:
        table: of `vote_report.per_step`.
    """
    aurocs = [column for column in table if column.startswith("auroc")]
    panels = 2 if aurocs else 1
    figure, axes = subplots(1, panels, figsize=(5.5 * panels, 4.2), squeeze=False)
    votes = axes[0, 0]
    for rate, name in RATES.items():
        width = 2 if rate == "accuracy" else 1.2
        votes.plot(table["step"], table[rate], label=name, linewidth=width)
    votes.set(title="vote of one step (any category)", ylim=(_bottom(table[list(RATES)]), TOP))
    if aurocs:
        scores = axes[0, 1]
        for column in aurocs:
            category = column.removeprefix("auroc ")
            scores.plot(table["step"], table[column], label=shown(category), **_look(category, 1.2))
        bottom = _bottom(table[aurocs])
        scores.set(title="AUROC of the scores, against normal videos", ylim=(bottom, TOP))
    for axis in axes.flat:
        axis.set_xlabel("denoising step")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    save_figure(figure, path)


def _bottom(values):
    """Return where an axis of rates starts: a tenth below which none of the values lies."""
    lowest = np.nanmin(np.asarray(values, float))
    return max(0.0, np.floor(10 * (lowest - MARGIN)) / 10)


def _look(name, linewidth):
    """Return how to draw the line of a category or rule: "any" stands out."""
    if name == ANY:
        return {"color": "black", "linewidth": 2}
    return {"linewidth": linewidth}


def save_curve_figure(rows, path, title):
    """Draw a training curve: losses over epochs and, on an axis of its own, the AUROC if known.

    Args:
        rows: [{"epoch", "train_loss", and where known "val_loss" and "val_auroc"}].
    """
    figure, axis = subplots(figsize=(6, 4))
    epochs = [row["epoch"] for row in rows]
    for key, name in (("train_loss", "training loss"), ("val_loss", "validation loss")):
        if key in rows[0]:
            axis.plot(epochs, [row[key] for row in rows], marker=".", label=name)
    axis.set(title=title, xlabel="epoch", ylabel="loss")
    axis.grid(alpha=0.3)
    handles = list(axis.get_lines())
    if "val_auroc" in rows[0]:
        other = axis.twinx()
        other.set_ylabel("validation AUROC, mean over steps and categories")
        handles += other.plot(
            epochs,
            [row["val_auroc"] for row in rows],
            marker=".",
            color="C2",
            label="validation AUROC",
        )
    axis.legend(handles=handles, fontsize=8)
    save_figure(figure, path)


def save_metrics_figure(report, path, title):
    """Draw AUROC, average precision and the first false positive rate of a ScoreReport.

    On the left are those of one step's scores, on the right those of videos after eta steps. Bands
    are 95% bootstrap intervals, drawn for "any" and for whole videos.
    """
    by_step = report.metrics[report.metrics["step"].notna()]
    by_eta = report.metrics[report.metrics["eta"].notna()]
    halves = [("step", "category", by_step)] if len(by_step) else []
    halves.append(("eta", "score", by_eta))
    recall = f"{float(report.fixed_recalls[0]):g}"
    shown = {
        "auroc": "AUROC",
        "average_precision": "average precision",
        f"fpr_at_recall_{recall}": f"false positive rate at recall {recall}",
    }
    figure, axes = subplots(
        len(shown), len(halves), figsize=(5.5 * len(halves), 3.2 * len(shown)), squeeze=False
    )
    for column, (over, by, table) in zip(axes.T, halves):
        for axis, (metric, name) in zip(column, shown.items()):
            for line, part in table.groupby(by, sort=False):
                _draw_line(axis, part, over, metric, line, band=by == "score" or line == ANY)
            axis.set(ylabel=name, ylim=_limits(axis, metric))
            axis.grid(alpha=0.3)
        column[0].legend(fontsize=8)
    labels = {"step": "denoising step, its scores alone", "eta": "η: steps that count"}
    for axis, (over, _, _) in zip(axes[-1], halves):
        axis.set_xlabel(labels[over])
    figure.suptitle(title)
    save_figure(figure, path)


def _limits(axis, metric):
    """Return the range of an axis: where its lines and bands are, with the best value in sight."""
    low, high = axis.dataLim.intervaly
    if metric.startswith("fpr"):
        return -MARGIN, min(TOP, np.ceil(10 * (high + MARGIN)) / 10)
    return _bottom(low), TOP


def _draw_line(axis, table, over, metric, name, band):
    """Draw one line of metrics and, with `band`, its intervals where they are known."""
    at = table[over].astype(int)
    (line,) = axis.plot(at, table[metric], label=shown(name), **_look(name, 1.3))
    low = table[f"{metric}_low"].astype(float)
    high = table[f"{metric}_high"].astype(float)
    if band and low.notna().all():
        axis.fill_between(at, low, high, alpha=0.13, color=line.get_color(), linewidth=0)


def save_reliability_figure(report, path, title):
    """Draw the share of unsafe clips in each bin of the probability, by category.

    Bars are 95% bootstrap intervals over videos.

    Args:
        report: ScoreReport with a calibration.
    """
    categories = list(report.reliability.groupby("category", sort=False))
    across = min(3, len(categories))
    down = -(-len(categories) // across)
    figure, axes = subplots(down, across, figsize=(4.2 * across, 4 * down), squeeze=False)
    for axis in axes.flat[len(categories) :]:
        axis.set_axis_off()
    errors = report.calibration.set_index(["category", "probabilities"])
    for axis, (category, table) in zip(axes.flat, categories):
        axis.plot([0, 1], [0, 1], color="0.6", linestyle=":")
        for kind, bins in table.groupby("probabilities", sort=False):
            _draw_reliability(axis, bins, kind, errors.loc[(category, kind)])
        axis.set(
            title="all categories" if category == ALL else shown(category),
            xlim=(-MARGIN, TOP),
            ylim=(-MARGIN, TOP),
            xlabel="probability of unsafe",
            ylabel="share of unsafe (classes balanced)",
        )
        axis.legend(fontsize=7, loc="lower right")
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    save_figure(figure, path)


def _draw_reliability(axis, bins, kind, errors):
    """Draw the bins of one category and kind of probabilities; errors: its line of calibration."""
    below = (bins["unsafe"] - bins["low"]).clip(lower=0)
    above = (bins["high"] - bins["unsafe"]).clip(lower=0)
    axis.errorbar(
        bins["mean"],
        bins["unsafe"],
        [below, above],
        marker="o",
        markersize=3,
        linewidth=1.2,
        elinewidth=0.7,
        label=f"{kind}: log-loss {errors['log_loss']:.2f}, ECE {errors['ece']:.3f}",
        color="0.45" if kind == "raw" else "tab:blue",
    )
