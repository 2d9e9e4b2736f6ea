"""Figures of the benchmarks of shared and pre-trained detectors: lines over the denoising step, or over the number of labels."""

from lvd.figures import pyplot, save

PANELS = {"accuracy": "accuracy of the step's vote", "auroc any": "AUROC of the largest score"}


def save_lines(rows, cases, path, title):
    """rows: [{"case", "step", "accuracy", "accuracy sd", ...}]; cases: {case: display name}. A panel for the vote, one for the
    scores, and one for every category; bands are standard deviations over seeds."""
    panels = {**PANELS, **{key: f"AUROC, {key.removeprefix('auroc ')}" for key in rows[0]
                           if key.startswith("auroc ") and key != "auroc any" and not key.endswith(" sd")}}
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = pyplot().subplots(lines, columns, figsize=(4.2 * columns, 3.4 * lines), squeeze=False, sharex=True,
                                     constrained_layout=True)
    for axis, (key, name) in zip(axes.flat, panels.items()):
        for case, shown in cases.items():
            mine = [row for row in rows if row["case"] == case]
            _line(axis, [row["step"] for row in mine], [row[key] for row in mine], [row[f"{key} sd"] for row in mine], shown)
        axis.set(title=name, xlabel="denoising step")
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(panels):]:
        axis.set_visible(False)
    axes[0, 0].legend(fontsize=8, loc="lower right")
    figure.suptitle(title)
    save(figure, path)


def _line(axis, x, mean, deviation, name):
    if not x:
        return
    drawn, = axis.plot(x, mean, label=name, linewidth=1.4)
    low, high = ([m + sign * d for m, d in zip(mean, deviation)] for sign in (-1, 1))
    axis.fill_between(x, low, high, alpha=0.15, color=drawn.get_color(), linewidth=0)
