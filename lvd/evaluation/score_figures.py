"""Figures of test_accuracy.py --metrics: how well scores rank, and whether probabilities hold."""

from lvd.evaluation.figures import looks_of, name_of
from lvd.evaluation.metrics import ALL, ANY
from lvd.utils.plots import (
    PALETTE,
    legend_under,
    look_of,
    rate_limits,
    save_figure,
    shown,
    subplots,
    whole_steps,
)

KIND_LOOKS = {
    "raw": {"color": PALETTE["grey"], "marker": "s", "linestyle": "--"},
    "calibrated": {"color": PALETTE["blue"], "marker": "o", "linestyle": "-"},
}
ASIDE = 0.008  # how far the two kinds stand apart, so that their intervals are seen
EDGE = 0.02  # beyond 0 and 1, so that marks there are whole


def save_metrics_figure(report, path, title):
    """Draw AUROC, average precision and the first false positive rate of a ScoreReport.

    On the left are those of one step's scores, on the right those of videos after eta steps. Bands
    are 95% bootstrap intervals, drawn for "any" and for whole videos.

    Args:
        report: a ScoreReport.
        path: of the picture.
        title: says which videos were judged.
    """
    by_step = report.metrics[report.metrics["step"].notna()]
    by_eta = report.metrics[report.metrics["eta"].notna()]
    halves = [("step", "category", by_step)] if len(by_step) else []
    halves.append(("eta", "score", by_eta))
    recall = f"{float(report.fixed_recalls[0]):g}"
    metrics = {
        "auroc": "AUROC",
        "average_precision": "average precision",
        f"fpr_at_recall_{recall}": f"false positive rate\nat recall {recall}",
    }
    figure, axes = subplots(len(metrics), len(halves), figsize=(6 * len(halves), 11), squeeze=False)
    for column, (over, by, table) in zip(axes.T, halves):
        for axis, (metric, name) in zip(column, metrics.items()):
            _draw_lines(axis, table, over, by, metric)
            axis.set_ylabel(name)
            whole_steps(axis)
        legend_under(column[-1])
    heads = {"step": "one step's scores", "eta": "the first η steps together"}
    labels = {"step": "denoising step", "eta": "η: steps that count"}
    for top, bottom, (over, _, _) in zip(axes[0], axes[-1], halves):
        top.set_title(heads[over])
        bottom.set_xlabel(labels[over])
    figure.suptitle(f"Unsafe against normal, by scores: {title}\nbands: 95% intervals")
    save_figure(figure, path)


def _draw_lines(axis, table, over, by, metric):
    """Draw a metric's line for each category or score, with bands where they can be told apart."""
    names = list(table[by].unique())
    points = table[over].nunique()
    looks = looks_of(names, points)
    if by == "score":
        looks = {name: look_of(k, points) for k, name in enumerate(names)}
    ranges = [table[metric]]
    for name, look in looks.items():
        part = table[table[by] == name]
        kind = part["score"].iloc[0].split()[0]  # of "raw probability"
        label = name_of(name, kind) if by == "category" else shown(name)
        at = part[over].astype(int)
        axis.plot(at, part[metric], label=label, **look)
        low, high = (part[f"{metric}_{end}"].astype(float) for end in ("low", "high"))
        if (by == "score" or name == ANY) and low.notna().all():
            axis.fill_between(at, low, high, alpha=0.15, color=look["color"], linewidth=0)
            ranges += [low, high]
    axis.set_ylim(rate_limits(*ranges))


def save_reliability_figure(report, path, title):
    """Draw the share of unsafe clips in each bin of the probability, by category.

    Bars are 95% bootstrap intervals over videos.

    Args:
        report: ScoreReport with a calibration.
        path: of the picture.
        title: says which videos were judged.
    """
    categories = list(report.reliability.groupby("category", sort=False))
    across = min(3, len(categories))
    down = -(-len(categories) // across)
    figure, axes = subplots(down, across, figsize=(4.4 * across, 4.9 * down), squeeze=False)
    for axis in axes.flat[len(categories) :]:
        axis.set_axis_off()
    errors = report.calibration.set_index(["category", "probabilities"])
    for axis, (category, table) in zip(axes.flat, categories):
        axis.plot([0, 1], [0, 1], color=PALETTE["black"], linestyle=":", linewidth=1.2)
        kinds = list(table.groupby("probabilities", sort=False))
        for side, (kind, bins) in zip((-1, 1), kinds):
            _draw_reliability(axis, bins, kind, errors.loc[(category, kind)], side)
        limits = -EDGE, 1 + EDGE
        name = "all categories" if category == ALL else shown(category)
        axis.set(title=name, xlabel="probability of unsafe", xlim=limits, ylim=limits)
        legend_under(axis)
    for axis in axes[:, 0]:
        axis.set_ylabel("share of unsafe (classes balanced)")
    figure.suptitle(
        f"Do the probabilities hold? {title}\n"
        "dotted: they do; bars: 95% intervals; ECE: mean distance from the dotted line"
    )
    save_figure(figure, path)


def _draw_reliability(axis, bins, kind, errors, side):
    """Draw the bins of one category and kind of probabilities.

    Args:
        axis: to draw on.
        bins: their lines of the report's reliability.
        kind: of the probabilities.
        errors: their line of the report's calibration.
        side: -1 draws them a little to the left, 1 to the right.
    """
    below = (bins["unsafe"] - bins["low"]).clip(lower=0)
    above = (bins["high"] - bins["unsafe"]).clip(lower=0)
    axis.errorbar(
        bins["mean"] + side * ASIDE,
        bins["unsafe"],
        [below, above],
        markersize=4,
        linewidth=1.6,
        elinewidth=1,
        label=f"{kind}: log-loss {errors['log_loss']:.2f}, ECE {errors['ece']:.3f}",
        **KIND_LOOKS[kind],
    )
