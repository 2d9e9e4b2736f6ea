"""The frontier over seeds: what the most accurate rule of each family reaches at each cost."""

from dataclasses import dataclass

from lvd.evaluation.frontier import ACCURACY, Candidates, families_of, limits_of
from lvd.evaluation.frontier_figure import COSTS
from lvd.evaluation.frontier_figure import NAMES as FAMILY_NAMES
from lvd.evaluation.recorded import recorded_videos
from lvd.evaluation.results import load_folds
from lvd.utils.plots import PALETTE, colour_of, legend_under, rate_limits, save_figure, subplots
from lvd_study.judged import over_seeds
from lvd_study.names import NAMES
from lvd_study.pages import Figure
from lvd_study.table import Table

MARKERS = "sDXP"  # of the paper's points and of the chosen rules


@dataclass(frozen=True)
class Line:
    """One point of the frontier: the rules of a family within a limit of the cost.

    Attributes:
        family: of the rules.
        limit: of the mean cost on the videos that they are chosen on, in steps.
        over: OverSeeds of the rules, one a seed.
    """

    family: str
    limit: float
    over: object


def load_folds_videos(path):
    """Return the RecordedVideos of a folds.pth: training videos, scored out of fold."""
    return recorded_videos(load_folds(path), path)


def frontier_of(recordings, folds):
    """Choose for each seed, and measure over all seeds.

    Args:
        recordings: [Recording] of the held-out videos, one a seed.
        folds: [RecordedVideos] that the rules of a seed are chosen on.

    Returns:
        [Line], where every seed has a rule within the limit.
    """
    first = recordings[0].videos
    lines = []
    for family in families_of(first, *folds):
        candidates = [Candidates(family, videos) for videos in folds]
        for limit in limits_of(first.steps):
            rules = [each.best(ACCURACY, limit / first.steps) for each in candidates]
            if all(rules):
                lines.append(Line(family, limit, over_seeds(rules, recordings)))
    return lines


def frontier_table(lines):
    """Return the Table of {kind: [Line]}; it is no part of the page, which shows the figure."""
    rows = [
        [
            kind,
            line.family,
            line.limit,
            line.over.accuracy(),
            line.over.recall(),
            line.over.specificity(),
            line.over.cost(),
        ]
        for kind, of_kind in lines.items()
        for line in of_kind
    ]
    columns = ["detectors", "family", "limit", "accuracy", "TPR", "TNR", "cost"]
    title = "every point of the frontier; limit: of the mean cost, in steps."
    return Table("c_frontier", title, "", columns, rows, in_page=False)


def frontier_figure(lines, points):
    """Return the Figure of {kind: [Line]} with {kind: {rule: OverSeeds}} marked."""
    content = {"lines": lines, "points": points}
    says = "Accuracy against the mean cost of an unsafe video, by family of rules"
    return Figure("c_frontier.png", says, _draw, content)


def _draw(content, path):
    kinds = list(content["lines"])
    figure, axes = subplots(1, len(kinds), figsize=(7.5 * len(kinds), 6), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        lines, points = content["lines"][kind], content["points"][kind]
        seen = [over.accuracy() for over in [*(line.over for line in lines), *points.values()]]
        families = list(dict.fromkeys(line.family for line in lines))
        for place, family in enumerate(families):
            _draw_family(
                axis, [line.over for line in lines if line.family == family], family, place
            )
        for marker, (name, over) in zip(MARKERS, points.items()):
            x, y = over.cost().mean, over.accuracy().mean
            look = {"color": PALETTE["black"], "linestyle": "none", "markersize": 8}
            axis.plot(x, y, marker, label=name, zorder=5, **look)
        steps = next(iter(points.values())).steps
        ticks = [cost for cost in COSTS if cost >= 1 / steps]
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{cost:g}" for cost in ticks])
        axis.set_xticks([], minor=True)
        axis.set(title=NAMES[kind], ylabel="accuracy", xlim=(0.88 / steps, 1.08))
        axis.set_xlabel("mean cost of an unsafe video (share of the steps)")
        axis.set_ylim(*rate_limits([one.low for one in seen], [one.mean for one in seen]))
        legend_under(axis)
    figure.suptitle("The most accurate rule within a limit of the cost, mean over seeds")
    save_figure(figure, path)


def _draw_family(axis, overs, family, place):
    """Draw a line with a band through the rules of one family, in the order of their cost."""
    points = sorted({(over.cost().mean, over.accuracy()) for over in overs}, key=_by_cost)
    costs = [cost for cost, _ in points]
    colour = colour_of(place)
    means = [one.mean for _, one in points]
    axis.plot(costs, means, "o-", color=colour, label=FAMILY_NAMES.get(family, family))
    low, high = [one.low for _, one in points], [one.high for _, one in points]
    axis.fill_between(costs, low, high, color=colour, alpha=0.12, linewidth=0)


def _by_cost(point):
    return point[0], point[1].mean
