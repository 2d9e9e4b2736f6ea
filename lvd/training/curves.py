"""Validation curves of all detectors in a folder: one table, and a mean curve of each category."""

import csv
from pathlib import Path

import numpy as np

from lvd.utils.files import atomic
from lvd.utils.plots import pyplot, save_figure

CURVES = "curves.csv"
TITLES = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "val_auroc": "validation AUROC",
}
FIELDS = ("group", "step", "category", "epoch", *TITLES)


def curve_rows(about):
    """Return a detector's rows of the table from what it says about itself; [] without a curve."""
    curve = about.get("curve") or {"epoch": []}
    place = {key: about.get(key) for key in ("group", "step", "category")}
    rows = []
    for k in range(len(curve["epoch"])):
        values = {key: series[k] for key, series in curve.items()}
        rows.append({**place, **values})
    return rows


def save_curves(rows, save_dir):
    """Write curves.csv and curves.png, if there are any rows.

    Args:
        rows: of `curve_rows`, of all detectors.
        save_dir: their folder.
    """
    if not rows:
        return
    path = Path(save_dir) / CURVES
    with atomic(path) as partial, open(partial, "w", newline="") as f:
        table = csv.DictWriter(f, fieldnames=FIELDS)
        table.writeheader()
        table.writerows(sorted(rows, key=lambda row: (row["group"], row["step"], row["epoch"])))
    _save_figure(rows, path.with_suffix(".png"))


def _save_figure(rows, path):
    """Draw a line for each category, the mean over its steps, and a band of its quartiles."""
    figure, axes = pyplot().subplots(
        1, len(TITLES), figsize=(4.6 * len(TITLES), 4), constrained_layout=True
    )
    for group, category in sorted({(row["group"], row["category"]) for row in rows}):
        of_group = [row for row in rows if row["group"] == group]
        for axis, key in zip(axes, TITLES, strict=True):
            _draw(axis, of_group, key, f"{group} {category}")
    for axis, title in zip(axes, TITLES.values(), strict=True):
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle("mean over the steps; band: half of them")
    save_figure(figure, path)


def _draw(axis, rows, key, label):
    epochs = sorted({row["epoch"] for row in rows})
    values = [[row[key] for row in rows if row["epoch"] == epoch] for epoch in epochs]
    (line,) = axis.plot(epochs, [np.mean(of_epoch) for of_epoch in values], label=label)
    quartiles = [np.quantile(of_epoch, (0.25, 0.75)) for of_epoch in values]
    low, high = zip(*quartiles, strict=True)
    axis.fill_between(epochs, low, high, alpha=0.12, color=line.get_color())
