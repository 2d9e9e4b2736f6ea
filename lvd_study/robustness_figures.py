"""The figures of table e."""

from lvd.utils.plots import PALETTE, legend_below, save_figure, shown, subplots


def draw_changes(panels, path):
    """Draw the accuracy under each change, a panel a rule.

    Args:
        panels: {rule: [(change, Estimate)]}, the videos as trained first.
        path: of the picture.
    """
    names = [name for name, _ in next(iter(panels.values()))]
    size = (3.2 + 3.4 * len(panels), 1.3 + 0.34 * len(names))
    figure, axes = subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, (rule, values) in zip(axes[0], panels.items(), strict=True):
        base = values[0][1]
        axis.axvspan(base.low, base.high, color=PALETTE["grey"], alpha=0.15, lw=0)
        axis.axvline(base.mean, color=PALETTE["grey"], lw=1)
        for row, (_, value) in enumerate(values):
            _dot(axis, value, row, PALETTE["grey" if row == 0 else "blue"])
        axis.set_title(shown(rule))
        axis.set_xlabel("accuracy, 95% interval")
    _name_rows(axes[0][0], names)
    save_figure(figure, path)


def draw_left_out(rows, path):
    """Draw the share of each category's videos that is stopped, by detectors with and without it.

    Args:
        rows: [(category, Estimate by detectors that never saw it, by detectors that did)].
        path: of the picture.
    """
    figure, axis = subplots(figsize=(7.5, 1.8 + 0.45 * len(rows)))
    looks = (("never saw it", "red", -0.14), ("saw it", "blue", 0.14))
    for row, (_, *values) in enumerate(rows):
        for value, (label, colour, shift) in zip(values, looks, strict=True):
            _dot(axis, value, row + shift, PALETTE[colour], label if row == 0 else None)
    axis.set_xlabel("share of the category's videos that is stopped, 95% interval")
    axis.set_xlim(-0.03, 1.03)
    _name_rows(axis, [name for name, *_ in rows])
    legend_below(figure, axis)
    save_figure(figure, path)


def _dot(axis, value, row, colour, label=None):
    axis.plot([value.low, value.high], [row, row], color=colour, lw=1.8)
    axis.plot([value.mean], [row], "o", color=colour, label=label)


def _name_rows(axis, names):
    axis.set_yticks(range(len(names)), [shown(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
