"""Figures of a report: the (lambda, eta) grid as heat maps, and what each step can tell."""

import numpy as np

from lvd.evaluation.score_report import ALL, ANY
from lvd.utils.plots import pyplot, save_figure

NAMES = {
    "accuracy": "accuracy",
    "tpr": "true positive rate (unsafe found)",
    "tnr": "true negative rate (normal passed)",
}
SHOWN = {"auroc": "AUROC", "average_precision": "average precision"}


def save_grid_figure(rows, path, title):
    """Heat maps of accuracy, TPR and TNR over eta (across) and lambda (up)."""
    plt = pyplot()
    lambdas, etas = sorted({r["lambda"] for r in rows}), sorted({r["eta"] for r in rows})
    figure, axes = plt.subplots(
        3, 1, figsize=(max(6, 0.17 * len(etas) + 2), 9), constrained_layout=True
    )
    for axis, (key, name) in zip(axes, NAMES.items()):
        found = {(r["lambda"], r["eta"]): r[key] for r in rows}
        image = axis.imshow(
            [[found[lam, eta] for eta in etas] for lam in lambdas],
            origin="lower",
            aspect="auto",
            cmap="viridis",
            vmin=0.5 if key == "accuracy" else 0,
            vmax=1,
        )
        ticks = sorted(
            {0, *range(4, len(etas), 5), len(etas) - 1} if len(etas) > 10 else range(len(etas))
        )
        axis.set_xticks(ticks, [etas[k] for k in ticks])
        axis.set_yticks(range(len(lambdas)), lambdas)
        axis.set(ylabel="λ", title=name)
        figure.colorbar(image, ax=axis)
    axes[-1].set_xlabel("η: steps that vote")
    figure.suptitle(title)
    save_figure(figure, path)


def save_step_figure(rows, path, title):
    """Curves over the denoising step: accuracy, TPR and TNR of the OR vote; AUROC of scores where
    known."""
    plt = pyplot()
    aurocs = [key for key in rows[0] if key.startswith("auroc")]
    panels = 2 if aurocs else 1
    figure, axes = plt.subplots(
        1, panels, figsize=(5.5 * panels, 4.2), squeeze=False, constrained_layout=True
    )
    steps = [row["step"] for row in rows]
    for key, name in NAMES.items():
        axes[0, 0].plot(
            steps, [row[key] for row in rows], label=name, linewidth=2 if key == "accuracy" else 1.2
        )
    axes[0, 0].set(title="vote of one step (any category)", xlabel="denoising step", ylim=(0, 1.02))
    axes[0, 0].legend(fontsize=8)
    for key in aurocs:
        thick = key == "auroc any"
        axes[0, 1].plot(
            steps,
            [row[key] for row in rows],
            label=key.removeprefix("auroc "),
            linewidth=2 if thick else 1.2,
            color="black" if thick else None,
        )
    if aurocs:
        low = np.floor(10 * min(row[key] for row in rows for key in aurocs)) / 10
        axes[0, 1].set(
            title="AUROC of the scores, against normal videos",
            xlabel="denoising step",
            ylim=(low, 1.02),
        )
        axes[0, 1].legend(fontsize=8)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    save_figure(figure, path)


def save_curve_figure(rows, path, title):
    """Training curve over epochs: losses, and on an axis of its own the AUROC where it is known."""
    figure, axis = pyplot().subplots(figsize=(6, 4), constrained_layout=True)
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
    """AUROC, average precision and the first false positive rate: of one step's scores (left), of
    videos after eta steps (right). Bands are 95% bootstrap intervals, drawn for "any" and for whole
    videos."""
    plt = pyplot()
    recall = report.fixed_recalls[0]
    shown = SHOWN | {
        f"fpr_at_recall_{float(recall):g}": f"false positive rate at recall {float(recall):g}"
    }
    by_step = [row for row in report.rows if row["step"] != ""]
    halves = [("step", "category", by_step)] if by_step else []
    halves.append(("eta", "score", [row for row in report.rows if row["eta"] != ""]))
    figure, axes = plt.subplots(
        len(shown),
        len(halves),
        figsize=(5.5 * len(halves), 3.2 * len(shown)),
        squeeze=False,
        constrained_layout=True,
    )
    for column, (over, by, rows) in enumerate(halves):
        for axis, (metric, name) in zip(axes[:, column], shown.items()):
            for line in dict.fromkeys(row[by] for row in rows):
                _line(
                    axis,
                    [row for row in rows if row[by] == line],
                    over,
                    metric,
                    line,
                    by == "score" or line == ANY,
                )
            axis.set(ylabel=name, ylim=(None, 1.02) if metric in SHOWN else (-0.02, 1.02))
            axis.grid(alpha=0.3)
        axes[0, column].legend(fontsize=8)
        axes[-1, column].set_xlabel(
            {"step": "denoising step, its scores alone", "eta": "η: steps that count"}[over]
        )
    figure.suptitle(title)
    save_figure(figure, path)


def _line(axis, rows, over, metric, name, band):
    at = [row[over] for row in rows]
    thick = {"color": "black", "linewidth": 2} if name == ANY else {"linewidth": 1.3}
    (drawn,) = axis.plot(at, [row[metric] for row in rows], label=name, **thick)
    if band and all(row[f"{metric}_low"] != "" for row in rows):
        axis.fill_between(
            at,
            [row[f"{metric}_low"] for row in rows],
            [row[f"{metric}_high"] for row in rows],
            alpha=0.13,
            color=drawn.get_color(),
            linewidth=0,
        )


def save_reliability_figure(report, path, title):
    """Share of unsafe clips in each bin of the probability, by category; bars are 95% intervals
    over videos."""
    plt = pyplot()
    errors = {(row["category"], row["probabilities"]): row for row in report.calibration}
    columns = min(3, len(report.curves))
    lines = -(-len(report.curves) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.2 * columns, 4 * lines), squeeze=False, constrained_layout=True
    )
    for axis in axes.flat[len(report.curves) :]:
        axis.set_axis_off()
    for axis, (category, curves) in zip(axes.flat, report.curves.items()):
        axis.plot([0, 1], [0, 1], color="0.6", linestyle=":")
        for kind, bins in curves.items():
            share = [row["unsafe"] for row in bins]
            spread = [
                [max(0, s - row["low"]) for s, row in zip(share, bins)],
                [max(0, row["high"] - s) for s, row in zip(share, bins)],
            ]
            error = errors[category, kind]
            axis.errorbar(
                [row["mean"] for row in bins],
                share,
                spread,
                marker="o",
                markersize=3,
                linewidth=1.2,
                elinewidth=0.7,
                label=f"{kind}: log-loss {error['log_loss']:.2f}, ECE {error['ece']:.3f}",
                color="0.45" if kind == "raw" else "tab:blue",
            )
        axis.set(
            title="all categories" if category == ALL else category,
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            xlabel="probability of unsafe",
            ylabel="share of unsafe (classes balanced)",
        )
        axis.legend(fontsize=7, loc="lower right")
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    save_figure(figure, path)
