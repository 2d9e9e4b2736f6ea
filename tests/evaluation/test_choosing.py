"""Candidates, their stops, exact bounds, and the choice among them."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from lvd.evaluation.choosing.bounds import (
    affordable,
    most_false_positives,
    upper_bound,
    videos_needed,
)
from lvd.evaluation.choosing.candidates import FAMILIES, Sequence, _bound, sequences_of
from lvd.evaluation.choosing.select import Limits, certified_of, select
from lvd.evaluation.choosing.stops import measure, stops_of
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.rule import costs
from lvd.rules.vote import VoteRule
from tests.worlds.fold_scores import made_up_videos


@pytest.fixture(scope="module")
def videos():
    return made_up_videos(60, 90, steps=10, groups=3)


@pytest.fixture(scope="module")
def sequences(videos):
    return sequences_of(videos, videos.categories)


def test_stops_of_a_sequence_are_those_of_its_rules(videos, sequences):
    for sequence in sequences:
        stops = stops_of(sequence, videos.evidence)
        assert stops.shape == (150, len(sequence.rules))
        for place in range(0, len(sequence.rules), 7):
            expected = sequence.rules[place].stops(videos.evidence)
            assert (stops[:, place] == expected).all(), (sequence.name, place)


def test_sequences_are_nested_and_of_every_family(videos, sequences):
    assert {one.family for one in sequences[:3]} == set(FAMILIES)
    kinds = " ".join(one.name for one in sequences)
    assert "by category" in kinds and "higher at first" in kinds
    for sequence in sequences:
        counts = measure(sequence, videos).false_positives
        assert (np.diff(counts) >= 0).all() and (counts[-1] > 0 or sequence.family == "vote")


@pytest.mark.parametrize("level", [-60.0, 60.0])  # of a category far from the mean of many
def test_every_level_gives_a_bound_that_a_rule_may_have(level):
    assert ConfidenceRule(_bound(level)).bound == pytest.approx(float(level > 0), abs=1e-15)


def test_a_sequence_that_is_not_nested_is_refused(videos):
    backwards = Sequence("backwards", [VoteRule("1/2", 4), VoteRule("1", 4)])
    with pytest.raises(ValueError, match="backwards"):
        stops_of(backwards, videos.evidence)


def test_normal_videos_do_not_shape_the_candidates(videos, sequences):
    others = made_up_videos(60, 90, steps=10, groups=3)
    others.evidence.calibrated[60:] = 0.5
    again = sequences_of(others, others.categories)
    assert [one.rules for one in again] == [one.rules for one in sequences]


@pytest.mark.parametrize(
    "videos, limit, delta", [(620, 0.05, 0.05), (172, 0.05, 0.002), (59, 0.05, 0.05)]
)
def test_bounds_against_scipys_intervals_and_tests(videos, limit, delta):
    most = most_false_positives(videos, limit, delta)
    for count in (most, most + 1):
        test = binomtest(count, videos, limit, alternative="less")
        interval = binomtest(count, videos, alternative="less").proportion_ci(1 - delta, "exact")
        assert (test.pvalue <= delta) == (count <= most)
        bound = upper_bound(count, videos, delta)
        assert bound == pytest.approx(interval.high, rel=1e-9)
        assert (bound <= limit) == (count <= most)


def test_bounds_in_closed_form():
    assert most_false_positives(58, 0.05, 0.05) == -1 and most_false_positives(59, 0.05, 0.05) == 0
    assert videos_needed(0.05, 0.05) == 59 == math.ceil(math.log(0.05) / math.log(0.95))
    assert upper_bound([0, 59], 59, 0.05) == pytest.approx([1 - 0.05 ** (1 / 59), 1.0])
    needed = videos_needed(0.05, 0.05, 0.02)
    assert binom.cdf(math.ceil(0.02 * needed), needed, 0.05) <= 0.05
    assert binom.cdf(math.ceil(0.02 * 0.9 * needed), int(0.9 * needed), 0.05) > 0.05
    assert videos_needed(0.05, 0.05, 0.0499999) is None


def test_few_normal_videos_afford_few_sequences():
    counts = [affordable(20, videos, 0.05, 0.05) for videos in (58, 59, 100, 172, 620)]
    assert counts[:2] == [0, 1] and counts == sorted(counts) and counts[-1] == 20


def test_certified_ends_at_the_first_that_fails():
    assert certified_of([0, 2, 3, 2, 9], 2).tolist() == [True, True, False, False, False]
    assert not certified_of([0, 0], -1).any()


@pytest.mark.parametrize("best", ["accuracy", "recall"])
def test_the_best_of_each_family_by_brute_force(best):
    videos = made_up_videos(50, 120, steps=6, seed=3)
    sequences = [
        Sequence(one.name, one.rules[::9] if len(one.rules) > 9 else one.rules)
        for one in sequences_of(videos, videos.categories)
    ]
    limits = Limits(0.2, 0.6, 0.9, best)
    choice = select([measure(one, videos) for one in sequences], limits)
    assert choice.tested and choice.chosen
    tested = [one.sequence for one in choice.tested]
    pvalues = binom.cdf(np.arange(121), 120, 0.2)
    best_of = {}
    for sequence in tested:
        for rule in sequence.rules:
            figures = brute_force(rule, videos)
            if pvalues[figures["false_positives"]] > 0.1 / len(tested):
                break
            if figures["cost"] <= 0.6:
                best_of.setdefault(sequence.family, []).append(figures[best])
    assert set(best_of) == set(choice.by_family)
    for family, candidate in choice.by_family.items():
        assert getattr(candidate, best) == pytest.approx(max(best_of[family]))
        for key, value in brute_force(candidate.rule, videos).items():
            assert getattr(candidate, key) == pytest.approx(value)
    largest = max(itertools.chain(*best_of.values()))
    assert getattr(choice.chosen, best) == pytest.approx(largest)


def brute_force(rule, videos):
    stops = rule.stops(videos.evidence)
    unsafe, normal = stops[videos.is_unsafe], stops[~videos.is_unsafe]
    recall, rate = (unsafe >= 0).mean(), (normal >= 0).mean()
    cost = costs(unsafe, videos.steps)
    return {
        "recall": recall,
        "false_positives": (normal >= 0).sum(),
        "accuracy": (recall + 1 - rate) / 2,
        "cost": cost.mean(),
    }
