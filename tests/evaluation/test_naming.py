"""How right names are, against values counted by hand."""

import numpy as np
import pytest

from lvd.evaluation.naming import confusion, naming_tables, share_of, shares
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.vote import VoteRule

# Three found videos: of a, of a and b, of c.
TRUE = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]], bool)
CHOSEN = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 0]], bool)


def test_shares_by_hand():
    """Two of four names are right, and two of four true categories are named."""
    assert shares(CHOSEN, TRUE) == {
        "precision": 2 / 4,
        "recall": 2 / 4,
        "named": pytest.approx(4 / 3),
        "true": pytest.approx(4 / 3),
    }


def test_confusion_by_hand():
    """The second video is wrongly called c: in the rows of both its categories."""
    assert confusion(CHOSEN, TRUE).tolist() == [[2, 0, 1], [0, 0, 1], [0, 1, 0]]
    assert confusion(TRUE, TRUE).tolist() == np.diag([2, 1, 1]).tolist()  # a and b confuse nothing


def test_intervals_are_exact_binomial_ones():
    """Clopper and Pearson: of 10 of 10 the lower end is the 10th root of 0.025."""
    assert share_of(10, 10) == (1.0, pytest.approx(0.025**0.1), 1.0)
    assert np.isnan(share_of(0, 0)).all()


def scores_file(names=True):
    """Four unsafe videos (of a, a and b, c, b) and a normal one, at three steps.

    The detectors say: both categories a and b of the first at step 0; of the second b at step 1;
    of the third c at step 2; nothing of the fourth and of the normal one.
    """
    raw = {row: {group: [0.1] * 3 for group in "123"} for row in "01234"}
    raw["0"]["1"], raw["0"]["2"] = [0.9, 0.9, 0.9], [0.995, 0.1, 0.1]
    raw["1"]["2"] = [0.1, 0.995, 0.9]
    raw["2"]["3"] = [0.1, 0.1, 0.995]
    likely = {row: {group: [0.2] * 3 for group in "123"} for row in "01234"}
    likely["0"]["1"] = [0.7, 0.0, 0.0]
    likely["1"]["1"] = likely["1"]["2"] = [0.0, 0.6, 0.0]
    likely["2"]["1"] = [0.9, 0.9, 0.3]

    def by_group(by_row):
        return {
            label: {group: {row: by_row[row][group] for row in rows} for group in "123"}
            for label, rows in (("1", "0123"), ("0", "4"))
        }

    content = {
        "scores": by_group(raw),
        "calibrated": by_group(raw),
        "thresholds": {group: [0.5] * 3 for group in "123"},
        "categories": {"1": "a", "2": "b", "3": "c"},
        "members": {"1": ["0", "1"], "2": ["1", "3"], "3": ["2"]},
    }
    return {**content, "names": by_group(likely)} if names else content


def line(table, way, category):
    (found,) = table[(table["way"] == way) & (table["category"] == category)].to_dict("records")
    return found


def test_tables_by_hand():
    """At the steps 0, 1 and 2 at which three videos are found: called a; a and b; a (wrongly)."""
    found = naming_tables(scores_file(), ConfidenceRule(0.99, 3))
    by_names = line(found.table, "names.pth", "all")
    assert (by_names["videos"], by_names["precision"], by_names["recall"]) == (3, 3 / 4, 3 / 4)
    assert by_names["named_a_video"] == by_names["true_a_video"] == pytest.approx(4 / 3)
    of_c = line(found.table, "names.pth", "c")
    assert (of_c["named a"], of_c["named b"], of_c["named c"], of_c["recall"]) == (1, 0, 0, 0)
    assert np.isnan(of_c["precision"])  # nothing is called c
    by_votes = line(found.table, "votes", "all")
    assert (by_votes["precision"], by_votes["recall"]) == (2 / 3, 2 / 4)  # b, b and c
    assert "3 of 4 unsafe videos" in found.text and "after 2.0 steps" in found.text


def test_the_vote_blames_all_that_said_unsafe():
    """With lambda 1 and eta 1 one video is found, by the votes of a and b."""
    found = naming_tables(scores_file(names=False), VoteRule("1", 1))
    assert set(found.table["way"]) == {"votes"}
    by_votes = line(found.table, "votes", "all")
    assert (by_votes["videos"], by_votes["precision"], by_votes["named_a_video"]) == (1, 0.5, 2)


def test_nothing_is_told_where_nothing_is_known():
    for unknown in ("members", "thresholds"):
        assert naming_tables({**scores_file(), unknown: None}, VoteRule("1", 1)) is None
    assert naming_tables({**scores_file(), "calibrated": None}, ConfidenceRule(0.99, 3)) is None
    assert naming_tables(scores_file(), VoteRule("1", 3)) is not None
    assert naming_tables(scores_file(), ConfidenceRule(0.999, 3)) is None  # finds none
