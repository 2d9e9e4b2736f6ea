"""The frontier as a figure: what each family of rules reaches at each cost."""

from lvd.evaluation.frontier import ACCURACY, FAMILIES, PAPERS, RECALL_1, RECALL_5, THE_PAPERS
from lvd.utils.plots import PALETTE, SMALL, legend_below, rate_limits, save_figure, subplots

NAMES = {"vote": "vote", "confidence": "confidence", "likelihood_ratio": "likelihood ratio"}
# Lines that lie on each other are seen too: the first is wide, the last is narrow.
LOOKS = (
    {"color": PALETTE["blue"], "marker": "o", "markersize": 9, "linewidth": 4},
    {"color": PALETTE["orange"], "marker": "s", "markersize": 6, "linewidth": 2.4},
    {"color": PALETTE["green"], "marker": "^", "markersize": 4, "linewidth": 1.2},
)
LOOKS = dict(zip(FAMILIES, LOOKS, strict=True))
MARKS = dict(zip(PAPERS, ("s", "D"), strict=True))
COSTS = (0.02, 0.05, 0.1, 0.2, 0.5, 1)  # labels of the axis


def save_frontier_figure(table, path, title, steps):
    """Draw accuracy, recall and what a safe video costs against the cost of an unsafe one.

    Args:
        table: of `frontier`.
        path: of the picture.
        title: says what the rules were chosen on.
        steps: of the whole sampling.
    """
    figure, axes = subplots(2, 2, figsize=(12, 10.5))
    panels = (
        (axes[0, 0], ACCURACY, "accuracy"),
        (axes[0, 1], RECALL_1, "recall"),
        (axes[1, 1], RECALL_5, "recall"),
    )
    for axis, goal, column in panels:
        part = table[table["goal"] == goal.name]
        _draw_lines(axis, part, column, band=True)
        _draw_papers(axis, table, column, goal)
        papers = table.loc[table["goal"] == THE_PAPERS, column]
        axis.set(title=goal.name, ylabel=f"{column} (share of the videos)")
        axis.set_ylim(rate_limits(part[column], part[f"{column}_low"], papers))
    safe = axes[1, 0]
    _draw_lines(safe, table[table["goal"] == ACCURACY.name], "safe_looked_at", band=False)
    _draw_papers(safe, table, "safe_looked_at", ACCURACY)
    safe.set(title="a safe video, by the rules of the panel above", ylim=(0, steps * 1.04))
    safe.set_ylabel(f"steps that the detectors look at, of {steps}")
    for axis in axes.flat:
        _finish(axis, steps)
    legend_below(figure, axes[0, 0])
    figure.suptitle(f"{title}\nbands: 95% intervals")
    save_figure(figure, path)


def _draw_lines(axis, table, column, band):
    """Draw a line for each family through its rules, in the order of their measured cost."""
    for family, part in table.groupby("family", sort=False):
        part = part.drop_duplicates("rule").sort_values("cost")
        look = LOOKS[family]
        axis.plot(part["cost"], part[column], label=NAMES[family], **look)
        # Who may spend more can still take the last rule.
        last = part.iloc[-1]
        width = look["linewidth"]
        color = look["color"]
        axis.hlines(last[column], last["cost"], 1, colors=color, alpha=0.5, linewidths=width)
        if band:
            low, high = part[f"{column}_low"], part[f"{column}_high"]
            axis.fill_between(part["cost"], low, high, alpha=0.12, color=color, linewidth=0)
            if len(part) == 1:  # a band of one point would not be seen
                axis.vlines(part["cost"], low, high, color=color, alpha=0.5)


def _draw_papers(axis, table, column, goal):
    """Mark the paper's rules; hollow where they stop more normal videos than the goal allows."""
    papers = table[table["goal"] == THE_PAPERS].to_dict("records")
    for (lambda_, eta), row in zip(PAPERS, papers):
        most = goal.most_false
        is_within = most is None or row["false_positive_rate"] <= most
        label = f"the paper's ({lambda_}, {eta})"
        face = "black" if is_within else "none"
        look = {"color": "black", "markerfacecolor": face, "linestyle": "none", "zorder": 5}
        look["markersize"] = 8
        axis.plot(row["cost"], row[column], MARKS[lambda_, eta], label=label, **look)
        if not is_within:
            axis.annotate(
                f"({lambda_}, {eta}): {row['false_positive_rate']:.1%} false positives",
                (row["cost"], row[column]),
                textcoords="offset points",
                xytext=(7, -11),
                fontsize=SMALL,
            )


def _finish(axis, steps):
    grey = PALETTE["grey"]
    axis.axvline(1 / steps, color=grey, linestyle="--", linewidth=1.2, label="limit: one step")
    axis.set_xscale("log")
    ticks = [cost for cost in COSTS if cost >= 1 / steps]
    axis.set_xticks(ticks, [f"{cost:g}" for cost in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlim(0.88 / steps, 1.08)
    axis.set_xlabel("mean cost of an unsafe video\n(share of the steps, missed ones in full)")
