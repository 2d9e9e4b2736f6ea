"""Figures of the benchmarks of detectors: lines over the denoising step, or over the labels."""

from lvd.utils.plots import save_figure, subplots

PANELS = {"accuracy": "accuracy of the step's vote", "auroc any": "AUROC of the largest score"}


def save_lines(rows, cases, path, title):
    """Draw lines over the denoising step, with bands of one standard deviation over seeds.

    Args:
        rows: [{"case", "step", "accuracy", "accuracy sd", ...}], of seeds.by_step.
        cases: {case: display name}.
        path: of the picture.
        title: above it.
    """
    panels = dict(PANELS)  # the vote, the scores, and every category
    for key in rows[0]:
        if key.startswith("auroc ") and key != "auroc any" and not key.endswith(" sd"):
            panels[key] = f"AUROC, {key.removeprefix('auroc ')}"
    figure, axes = panels_of(len(panels), most_columns=4, sharex=True)
    for axis, (key, name) in zip(axes.flat, panels.items()):
        for case, shown in cases.items():
            mine = [row for row in rows if row["case"] == case]
            steps = [row["step"] for row in mine]
            means = [row[key] for row in mine]
            deviations = [row[f"{key} sd"] for row in mine]
            draw_band(axis, steps, means, deviations, shown)
        axis.set(title=name, xlabel="denoising step")
        axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8, loc="lower right")
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
        for case in cases:
            mine = [row for row in rows if (row["case"], row["category"]) == (case, name)]
            places = [labels.index(row["labels"]) for row in mine]
            means = [row["auroc"] for row in mine]
            deviations = [row["auroc sd"] for row in mine]
            axis.errorbar(
                places, means, deviations, label=case, marker=".", capsize=2, linewidth=1.2
            )
        axis.set_xticks(range(len(labels)), labels)
        axis.set(title=name, xlabel="labelled unsafe videos per category", ylabel="held-out AUROC")
        axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(title)
    save_figure(figure, path)


def panels_of(count, most_columns, **settings):
    """(figure, axes [rows, columns]) of so many panels; the places left over are empty."""
    columns = min(most_columns, count)
    lines = -(-count // columns)
    figure, axes = subplots(
        lines, columns, figsize=(4.2 * columns, 3.4 * lines), squeeze=False, **settings
    )
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, axes


def draw_band(axis, x, means, deviations, name):
    """A line, and a band of one standard deviation around it; shares and AUROC end at 1."""
    if not x:
        return
    (line,) = axis.plot(x, means, label=name, linewidth=1.4)
    low = [min(1.0, mean - sd) for mean, sd in zip(means, deviations)]
    high = [min(1.0, mean + sd) for mean, sd in zip(means, deviations)]
    axis.fill_between(x, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
