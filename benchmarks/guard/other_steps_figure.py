"""The figure of other_steps.py: six panels, a mark for each sampling and kind of detectors."""

from benchmarks.common.figures import panels_of
from benchmarks.guard.other_steps_runs import KINDS
from lvd.errors import plural
from lvd.utils.plots import PALETTE, SMALL, legend_below, save_figure

PANELS = {
    "auroc 10%": "AUROC after 10% of the schedule",
    "(0.6, 5) accuracy": "accuracy of the vote (0.6, 5)",
    "(0.6, 20) accuracy": "accuracy of the vote (0.6, 20)",
    "chosen rule accuracy": "accuracy of the chosen rule",
    "chosen confidence rule accuracy": "accuracy of the chosen confidence rule",
    "chosen confidence rule cost": "cost of the chosen confidence rule (share of the steps)",
}
STYLES = {
    "table": (PALETTE["blue"], "o"),
    "level": (PALETTE["red"], "s"),
    "grid": (PALETTE["green"], "^"),
}
BESIDE = 0.22  # how far marks of one sampling stand apart


def draw_figure(rows, path, title):
    """Draw means with standard deviations over seeds.

    Args:
        rows: [{"kind", "sampling": Sampling, "quantity", "mean", "sd", "seeds"}].
        path: of the picture.
        title: says which videos were judged.
        path: of the picture.
    """
    samplings = sorted({row["sampling"] for row in rows}, key=_order)
    panels = {name: title for name, title in PANELS.items() if _of(rows, name)}
    figure, axes = panels_of(len(panels), most_columns=2)
    figure.set_size_inches(12.5, 4.2 * len(axes))
    for axis, (name, head) in zip(axes.flat, panels.items()):
        kinds = [kind for kind in KINDS if _of(rows, name, kind)]
        for number, kind in enumerate(kinds):
            _draw_kind(axis, _of(rows, name, kind), samplings, kind, number - (len(kinds) - 1) / 2)
        _write_ends(axis, _of(rows, name), samplings)
        labels = [f"{each.scheduler}\n{each.steps}" for each in samplings]
        axis.set_xticks(range(len(samplings)), labels, fontsize=SMALL)
        seeds = max(row["seeds"] for row in _of(rows, name))
        axis.set_title(f"{head}, {plural(seeds, 'seed')}")
        axis.grid(False, axis="x")
        trained = next((k for k, each in enumerate(samplings) if _is_trained(each)), None)
        if trained is not None:
            axis.axvspan(trained - 0.5, trained + 0.5, color="0.92", zorder=0)
    legend_below(figure, axes.flat[0])
    for axis in axes[-1]:
        axis.set_xlabel("scheduler and steps")
    shows = "mean and standard deviation; grey: what the detectors were trained on"
    figure.suptitle(f"{title}\n{shows}")
    save_figure(figure, path)


def _draw_kind(axis, rows, samplings, kind, place):
    """The marks of one kind; shares and AUROC end at 1."""
    colour, mark = STYLES[kind]
    x = [samplings.index(row["sampling"]) + BESIDE * place for row in rows]
    means, deviations = [row["mean"] for row in rows], [row["sd"] for row in rows]
    above = [min(sd, max(0, 1 - mean)) for mean, sd in zip(means, deviations, strict=True)]
    axis.errorbar(
        *(x, means, [deviations, above]),
        **{"color": colour, "marker": mark, "markersize": 7, "linestyle": "", "capsize": 3},
        label=KINDS[kind][0],
    )


def _write_ends(axis, rows, samplings):
    """The lowest and the highest mean of a panel in figures."""
    for row, up in ((min(rows, key=_mean), -1), (max(rows, key=_mean), 1)):
        beside = [each for each in rows if each["sampling"] == row["sampling"]]
        end = up * max(up * each["mean"] + each["sd"] for each in beside)  # over no interval
        axis.annotate(
            f"{row['mean']:.3f}",
            (samplings.index(row["sampling"]), end),
            xytext=(0, 8 * up),
            textcoords="offset points",
            ha="center",
            va="top" if up < 0 else "bottom",
            color=STYLES[row["kind"]][0],
            fontsize=SMALL + 1,
        )
    axis.margins(y=0.15)


def _mean(row):
    return row["mean"]


def _of(rows, quantity, kind=None):
    return [row for row in rows if row["quantity"] == quantity and kind in (None, row["kind"])]


def _order(sampling):
    """DDIM by its steps, then the others."""
    return (sampling.scheduler != "ddim", sampling.steps, sampling.scheduler)


def _is_trained(sampling):
    return (sampling.scheduler, sampling.steps) == ("ddim", 50)
