"""Figures of the benchmarks of detectors: lines over the denoising step, or over the labels."""

from lvd.errors import plural
from lvd.utils.plots import (
    legend_below,
    look_of,
    rate_limits,
    save_figure,
    shown,
    subplots,
    whole_steps,
)

PANELS = {"accuracy": "accuracy of the step's vote", "auroc any": "AUROC of the largest score"}
WIDEST, NARROWEST = 3.8, 1.4  # points, of lines: where they lie on each other, all are seen


def save_lines(rows, path, cases, title):
    """Draw lines over the denoising step, with bands of one standard deviation over seeds.

    Args:
        rows: [{"case", "step", "accuracy", "accuracy sd", ...}], of seeds.by_step.
        path: of the picture.
        cases: {case: display name}.
        title: above it.
    """
    panels = dict(PANELS)  # the vote, the scores, and every category
    for key in rows[0]:
        if key.startswith("auroc ") and key != "auroc any" and not key.endswith(" sd"):
            panels[key] = f"AUROC, {shown(key.removeprefix('auroc '))}"
    figure, axes = panels_of(len(panels), most_columns=3)
    for axis, (key, name) in zip(axes.flat, panels.items()):
        for number, (case, label) in enumerate(cases.items()):
            mine = [row for row in rows if row["case"] == case]
            steps = [row["step"] for row in mine]
            look = wide_look(number, len(cases), len(steps))
            draw_band(axis, steps, mine, key, {"label": shown(label), **look})
        axis.set(title=name, xlabel="denoising step")
        axis.set_ylim(rate_limits(*ends_of(rows, key)))
        whole_steps(axis)
    legend_below(figure, axes[0, 0])
    figure.suptitle(title)
    save_figure(figure, path)


def save_label_lines(rows, path, title):
    """Draw AUROC over the number of labels, a panel for every category and for all.

    Args:
        rows: [{"case", "labels", "category", "auroc", "auroc sd"}].
        path: of the picture.
        title: above it.
    """
    names = list(dict.fromkeys(row["category"] for row in rows))
    labels = list(dict.fromkeys(row["labels"] for row in rows))
    cases = list(dict.fromkeys(row["case"] for row in rows))
    figure, axes = panels_of(len(names), most_columns=3)
    for axis, name in zip(axes.flat, names):
        of_name = [row for row in rows if row["category"] == name]
        for number, case in enumerate(cases):
            mine = [row for row in of_name if row["case"] == case]
            aside = 0.05 * (number - (len(cases) - 1) / 2)  # intervals beside each other
            places = [labels.index(row["labels"]) + aside for row in mine]
            means = [row["auroc"] for row in mine]
            below = [row["auroc sd"] for row in mine]
            above = [min(row["auroc sd"], max(0, 1 - row["auroc"])) for row in mine]
            look = look_of(number)
            axis.errorbar(places, means, [below, above], label=shown(case), capsize=3, **look)
        axis.set_xticks(range(len(labels)), labels)
        axis.set_title("all categories" if name == "all" else shown(name))
        axis.set(xlabel="labelled unsafe videos per category", ylabel="held-out AUROC")
        axis.set_ylim(rate_limits(*ends_of(of_name, "auroc")))
    legend_below(figure, axes[0, 0])
    figure.suptitle(title)
    save_figure(figure, path)


SPREAD = "mean and standard deviation"


def title_of(unsafe, normal, detectors, seeds, shows=SPREAD):
    """Return the title of a figure of several seeds.

    Args:
        unsafe, normal: how many videos of each kind were held out.
        detectors: what they are called, as in "nano detectors".
        seeds: how many there were.
        shows: what is drawn of their values.
    """
    videos = f"{unsafe} unsafe and {normal} normal held-out videos"
    return f"{videos}, {detectors}\n{shows} over {plural(seeds, 'seed')}"


def ends_of(rows, key):
    """Return [lower ends, upper ends] of means and standard deviations; shares end at 0 and 1."""
    low = [max(0.0, row[key] - row[f"{key} sd"]) for row in rows]
    high = [min(1.0, row[key] + row[f"{key} sd"]) for row in rows]
    return [low, high]


def wide_look(number, count, points):
    """Return how to draw line `number` of `count`: the first is wide, the last is narrow."""
    share = number / max(1, count - 1)
    width = WIDEST + share * (NARROWEST - WIDEST)
    return {**look_of(number, points), "linewidth": width, "markersize": width + 3}


def panels_of(count, most_columns):
    """(figure, axes [rows, columns]) of so many panels; the places left over are empty."""
    columns = min(most_columns, count)
    lines = -(-count // columns)
    size = (4.2 * columns, 3.6 * lines + 0.6)
    figure, axes = subplots(lines, columns, figsize=size, squeeze=False)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, axes


def draw_band(axis, x, rows, key, look):
    """Draw a line of means and a band of one standard deviation around it.

    Args:
        axis: to draw on.
        x: where the rows are.
        rows: [{key, "{key} sd"}].
        key: of the mean.
        look: of the line.
    """
    if not x:
        return
    axis.plot(x, [row[key] for row in rows], **look)
    low, high = ends_of(rows, key)
    axis.fill_between(x, low, high, alpha=0.15, color=look["color"], linewidth=0)
