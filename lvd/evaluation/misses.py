"""The videos that a rule misses, and those that it stops for nothing, by name."""

import pandas as pd

from lvd.rules.rule import NEVER

MISSED = "missed"
FALSELY_STOPPED = "falsely stopped"
COLUMNS = ("video", "mistake", "categories", "stopped_after", "named", "why")


def misses(rule, videos):
    """List the videos that a rule judges wrongly.

    Args:
        rule: Rule.
        videos: RecordedVideos.

    Returns:
        A table with a line for each: video (its kind and row), mistake (MISSED or
        FALSELY_STOPPED), categories (its own, of an unsafe video where they are known),
        stopped_after (steps), named (the categories that stopped it) and why (the number that is
        nearest to its bound, in the rule's words).
    """
    stops = rule.stops(videos.evidence)
    lines = []
    for place, (stop, is_unsafe) in enumerate(zip(stops, videos.is_unsafe, strict=True)):
        if (stop != NEVER) == is_unsafe:
            continue
        seen = rule.horizon if stop == NEVER else stop + 1
        evidence = videos.evidence.of([place]).first(seen)
        named = [] if stop == NEVER else [videos.categories[k] for k in rule.accused(evidence)]
        lines.append(
            {
                "video": videos.names()[place],
                "mistake": MISSED if is_unsafe else FALSELY_STOPPED,
                "categories": ", ".join(_own(videos, place)),
                "stopped_after": None if stop == NEVER else int(stop) + 1,
                "named": ", ".join(named),
                "why": rule.reason(evidence),
            }
        )
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype({"stopped_after": "Int64"})


def _own(videos, place):
    """Return the names of the categories that a video is of."""
    if videos.members is None:
        return []
    return [name for name, own in zip(videos.categories, videos.members[place], strict=True) if own]


def misses_text(table, most=20):
    """Return `misses` as text, of each mistake `most` lines at most."""
    lines = []
    for mistake, what in ((MISSED, "missed"), (FALSELY_STOPPED, "stopped for nothing")):
        part = table[table["mistake"] == mistake]
        lines.append(f"{what}: {len(part) or 'none'}")
        for row in part.head(most).to_dict("records"):
            own = f" ({row['categories']})" if row["categories"] else ""
            lines.append(f"  {row['video']}{own}: {row['why']}")
        if len(part) > most:
            lines.append(f"  and {len(part) - most} more, see misses.csv")
    return "\n".join(lines)
