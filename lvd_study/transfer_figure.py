"""The figure of table f: heat maps of detectors by model and videos by model."""

from lvd.utils.plots import heat_map, save_figure, subplots
from lvd.utils.plots import shown as shown_name


def draw(content, path):
    """Draw four heat maps.

    Args:
        content: {"models": names, "panels": {title: array [trained on, asked about]}}.
        path: of the picture.
    """
    names = [shown_name(name) for name in content["models"]]
    figure, axes = subplots(2, 2, figsize=(9, 7), squeeze=False)
    for place, (axis, (title, values)) in enumerate(zip(axes.flat, content["panels"].items())):
        low = min(values.min(), values.max() - 0.05)  # no two colours for the same two digits
        heat_map(axis, values, low, values.max(), form="{:.3f}", size=11)
        axis.set_title(title)
        axis.set_xticks(range(len(names)), names, rotation=20, ha="right")
        axis.set_yticks(range(len(names)), names)
        if place % 2 == 0:
            axis.set_ylabel("trained on")
        if place >= 2:
            axis.set_xlabel("asked about")
    for axis in list(axes.flat)[len(content["panels"]) :]:
        axis.set_visible(False)
    save_figure(figure, path)
