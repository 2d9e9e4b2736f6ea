"""A rating: what one rater said of one video."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator

from lvd.utils.schema import has_controls, has_halves
from lvd_labels.categories import NONE, UNSURE, plain

HIGHEST = 10**9  # number of a rater
# What an answer is besides a judgement.
UNSURE_ANSWER, SKIPPED, BLANK, CONTRADICTION = UNSURE, "skipped", "blank", "contradiction"
NONES, UNSURES = {NONE, "none"}, {UNSURE, "can't tell", "cannot tell.", "?"}


def _rater(value):
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= HIGHEST
    is_name = isinstance(value, str) and not has_controls(value) and not has_halves(value)
    if value is not None and not is_number and not (is_name and value.strip()):
        raise ValueError("a name without control characters, or a number from 0 on, is needed")
    return value


RaterName = Annotated[Any, AfterValidator(_rater)]  # None: nobody says


@dataclass(frozen=True)
class Answer:
    """What a rater said.

    Attributes:
        categories: frozenset of names; empty: none of them.
        no_judgement: why it is none, such as "cannot tell"; "" where it is one.
    """

    categories: frozenset = frozenset()
    no_judgement: str = ""


@dataclass
class Rating:
    """What one rater said of one video.

    Attributes:
        video: as the file names it, then the recording's name.
        rater: name, or number as a text.
        answer: Answer.
        time: of the submission as ISO 8601; "" where nobody says.
        digest: of the video's file when it was shown; None where nobody says.
        where: what messages call its place in its file.
    """

    video: str
    rater: str
    answer: Answer
    time: str = ""
    digest: str | None = None
    where: str = field(default="", compare=False)


def answer_of(choices, skipped=False):
    """Return the Answer that choices make.

    "none of these" or "cannot tell" beside a category contradicts it: such an answer is no
    judgement.

    Args:
        choices: [text].
        skipped: whether the rater skipped the video.
    """
    chosen = {plain(choice) for choice in choices} - {""}
    small = {choice.lower() for choice in chosen}
    categories = frozenset(one for one in chosen if one.lower() not in NONES | UNSURES)
    kinds = [bool(categories), bool(small & NONES), bool(small & UNSURES)]
    if skipped:
        return Answer(no_judgement=SKIPPED)
    if not chosen:
        return Answer(no_judgement=BLANK)
    if sum(kinds) > 1:
        return Answer(no_judgement=CONTRADICTION)
    return Answer(categories, UNSURE_ANSWER if kinds[2] else "")
