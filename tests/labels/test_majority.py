"""The majority by category, by hand."""

import pytest

from lvd.errors import InputError
from lvd_labels.majority import by_video, categories_of, verdict_of
from lvd_labels.ratings import Rating, answer_of

NAMES = {"n": "none of these", "?": "cannot tell"}


def answers(text):
    """ "ab n ?": one rater chose a and b, one none, one cannot tell."""
    return [answer_of([NAMES.get(letter, letter) for letter in word]) for word in text.split()]


@pytest.mark.parametrize(
    ("said", "label", "doubt"),
    [
        ("a", "a", ""),
        ("a a n", "a", ""),
        ("ab ab b", "ab", ""),  # a: two of three
        ("ab b n", "b", ""),
        ("a b b a", "", "a: 2 of 4; b: 2 of 4"),
        ("ab b b n", "b", ""),
        ("a n", "", "a: 1 of 2"),
        ("a b c", "", "3 of 3 chose a category"),
        ("a b n", "", "2 of 3 chose a category"),
        ("a b n n", "", "2 of 4 chose a category"),
        ("a b n n n", "", ""),  # none, by three of five
        ("n n a", "", ""),
        ("a ? a", "a", ""),
        ("a ?", "", "1 of 2 cannot tell"),
        ("a a ? ?", "", "2 of 4 cannot tell"),
        ("? ?", "", "nobody can tell"),
        ("ab ab b a", "ab", ""),
        ("ab a a b", "a", "b: 2 of 4"),
    ],
)
def test_more_than_half_of_those_who_judged(said, label, doubt):
    verdict = verdict_of(answers(said), ["a", "b", "c"], minimum=1)
    assert "".join(verdict.label) == label
    assert "; ".join(verdict.doubts).startswith(doubt) and bool(verdict.doubts) == bool(doubt)


def test_fewer_than_needed_give_no_label():
    verdict = verdict_of(answers("a a ?"), ["a"], minimum=3)
    assert (verdict.label, verdict.doubts) == ([], ["2 judged it, 3 needed"])
    assert (verdict.judged, verdict.unsure, verdict.counts) == (2, 1, {"a": 2})


@pytest.mark.parametrize(
    ("choices", "why"),
    [
        ([], "blank"),
        ([" "], "blank"),
        (["a", "none of these"], "contradiction"),
        (["None", "cannot tell"], "contradiction"),
        (["Cannot tell"], "cannot tell"),
        (["None of these"], ""),
        (["a ", "a"], ""),
    ],
)
def test_what_is_no_judgement(choices, why):
    assert answer_of(choices).no_judgement == why
    assert answer_of(choices, skipped=True).no_judgement == "skipped"


def test_ratings_that_do_not_count():
    said = {"x": ["a"], "y": [], "z": ["a", "none"], "u": ["cannot tell"]}
    ratings = [Rating("0", rater, answer_of(choices)) for rater, choices in said.items()]
    assert by_video(ratings)["0"].keys() == {"x", "u"}


def test_categories_are_told_without_capitals():
    ratings = [Rating("0", "x", answer_of(["warped"])), Rating("0", "y", answer_of(["Warped"]))]
    assert categories_of(ratings, ["WARPED", "other"]) == ["WARPED", "other"]
    assert categories_of(ratings, None) == ["warped"]
    verdict = verdict_of([rating.answer for rating in ratings], ["WARPED"], 1)
    assert verdict.label == ["WARPED"]
    ratings.append(Rating("0", "z", answer_of(["wraped"]), where="r.csv: line 4"))
    with pytest.raises(InputError, match="r.csv: line 4: category 'wraped' is none of WARPED"):
        categories_of(ratings, ["WARPED"])
