"""Validation curves of all detectors in a folder: one table, and a mean curve of each category."""

from pathlib import Path

import pandas as pd

from lvd.utils.files import save_csv
from lvd.utils.plots import (
    colour_of,
    drawn,
    legend_below,
    look_of,
    save_figure,
    shown,
    subplots,
    whole_steps,
)

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
    """Write curves.csv and draw curves.png, if there are any rows.

    Args:
        rows: of `curve_rows`, of all detectors.
        save_dir: their folder.
    """
    if not rows:
        return
    path = Path(save_dir) / CURVES
    table = pd.DataFrame(rows).sort_values(["group", "step", "epoch"])
    save_csv(table.to_dict("records"), path, FIELDS)
    drawn(_save_figure, table, path.with_suffix(".png"))


def _save_figure(table, path):
    """Draw a line for each category, the mean over its steps, and a band of its quartiles."""
    figure, axes = subplots(1, len(TITLES), figsize=(4 * len(TITLES), 4.2))
    for k, ((group, category), of_group) in enumerate(table.groupby(["group", "category"])):
        look = {"color": colour_of(k), "linestyle": look_of(k)["linestyle"]}
        for axis, key in zip(axes, TITLES, strict=True):
            _draw(axis, of_group, key, label=f"{group} {shown(category)}", **look)
    for axis, title in zip(axes, TITLES.values(), strict=True):
        axis.set(title=title, xlabel="epoch")
        whole_steps(axis)
    legend_below(figure, axes[0])
    figure.suptitle("mean over the steps; band: half of them")
    save_figure(figure, path)


def _draw(axis, table, key, **look):
    by_epoch = table.groupby("epoch")[key]
    mean = by_epoch.mean()
    (line,) = axis.plot(mean.index, mean, **look)
    low, high = by_epoch.quantile(0.25), by_epoch.quantile(0.75)
    axis.fill_between(mean.index, low, high, alpha=0.12, color=line.get_color())
