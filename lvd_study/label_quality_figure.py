"""The figure of table g: accuracy and AUROC over the share of wrong labels."""

from lvd.utils.plots import legend_beside, look_of, rate_limits, save_figure, subplots

WIDTH = 0.35  # percent points between the points of two lines, so that no interval hides another


def draw(content, path):
    """Draw a row of panels for each quantity, a panel for each kind of wrong labels.

    Args:
        content: {quantity: {kind: {line: [(percent of wrong labels, Estimate)]}}}.
        path: of the picture.
    """
    kinds = list(next(iter(content.values())))
    size = (4.4 * len(kinds) + 2.2, 3.6 * len(content))
    settings = {"figsize": size, "squeeze": False, "sharex": True, "sharey": "row"}
    figure, axes = subplots(len(content), len(kinds), **settings)
    for of_row, (quantity, panels) in zip(axes, content.items()):
        for axis, (kind, lines) in zip(of_row, panels.items()):
            _draw_lines(axis, lines)
            axis.set_title(kind)
        of_row[0].set_ylabel(quantity)
        of_row[0].set_ylim(*_limits(panels))
        legend_beside(of_row[-1])
    for axis in axes[-1]:
        axis.set_xticks(_shares(content))
        axis.set_xlabel("wrong labels, % of the unsafe training videos")
    save_figure(figure, path)


def _shares(content):
    """The percents at which there are points."""
    panels = next(iter(content.values()))
    lines = next(iter(panels.values()))
    return [percent for percent, _ in next(iter(lines.values()))]


def _draw_lines(axis, lines):
    for number, (name, points) in enumerate(lines.items()):
        places = [percent + WIDTH * (number - (len(lines) - 1) / 2) for percent, _ in points]
        means = [estimate.mean for _, estimate in points]
        below = [estimate.mean - estimate.low for _, estimate in points]
        above = [estimate.high - estimate.mean for _, estimate in points]
        axis.errorbar(places, means, [below, above], capsize=3, label=name, **look_of(number))


def _limits(panels):
    values = [
        (estimate.low, estimate.high)
        for lines in panels.values()
        for points in lines.values()
        for _, estimate in points
    ]
    return rate_limits(values)
