"""Validation curves of all detectors in a folder: one table, and one figure with a mean curve for
each category."""

import csv
from pathlib import Path

import numpy as np

from lvd.utils.files import atomic
from lvd.utils.plots import pyplot, save_figure

CURVES = "curves.csv"
FIELDS = ("group", "step", "category", "epoch", "train_loss", "val_loss", "val_auroc")
SHOWN = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "val_auroc": "validation AUROC",
}


def curve_rows(about):
    """Rows of the table of one detector, from what it says about itself; [] when it has no curve."""
    curve, same = (
        about.get("curve") or {"epoch": []},
        {key: about.get(key) for key in ("group", "step", "category")},
    )
    return [
        {**same, **{key: values[k] for key, values in curve.items()}}
        for k in range(len(curve["epoch"]))
    ]


def save_curves(rows, save_dir):
    """Write curves.csv and curves.png; the paths written. rows: of `curve_rows`, of all detectors
    (none: nothing is)."""
    if not rows:
        return []
    path = Path(save_dir) / CURVES
    with atomic(path) as partial, open(partial, "w", newline="") as f:
        table = csv.DictWriter(f, fieldnames=FIELDS)
        table.writeheader()
        table.writerows(sorted(rows, key=lambda row: (row["group"], row["step"], row["epoch"])))
    _save_figure(rows, path.with_suffix(".png"))
    return [path, path.with_suffix(".png")]


def _save_figure(rows, path):
    """A line for each category: the mean over its steps, and a band from the lower to the upper
    quartile."""
    figure, axes = pyplot().subplots(
        1, len(SHOWN), figsize=(4.6 * len(SHOWN), 4), constrained_layout=True
    )
    for group, category in sorted({(row["group"], row["category"]) for row in rows}):
        mine = [row for row in rows if row["group"] == group]
        epochs = sorted({row["epoch"] for row in mine})
        for axis, key in zip(axes, SHOWN, strict=True):
            found = [[row[key] for row in mine if row["epoch"] == epoch] for epoch in epochs]
            (line,) = axis.plot(
                epochs, [np.mean(values) for values in found], label=f"{group} {category}"
            )
            low, high = zip(*(np.quantile(values, (0.25, 0.75)) for values in found), strict=True)
            axis.fill_between(epochs, low, high, alpha=0.12, color=line.get_color())
    for axis, name in zip(axes, SHOWN.values(), strict=True):
        axis.set(title=name, xlabel="epoch")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle("mean over the steps; band: half of them")
    save_figure(figure, path)
