"""The categories of a scores.pth: their names in tables, and which videos belong to them."""

from collections import Counter

from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.errors import InputError, shorten
from lvd.evaluation.metrics import ALL, ANY


def category_names(scores):
    """Return {group: name for tables}.

    A name that tables use for something else ("any", "all"), or that stands for two categories,
    gets its group's number.

    Args:
        scores: content of a scores.pth.
    """
    groups = sorted(scores["scores"][LABEL_UNSAFE], key=str)
    known = scores.get("categories") or {}
    names = {group: known.get(group, f"group{group}") for group in groups}
    count = Counter(names.values())
    return {
        group: f"{name} (group {group})" if name in (ANY, ALL) or count[name] > 1 else name
        for group, name in names.items()
    }


def members_of(scores):
    """Return {group: [rows of its unsafe videos]} as a scores.pth notes them; {} where it does not.

    Raises:
        InputError: the two kinds of videos have scores of other categories, or a member has none.
    """
    by_label = scores["scores"]
    groups = set(by_label.get(LABEL_UNSAFE, {}))
    for kind in ("scores", "calibrated", "names"):
        for label in (LABEL_UNSAFE, LABEL_NORMAL):
            if scores.get(kind) and set(scores[kind].get(label, {})) != groups or not groups:
                raise InputError(
                    f"scores.pth: {kind} of '{label}' are of other categories than scores of "
                    f"'{LABEL_UNSAFE}'; run embed_model.py again"
                )
    for group in groups:
        if not group.isdecimal():
            raise InputError(f"scores.pth: category {shorten(group)}: a number is needed")
    members = scores.get("members") or {}
    for group, rows in members.items():
        missing = [row for row in rows if row not in by_label[LABEL_UNSAFE].get(group, {})]
        if missing:
            raise InputError(
                f"scores.pth: members of category {shorten(group)}: row {shorten(missing[0])} has "
                "no scores; run embed_model.py again"
            )
    return members
