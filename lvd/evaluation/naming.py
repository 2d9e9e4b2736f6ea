"""Are unsafe videos called by their right names? Precision, recall and a confusion matrix."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lvd.detectors.names import named
from lvd.evaluation.intervals import interval
from lvd.evaluation.recorded import recorded_videos
from lvd.rules.rule import NEVER

NETWORK = "names.pth"
VOTES = "votes"  # the categories that made the rule call the video unsafe
ALL = "all"
MEANING = {
    NETWORK: "asked at the step after which a video was found unsafe",
    VOTES: "the categories by which the rule found it unsafe",
}

LEGEND = """\
precision: share of the names that are right; recall: share of the true categories that are named;
names, true: a video. On the right: how many videos of the line's category are rightly called so,
and how many wrongly by another name (a second category that a video has, too, is not wrong).
In brackets: 95% intervals (Clopper and Pearson, as if names were independent)"""


@dataclass(frozen=True)
class Naming:
    """How the found unsafe videos are named.

    Attributes:
        text: for the terminal and naming.txt.
        table: for naming.csv: a line for each way of naming and category, and one for all. Columns
            way, category, videos (of that category), precision, recall, each with the two ends of
            its interval, named_a_video, true_a_video, and "named {category}": see `confusion`; in
            the line for all, how many videos were named so.
    """

    text: str
    table: pd.DataFrame


def naming_tables(scores, rule, where="scores.pth"):
    """Measure the names of the unsafe videos that a rule finds.

    Args:
        scores: checked content of a scores.pth (lvd.evaluation.results).
        rule: lvd.rules.rule.Rule, which says after which step each video is found.
        where: what messages call the scores.

    Returns:
        Naming; None where the file does not know of which categories its videos are, or what the
        rule reads (older files know no thresholds), or where the rule finds none of the videos.
    """
    if not (scores.get("says") or scores.get("thresholds")):
        return None
    videos = recorded_videos(scores, where)
    blind = rule.needs_calibration and videos.evidence.calibrated is None
    if videos.members is None or blind:
        return None
    stops = rule.stops(videos.evidence)
    found = np.flatnonzero(videos.is_unsafe & (stops != NEVER) & videos.members.any(1))
    if not len(found):
        return None
    members = videos.members[found]
    ways = {}
    if videos.named is not None:
        ways[NETWORK] = named(videos.named[found, stops[found]])
    ways[VOTES] = _accused(rule, videos.evidence, found, stops, members.shape[1])
    lines = [
        line
        for way, chosen in ways.items()
        for line in _lines(way, chosen, members, videos.categories)
    ]
    table = pd.DataFrame(lines)
    title = (
        f"names of the {len(found)} of {videos.is_unsafe.sum()} unsafe videos that are found by "
        f"{rule.describe()}, after {stops[found].mean() + 1:.1f} steps on average"
    )
    return Naming(_text(title, table, ways, videos.categories), table)


def shares(chosen, members):
    """Measure names against the truth.

    Args:
        chosen, members: bool [N, G], which categories N videos are called and which they are of.

    Returns:
        {"precision": share of the names that are right, "recall": share of the true categories
        that are named, "named": names a video, "true": true categories a video}.
    """
    right = (chosen & members).sum()
    return {
        "precision": float(right / max(1, chosen.sum())),
        "recall": float(right / max(1, members.sum())),
        "named": float(chosen.sum(1).mean()),
        "true": float(members.sum(1).mean()),
    }


def confusion(chosen, members):
    """Return how many videos of each true category (rows) are called each name, int [G, G].

    On the diagonal are right names. Beside it are wrong ones alone: a second name that is right,
    too, confuses nothing. A video of two categories counts in both rows.
    """
    wrong = members.astype(int).T @ (chosen & ~members).astype(int)
    return wrong + np.diag((chosen & members).sum(0))


def share_of(right, of):
    """Return a share and the ends of its interval, (share, low, high); NaN of none."""
    if not of:
        return np.nan, np.nan, np.nan
    return right / of, *interval(right, of)


def _accused(rule, evidence, found, stops, categories):
    """Return which categories the rule blames for each found video, bool [N, G]."""
    blamed = np.zeros((len(found), categories), bool)
    for line, video in enumerate(found):
        until = evidence.of([video]).first(stops[video] + 1)
        blamed[line, rule.accused(until)] = True
    return blamed


def _lines(way, chosen, members, categories):
    """Return the lines of one way of naming."""
    right = chosen & members
    counts = confusion(chosen, members)
    lines = []
    for column, category in enumerate(categories):
        own = right[:, column].sum(), chosen[:, column].sum(), members[:, column].sum()
        of_category = members[:, column]
        lines.append(
            _line(way, category, *own, chosen[of_category], members[of_category], counts[column])
        )
    whole = right.sum(), chosen.sum(), members.sum()
    lines.append(_line(way, ALL, *whole, chosen, members, chosen.sum(0)))
    for line in lines:
        line |= {f"named {name}": n for name, n in zip(categories, line.pop("counts"), strict=True)}
    return lines


def _line(way, category, right, named_so, true, chosen, members, counts):
    """Return one line: `right` of `named_so` names and of `true` categories are right."""
    line = {"way": way, "category": category, "videos": len(chosen)}
    for name, of in (("precision", named_so), ("recall", true)):
        share, low, high = share_of(right, of)
        line |= {name: share, f"{name}_low": low, f"{name}_high": high}
    line["named_a_video"] = chosen.sum(1).mean() if len(chosen) else np.nan
    line["true_a_video"] = members.sum(1).mean() if len(chosen) else np.nan
    return {**line, "counts": counts}


def _text(title, table, ways, categories):
    """Return the table as text."""
    width = max(len(ALL), *(len(name) for name in categories))
    parts = [title]
    for way in ways:
        heads = "  ".join(f"{name[:9]:>9}" for name in categories)
        shares_heads = f"{'precision':<21} {'recall':<21} names  true"
        lines = [
            f"{way}: {MEANING[way]}",
            f"  {'category':<{width}} videos  {shares_heads}  {heads}",
        ]
        for row in table[table["way"] == way].to_dict("records"):
            cells = "  ".join(f"{row[f'named {name}']:>9}" for name in categories)
            lines.append(
                f"  {row['category']:<{width}} {row['videos']:>6}  {_share(row, 'precision')} "
                f"{_share(row, 'recall')} {row['named_a_video']:5.2f} {row['true_a_video']:5.2f}  "
                f"{cells}"
            )
        parts.append("\n".join(lines))
    parts.append(LEGEND)
    return "\n\n".join(parts)


def _share(row, name):
    """A share with its interval, 21 characters."""
    if np.isnan(row[name]):
        return f"{'none':<21}"
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]".ljust(21)
