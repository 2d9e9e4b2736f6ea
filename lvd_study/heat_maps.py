"""Heat maps of a study: one panel for each kind of detectors, each cell with its value."""

import numpy as np

from lvd.utils.plots import heat_map, save_figure, shown, subplots

MOST_VALUES = 16  # columns that have room for a value in each cell


def save_heat_maps(content, path):
    """Draw heat maps one below the other, with one scale of colours.

    Args:
        content: {"title": text, "across": text, "up": text, "low": number, "high": number,
            "panels": [(title, row names, column names, values [rows, columns])]}.
        path: of the picture.
    """
    panels = content["panels"]
    rows = sum(len(names) for _, names, _, _ in panels)
    figure, axes = subplots(
        len(panels), 1, figsize=(9.5, 1.6 * len(panels) + 0.34 * rows), squeeze=False
    )
    for axis, (title, row_names, column_names, values) in zip(axes[:, 0], panels, strict=True):
        form = "{:.2f}" if len(column_names) <= MOST_VALUES else ""
        image = heat_map(axis, np.asarray(values), content["low"], content["high"], form)
        ticks = _some(len(column_names))
        axis.set_xticks(ticks, [column_names[place] for place in ticks])
        axis.set_yticks(range(len(row_names)), [shown(name) for name in row_names])
        axis.set(title=title, ylabel=content["up"])
        figure.colorbar(image, ax=axis)
    axes[-1, 0].set_xlabel(content["across"])
    figure.suptitle(content["title"])
    save_figure(figure, path)


def _some(count):
    """Places of ticks: all of a few, every fifth of many."""
    return list(range(count)) if count <= MOST_VALUES else list(range(0, count, 5))
