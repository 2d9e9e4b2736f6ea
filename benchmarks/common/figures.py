"""Figures of the benchmarks of shared and pre-trained detectors: lines over the denoising step, or
over the labels."""

from lvd.utils.plots import pyplot, save_figure

PANELS = {"accuracy": "accuracy of the step's vote", "auroc any": "AUROC of the largest score"}


def save_lines(rows, cases, path, title):
    """rows: [{"case", "step", "accuracy", "accuracy sd", ...}]; cases: {case: display name}. A
    panel for the vote, one for the scores, and one for every category; bands are standard
    deviations over seeds."""
    panels = {
        **PANELS,
        **{
            key: f"AUROC, {key.removeprefix('auroc ')}"
            for key in rows[0]
            if key.startswith("auroc ") and key != "auroc any" and not key.endswith(" sd")
        },
    }
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = pyplot().subplots(
        lines,
        columns,
        figsize=(4.2 * columns, 3.4 * lines),
        squeeze=False,
        sharex=True,
        constrained_layout=True,
    )
    for axis, (key, name) in zip(axes.flat, panels.items()):
        for case, shown in cases.items():
            mine = [row for row in rows if row["case"] == case]
            _line(
                axis,
                [row["step"] for row in mine],
                [row[key] for row in mine],
                [row[f"{key} sd"] for row in mine],
                shown,
            )
        axis.set(title=name, xlabel="denoising step")
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    axes[0, 0].legend(fontsize=8, loc="lower right")
    figure.suptitle(title)
    save_figure(figure, path)


def _line(axis, x, mean, deviation, name):
    if not x:
        return
    (drawn,) = axis.plot(x, mean, label=name, linewidth=1.4)
    low, high = (
        [min(1.0, m + sign * d) for m, d in zip(mean, deviation)] for sign in (-1, 1)
    )  # shares and AUROC
    axis.fill_between(x, low, high, alpha=0.15, color=drawn.get_color(), linewidth=0)


def save_label_lines(rows, path, title):
    """rows: [{"case", "labels", "category", "auroc", "auroc sd"}]: a panel for every category and
    for all, over labels."""
    names = list(dict.fromkeys(row["category"] for row in rows))
    labels = list(dict.fromkeys(row["labels"] for row in rows))
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure, axes = pyplot().subplots(
        lines, columns, figsize=(4.2 * columns, 3.4 * lines), squeeze=False, constrained_layout=True
    )
    for axis, name in zip(axes.flat, names):
        for case in dict.fromkeys(row["case"] for row in rows):
            mine = [row for row in rows if (row["case"], row["category"]) == (case, name)]
            axis.errorbar(
                [labels.index(row["labels"]) for row in mine],
                [row["auroc"] for row in mine],
                [row["auroc sd"] for row in mine],
                label=case,
                marker=".",
                capsize=2,
                linewidth=1.2,
            )
        axis.set_xticks(range(len(labels)), labels)
        axis.set(title=name, xlabel="labelled unsafe videos per category", ylabel="held-out AUROC")
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(title)
    save_figure(figure, path)
