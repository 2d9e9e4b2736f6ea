"""Agreement, against published worked examples and by hand."""

import numpy as np
import pytest

from lvd_labels.agreement import agreement_table, alpha, answers_of, cohen, fleiss, rater_table
from lvd_labels.ratings import Answer, answer_of

# Fleiss' kappa, Wikipedia: 14 raters, 10 subjects, 5 categories.
FLEISS = """
    0 0 0 0 14, 0 2 6 4 2, 0 0 3 5 6, 0 3 9 2 0, 2 2 8 1 1,
    7 7 0 0 0, 3 2 6 3 0, 2 5 3 2 2, 6 5 2 1 0, 0 2 2 3 7
"""
# Krippendorff, "Computing Krippendorff's alpha-reliability", section C: 4 observers, 12 units.
OBSERVERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def test_fleiss_kappa_of_the_published_table():
    counts = np.array([list(map(int, line.split())) for line in FLEISS.split(",")])
    kappa, videos, raters = fleiss(counts)
    assert (round(kappa, 3), videos, raters) == (0.210, 10, 14)


def test_fleiss_kappa_is_of_the_videos_with_the_most_common_number_of_raters():
    counts = np.array([[3, 0], [0, 3], [1, 2], [2, 0], [0, 2], [0, 4]])
    assert fleiss(counts) == (fleiss(counts[:3])[0], 3, 3)
    assert fleiss(np.array([[3, 0], [2, 0], [2, 0], [0, 3]]))[1:] == (2, 3)  # the larger of a tie


def test_alpha_of_the_published_table():
    units = zip(*OBSERVERS)
    counts = np.array([[unit.count(str(value)) for value in range(1, 6)] for unit in units])
    assert round(alpha(counts), 3) == 0.743


def test_alpha_of_two_values_by_hand():
    """Coincidences: of units 2-0, 0-2, 1-1, disagreement 2 of 6, expected 2 * 3 * 3 / (6 * 5)."""
    assert alpha(np.array([[2, 0], [0, 2], [1, 1]])) == pytest.approx(1 - (2 / 6) / (18 / 30))


def test_cohens_kappa_of_the_published_table():
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    assert cohen(pairs) == pytest.approx(0.4)


@pytest.mark.parametrize("pairs", [[], [(1, 1)], [(0, 0), (0, 0)]])
def test_what_is_not_defined_is_none(pairs):
    assert cohen(pairs) is None
    same = np.array([[3, 0], [3, 0]])
    assert alpha(same) is None and fleiss(same)[0] is None
    assert alpha(np.empty((0, 2))) is None and fleiss(np.empty((0, 2))) == (None, 0, 0)


def rated(videos):
    """{video: {rater: Answer}} of {video: {rater: "a b", "" for none, "?"}}."""
    answers = {"": ["none of these"], "?": ["cannot tell"]}
    return {
        video: {rater: answer_of(answers.get(said, said.split())) for rater, said in one.items()}
        for video, one in videos.items()
    }


def test_who_cannot_tell_is_missing_and_any_category_has_a_line():
    ratings = rated({"0": {"x": "a", "y": "a b", "z": "?"}, "1": {"x": "", "y": "b"}})
    answers = answers_of(ratings, ["a", "b"])
    assert answers["a"] == {"0": {"x": 1, "y": 1}, "1": {"x": 0, "y": 0}}
    assert answers["any category"] == {"0": {"x": 1, "y": 1}, "1": {"x": 0, "y": 1}}
    lines = {line["category"]: line for line in agreement_table(answers)}
    assert lines["a"]["krippendorff_alpha"] == 1 == lines["a"]["fleiss_kappa"]
    assert lines["b"]["chosen"] == 0.5 and lines["b"]["alpha_low"] is None  # two videos only


def test_a_rater_who_disagrees_with_everybody_stands_first():
    videos = {
        str(k): {"x": "a" if k % 2 else "", "y": "a" if k % 2 else "", "odd": "" if k % 2 else "a"}
        for k in range(10)
    }
    videos["10"] = {"odd": "?", "x": "a"}  # nobody to compare with
    table = rater_table(rated(videos), ["a"], {"x": 2, "gone": 3})
    odd, *_ = table
    assert (odd["rater"], odd["kappa"], odd["same"], odd["compared"]) == ("odd", -1, 0, 10)
    assert (odd["judged"], odd["cannot_tell"], odd["says_unsafe"]) == (10, 1, 0.5)
    # Against x stand y and odd, who never agree: there is no majority of the others.
    of_x = next(line for line in table if line["rater"] == "x")
    assert (of_x["compared"], of_x["kappa"], of_x["not_counted"]) == (0, None, 2)
    assert next(line for line in table if line["rater"] == "gone")["judged"] == 0


def test_the_interval_holds_the_value_and_is_the_same_each_time():
    draw = np.random.default_rng(3)
    truth = draw.random(60) < 0.4
    videos = {
        str(k): {
            str(r): Answer(frozenset("a") if truth[k] ^ (draw.random() < 0.1) else frozenset())
            for r in range(3)
        }
        for k in range(60)
    }
    one, two = (agreement_table(answers_of(videos, ["a"]))[0] for _ in range(2))
    assert one == two
    assert 0 < one["alpha_low"] < one["krippendorff_alpha"] < one["alpha_high"] < 1
