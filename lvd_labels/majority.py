"""What raters say of a video together: the majority, category by category."""

from dataclasses import dataclass, field

from lvd.errors import InputError, shorten
from lvd_labels.categories import NONE, SEPARATOR, UNSURE, need_category
from lvd_labels.ratings import BLANK, CONTRADICTION, SKIPPED, UNSURE_ANSWER

NOT_RATED = (SKIPPED, BLANK, CONTRADICTION)  # as if the rater had not seen the video


@dataclass
class Verdict:
    """What raters say of a video together.

    Attributes:
        judged: how many raters judged it.
        unsure: how many cannot tell.
        counts: {category: raters who chose it}.
        none: how many chose none of the categories.
        label: the categories that more than half of those who judged chose.
        doubts: [why the label is not sure].
    """

    judged: int
    unsure: int
    counts: dict
    none: int
    label: list = field(default_factory=list)
    doubts: list = field(default_factory=list)


def categories_of(ratings, given):
    """Return the categories, and name those of the answers as these do.

    Args:
        ratings: [Rating].
        given: names, or None: all that raters chose, by the alphabet.

    Returns:
        [name].

    Raises:
        InputError: a rater chose another category than these, or none that a label file takes.
    """
    chosen = {}  # category in small letters → (category, where it stands first)
    for rating in ratings:
        for category in sorted(rating.answer.categories):
            chosen.setdefault(category.lower(), (category, rating.where))
    if given is None:
        for category, where in chosen.values():
            need_category(category, where)
        given = sorted(category for category, _ in chosen.values())
    known = {category.lower() for category in given}
    for small, (category, where) in chosen.items():
        if small not in known:
            raise InputError(f"{where}: category {shorten(category)} is none of {', '.join(given)}")
    return given


def by_video(ratings):
    """Return {video: {rater: Answer}} of the ratings that count.

    Skipped, blank and contradictory ones do not.
    """
    found = {}
    for rating in ratings:
        if rating.answer.no_judgement not in NOT_RATED:
            found.setdefault(rating.video, {})[rating.rater] = rating.answer
    return found


def verdict_of(answers, categories, minimum):
    """Decide a video.

    Args:
        answers: [Answer], of different raters.
        categories: names.
        minimum: how many have to judge it.

    Returns:
        Verdict. It has no label where fewer judged it, or where as many cannot tell.
    """
    judgements = [answer for answer in answers if not answer.no_judgement]
    unsure = sum(answer.no_judgement == UNSURE_ANSWER for answer in answers)
    judged = len(judgements)
    chosen = [{category.lower() for category in one.categories} for one in judgements]
    counts = {category: sum(category.lower() in one for one in chosen) for category in categories}
    verdict = Verdict(judged, unsure, counts, none=sum(not one for one in chosen))
    if judged < minimum:
        needed = f"{judged} judged it, {minimum} needed"
        verdict.doubts.append(needed if minimum > 1 else "nobody can tell")
        return verdict
    if unsure >= judged:
        verdict.doubts.append(f"{unsure} of {judged + unsure} cannot tell")
        return verdict
    verdict.label = [category for category in categories if 2 * counts[category] > judged]
    ties = [category for category in categories if 2 * counts[category] == judged]
    verdict.doubts += [f"{category}: {counts[category]} of {judged}" for category in ties]
    some = judged - verdict.none
    if not verdict.label and 2 * some >= judged and not ties:
        verdict.doubts.append(f"{some} of {judged} chose a category, no category has a majority")
    return verdict


def doubtful_line(video, row, verdict):
    """Return a line of doubtful.csv: {column: value}."""
    return {
        "video": video,
        "row": row,
        "label": f" {SEPARATOR} ".join(verdict.label),
        "why": "; ".join(verdict.doubts),
        "judged": verdict.judged,
        UNSURE: verdict.unsure,
        NONE: verdict.none,
        **verdict.counts,
    }
