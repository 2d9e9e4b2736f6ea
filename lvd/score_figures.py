"""Figures of a score report: metrics by step and by eta with their intervals, and reliability."""

from lvd.figures import pyplot, save
from lvd.score_report import ALL, ANY

SHOWN = {"auroc": "AUROC", "average_precision": "average precision"}


def save_metrics_figure(report, path, title):
    """AUROC, average precision and the first false positive rate: of one step's scores (left), of videos after eta steps
    (right). Bands are 95% bootstrap intervals, drawn for "any" and for whole videos."""
    plt = pyplot()
    recall = report.fixed_recalls[0]
    shown = SHOWN | {f"fpr_at_recall_{float(recall):g}": f"false positive rate at recall {float(recall):g}"}
    by_step = [row for row in report.rows if row["step"] != ""]
    halves = [("step", "category", by_step)] if by_step else []
    halves.append(("eta", "score", [row for row in report.rows if row["eta"] != ""]))
    figure, axes = plt.subplots(len(shown), len(halves), figsize=(5.5 * len(halves), 3.2 * len(shown)), squeeze=False,
                                constrained_layout=True)
    for column, (over, by, rows) in enumerate(halves):
        for axis, (metric, name) in zip(axes[:, column], shown.items()):
            for line in dict.fromkeys(row[by] for row in rows):
                _line(axis, [row for row in rows if row[by] == line], over, metric, line, by == "score" or line == ANY)
            axis.set(ylabel=name, ylim=(None, 1.02) if metric in SHOWN else (-0.02, 1.02))
            axis.grid(alpha=0.3)
        axes[0, column].legend(fontsize=8)
        axes[-1, column].set_xlabel({"step": "denoising step, its scores alone", "eta": "η: steps that count"}[over])
    figure.suptitle(title)
    save(figure, path)


def _line(axis, rows, over, metric, name, band):
    at = [row[over] for row in rows]
    thick = {"color": "black", "linewidth": 2} if name == ANY else {"linewidth": 1.3}
    drawn, = axis.plot(at, [row[metric] for row in rows], label=name, **thick)
    if band and all(row[f"{metric}_low"] != "" for row in rows):
        axis.fill_between(at, [row[f"{metric}_low"] for row in rows], [row[f"{metric}_high"] for row in rows], alpha=0.13,
                          color=drawn.get_color(), linewidth=0)


def save_reliability_figure(report, path, title):
    """Share of unsafe clips in each bin of the probability, by category; bars are 95% intervals over videos."""
    plt = pyplot()
    errors = {(row["category"], row["probabilities"]): row for row in report.calibration}
    columns = min(3, len(report.curves))
    lines = -(-len(report.curves) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.2 * columns, 4 * lines), squeeze=False, constrained_layout=True)
    for axis in axes.flat[len(report.curves):]:
        axis.set_axis_off()
    for axis, (category, curves) in zip(axes.flat, report.curves.items()):
        axis.plot([0, 1], [0, 1], color="0.6", linestyle=":")
        for kind, bins in curves.items():
            share = [row["unsafe"] for row in bins]
            spread = [[max(0, s - row["low"]) for s, row in zip(share, bins)],
                      [max(0, row["high"] - s) for s, row in zip(share, bins)]]
            error = errors[category, kind]
            axis.errorbar([row["mean"] for row in bins], share, spread, marker="o", markersize=3, linewidth=1.2,
                          elinewidth=0.7, label=f"{kind}: log-loss {error['log_loss']:.2f}, ECE {error['ece']:.3f}",
                          color="0.45" if kind == "raw" else "tab:blue")
        axis.set(title="all categories" if category == ALL else category, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02),
                 xlabel="probability of unsafe", ylabel="share of unsafe (classes balanced)")
        axis.legend(fontsize=7, loc="lower right")
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    save(figure, path)
