"""The frontier as a figure: what each family of rules reaches at each cost."""

from lvd.evaluation.frontier import ACCURACY, FAMILIES, PAPERS, RECALL_1, RECALL_5, THE_PAPERS
from lvd.utils.plots import save_figure, subplots

NAMES = {"vote": "vote", "confidence": "confidence", "likelihood_ratio": "likelihood ratio"}
COLORS = dict(zip(FAMILIES, ("tab:blue", "tab:red", "tab:green"), strict=True))
MARKS = dict(zip(PAPERS, ("s", "D"), strict=True))
COSTS = (0.02, 0.05, 0.1, 0.2, 0.5, 1)  # labels of the axis
TOP = 1.015


def save_frontier_figure(table, path, title, steps):
    """Draw accuracy, recall and what a safe video costs against the cost of an unsafe one.

    Args:
        table: of `frontier`.
        path: of the picture.
        title: says what the rules were chosen on.
        steps: of the whole sampling.
    """
    figure, axes = subplots(2, 2, figsize=(12, 9.5))
    panels = (
        (axes[0, 0], ACCURACY, "accuracy"),
        (axes[0, 1], RECALL_1, "recall"),
        (axes[1, 1], RECALL_5, "recall"),
    )
    for axis, goal, column in panels:
        _draw_lines(axis, table[table["goal"] == goal.name], column, band=True)
        _draw_papers(axis, table, column, goal)
        axis.set(title=goal.name, ylabel=column, ylim=(_bottom(axis), TOP))
    safe = axes[1, 0]
    _draw_lines(safe, table[table["goal"] == ACCURACY.name], "safe_looked_at", band=False)
    _draw_papers(safe, table, "safe_looked_at", ACCURACY)
    safe.set(title="a safe video, by the rules of the panel above", ylim=(0, steps * 1.03))
    safe.set_ylabel(f"steps that the detectors look at, of {steps}")
    for axis in axes.flat:
        _finish(axis, steps)
    axes[0, 0].legend(fontsize=8, loc="lower right")
    figure.suptitle(title)
    save_figure(figure, path)


def _draw_lines(axis, table, column, band):
    """Draw a line for each family through its rules, in the order of their measured cost."""
    for family, part in table.groupby("family", sort=False):
        part = part.drop_duplicates("rule").sort_values("cost")
        look = {"color": COLORS[family], "label": NAMES[family]}
        axis.plot(part["cost"], part[column], marker="o", markersize=4, **look)
        # Who may spend more can still take the last rule.
        last = part.iloc[-1]
        axis.hlines(last[column], last["cost"], 1, colors=look["color"], alpha=0.35)
        if band:
            low, high = part[f"{column}_low"], part[f"{column}_high"]
            axis.fill_between(part["cost"], low, high, alpha=0.12, color=look["color"], linewidth=0)
            if len(part) == 1:  # a band of one point would not be seen
                axis.vlines(part["cost"], low, high, color=look["color"], alpha=0.5)


def _draw_papers(axis, table, column, goal):
    """Mark the paper's rules; hollow where they stop more normal videos than the goal allows."""
    papers = table[table["goal"] == THE_PAPERS].to_dict("records")
    for (lambda_, eta), row in zip(PAPERS, papers):
        most = goal.most_false
        is_within = most is None or row["false_positive_rate"] <= most
        label = f"the paper's ({lambda_}, {eta})"
        face = "black" if is_within else "none"
        look = {"color": "black", "markerfacecolor": face, "linestyle": "none", "zorder": 5}
        axis.plot(row["cost"], row[column], MARKS[lambda_, eta], label=label, **look)
        if not is_within:
            axis.annotate(
                f"({lambda_}, {eta}): {row['false_positive_rate']:.1%} false positives",
                (row["cost"], row[column]),
                textcoords="offset points",
                xytext=(7, -11),
                fontsize=7,
            )


def _bottom(axis):
    """Return where an axis of rates starts: below all lines and marks, at a tenth."""
    lowest = min((min(line.get_ydata()) for line in axis.get_lines()), default=0)
    return max(0.0, int(10 * (lowest - 0.03)) / 10)


def _finish(axis, steps):
    axis.axvline(1 / steps, color="0.4", linestyle="--", linewidth=1, label="limit: one step")
    axis.set_xscale("log")
    ticks = [cost for cost in COSTS if cost >= 1 / steps]
    axis.set_xticks(ticks, [f"{cost:g}" for cost in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlim(0.88 / steps, 1.08)
    axis.set_xlabel("mean cost of an unsafe video (share of the steps, missed ones in full)")
    axis.grid(alpha=0.3)
