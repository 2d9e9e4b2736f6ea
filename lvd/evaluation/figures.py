"""Figures of a report: the (lambda, eta) grid as heat maps, what each step can tell, and how a
training went."""

from lvd.evaluation.metrics import ANY
from lvd.evaluation.vote_report import some_etas
from lvd.utils.plots import (
    PALETTE,
    heat_map,
    legend_under,
    look_of,
    rate_limits,
    save_figure,
    shown,
    subplots,
    whole_steps,
)

RATES = {
    "accuracy": "accuracy",
    "tpr": "true positive rate (unsafe found)",
    "tnr": "true negative rate (normal passed)",
}
HIGHEST_LOW = 0.9  # a grid of nothing but ones needs a darkest colour, too
RATE_LOOKS = {
    "accuracy": {"color": PALETTE["black"], "linewidth": 2.4},
    "tpr": look_of(0),
    "tnr": look_of(1),
}


def save_grid_figure(table, path, title):
    """Draw heat maps of accuracy, TPR and TNR with the values, as grid.txt has them.

    The etas across and the lambdas down are those of `vote_report.grid_text`, in its order. All
    maps have the same colours.

    Args:
        table: of `vote_report.grid`.
        path: of the picture.
        title: says which videos were judged.
    """
    known = set(table["eta"])
    etas = [eta for eta in some_etas(max(known)) if eta in known]
    table = table[table["eta"].isin(etas)]
    lowest = min(table[list(RATES)].min().min(), HIGHEST_LOW)
    lambdas = table["lambda"].nunique()
    size = max(6, 0.62 * len(etas) + 2), 3 * (0.3 * lambdas + 0.8) + 0.8
    figure, axes = subplots(3, 1, figsize=size)
    for axis, (rate, name) in zip(axes, RATES.items()):
        wide = table.pivot(index="lambda", columns="eta", values=rate)
        image = heat_map(axis, wide.to_numpy(), lowest, 1, form="{:.3f}")
        axis.set_xticks(range(len(etas)), etas)
        axis.set_yticks(range(len(wide)), wide.index)
        axis.set(ylabel="λ: share of the votes", title=name)
    axes[-1].set_xlabel("η: steps that vote")
    figure.colorbar(image, ax=axes, label="share of the videos, in all three maps", aspect=60)
    figure.suptitle(f"The vote with each λ and η\n{title}")
    save_figure(figure, path)


def save_step_figure(table, path, title):
    """Draw curves over the denoising step: rates of its vote, and AUROC of its scores if known.

    Args:
        table: of `vote_report.per_step`.
        path: of the picture.
        title: says which videos were judged.
    """
    aurocs = [column for column in table if column.startswith("auroc")]
    panels = 2 if aurocs else 1
    figure, axes = subplots(1, panels, figsize=(6 * panels, 5.5), squeeze=False)
    votes = axes[0, 0]
    for rate, name in RATES.items():
        votes.plot(table["step"], table[rate], label=name, **RATE_LOOKS[rate])
    votes.set(title="the vote of one step, any category", ylabel="share of the videos")
    votes.set_ylim(rate_limits(table[list(RATES)]))
    if aurocs:
        scores = axes[0, 1]
        categories = [column.removeprefix("auroc ") for column in aurocs]
        for category, look in looks_of(categories, len(table)).items():
            label = name_of(category, "raw")
            scores.plot(table["step"], table[f"auroc {category}"], label=label, **look)
        scores.set(title="how well one step's scores rank", ylabel="AUROC against normal videos")
        scores.set_ylim(rate_limits(table[aurocs]))
    for axis in axes.flat:
        axis.set_xlabel("denoising step")
        whole_steps(axis)
        legend_under(axis)
    figure.suptitle(f"Each step alone: {title}")
    save_figure(figure, path)


def name_of(category, kind):
    """Return what a legend says of a category; "any" is the largest probability of a video.

    A detector's calibration never changes the order of its own probabilities. It changes which of
    several detectors' is the largest, so the AUROC of "any" differs between the two kinds.

    Args:
        category: a name, or ANY.
        kind: of the probabilities, "raw" or "calibrated".
    """
    return f"any: the largest\n{kind} probability" if category == ANY else shown(category)


def looks_of(names, points):
    """Return {name: how to draw its line}: "any" is black and wide, the others have colours."""
    categories = [name for name in names if name != ANY]
    looks = {name: look_of(k, points) for k, name in enumerate(categories)}
    wide = {"color": PALETTE["black"], "linewidth": 2.4}
    return {name: looks.get(name, wide) for name in names}


def save_curve_figure(rows, path, title):
    """Draw a training curve: losses over epochs and, on an axis of its own, the AUROC if known.

    Args:
        rows: [{"epoch", "train_loss", and where known "val_loss" and "val_auroc"}].
        path: of the picture.
        title: says what was trained.
    """
    figure, axis = subplots(figsize=(7, 5))
    epochs = [row["epoch"] for row in rows]
    names = {"train_loss": "training loss", "val_loss": "validation loss"}
    for k, (key, name) in enumerate(names.items()):
        if key in rows[0]:
            look = look_of(k, len(epochs))
            axis.plot(epochs, [row[key] for row in rows], label=name, **look)
    axis.set(title=f"{title}: training over {len(epochs)} epochs", xlabel="epoch", ylabel="loss")
    whole_steps(axis)
    handles = list(axis.get_lines())
    if "val_auroc" in rows[0]:
        other = axis.twinx()
        other.grid(False)
        other.set_ylabel("AUROC, mean over steps and categories")
        look = {**look_of(2, len(epochs)), "linestyle": "--"}
        aurocs = [row["val_auroc"] for row in rows]
        handles += other.plot(epochs, aurocs, label="validation AUROC (right axis)", **look)
    legend_under(axis, handles)
    save_figure(figure, path)
