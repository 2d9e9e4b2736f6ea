"""The rules against closed forms: votes as lvd.voting counts them, bounds by plain loops."""

from fractions import Fraction
from itertools import product
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvd.errors import InputError, shorten
from lvd.rules.confidence import ConfidenceRule, LikelihoodRatioRule, odds_of
from lvd.rules.evidence import Evidence
from lvd.rules.rule import NEVER, OPEN, SAFE, UNSAFE, costs
from lvd.rules.vote import VoteRule
from lvd.voting import decided, verdict

NAMES = ("fire", "blood")
IN_ANY_TIME = settings(deadline=None)  # a busy machine may be slow


def evidence_of(calibrated, threshold=0.5):
    """Evidence of probabilities [N, n, G]; a detector says unsafe from `threshold` on."""
    calibrated = np.array(calibrated, np.float64)
    return Evidence(calibrated >= threshold, calibrated)


def one(*steps):
    """Evidence of one video: [step] of the probability of each category."""
    return evidence_of([[np.atleast_1d(step) for step in steps]])


# ---- the vote


def test_the_vote_is_that_of_lvd_voting_for_every_pattern_and_prefix():
    patterns = list(product((0, 1), repeat=5))
    says = np.zeros((len(patterns), 5, 2), bool)
    for video, votes in enumerate(patterns):
        says[video, :, video % 2] = votes  # one category or the other
    evidence = Evidence(says)
    for lambda_, eta in product(["0", "0.14", "0.2", 0.55, "3/5", "1"], range(1, 6)):
        rule = VoteRule(lambda_, eta)
        stops = rule.stops(evidence)
        for video, votes in enumerate(patterns):
            unsafe = Fraction(sum(votes[:eta])) >= Fraction(str(lambda_)) * eta
            assert (stops[video] != NEVER) == unsafe == bool(verdict(votes, lambda_, eta))
        for n in range(6):
            expected = [decided(votes[:n], lambda_, eta) or OPEN for votes in patterns]
            assert rule.answers(evidence.first(n)) == expected


def test_what_the_vote_says():
    rule = VoteRule("0.6", 3)
    unsafe = Evidence(np.array([[[0, 1], [1, 1], [1, 1]]], bool))
    assert rule.reason(unsafe) == "3 of 3 steps voted unsafe, 2 of 3 make a video unsafe"
    assert rule.accused(unsafe) == [1, 0]
    assert rule.accused(Evidence(np.array([[[0, 1], [0, 0], [0, 0]]], bool))) == []
    assert (rule.describe(), rule.span()) == ("lambda 0.6, eta 3", "a vote of eta 3")
    assert rule.as_dict() == {"lambda": "0.6", "eta": 3}


def test_votes_after_eta_accuse_nobody():
    assert VoteRule("0.5", 2).accused(Evidence(np.array([[[1, 0], [1, 0], [0, 1]]], bool))) == [0]


# ---- bounds


PATHS = st.lists(
    st.tuples(*[st.sampled_from([0.0, 0.2, 0.5, 0.9, 0.9000001, 0.99, 1.0])] * 2),
    min_size=1,
    max_size=6,
)
BOUNDS = st.sampled_from([0.2, 0.5, 0.9, 0.99])


@IN_ANY_TIME
@given(PATHS, BOUNDS, st.integers(1, 8))
def test_confidence_is_a_plain_loop(path, bound, horizon):
    stop = NEVER
    for step, probabilities in enumerate(path[:horizon]):
        if stop == NEVER and max(probabilities) >= bound:
            stop = step
    rule, evidence = ConfidenceRule(bound, horizon), one(*path)
    assert rule.stops(evidence).tolist() == [stop]
    open_yet = OPEN if len(path) < horizon else SAFE
    assert rule.answers(evidence) == [UNSAFE if stop != NEVER else open_yet]


@IN_ANY_TIME
@given(PATHS, BOUNDS, st.integers(1, 8), st.sampled_from([None, 0.3, 0.999]))
def test_a_likelihood_ratio_that_forgets_all_is_the_confidence_rule(path, bound, horizon, first):
    evidence = one(*path)
    confidence = ConfidenceRule(bound, horizon, first)
    ratio = LikelihoodRatioRule(bound, horizon, first, forgetting=0)
    assert (confidence.passed(evidence) == ratio.passed(evidence)).all()


@IN_ANY_TIME
@given(
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6),
    st.floats(0.1, 0.9999),
    st.sampled_from([0.5, 0.9, 1]),
)
def test_a_likelihood_ratio_gathers_log_odds(path, bound, forgetting):
    gathered, stop = 0.0, NEVER
    for step, p in enumerate(path):
        gathered = forgetting * gathered + log(p / (1 - p))
        if abs(gathered - log(bound / (1 - bound))) < 1e-9:
            return  # rounding may decide
        if stop == NEVER and gathered >= log(bound / (1 - bound)):
            stop = step
    rule = LikelihoodRatioRule(bound, 6, forgetting=forgetting)
    evidence = one(*path)
    assert rule.stops(evidence).tolist() == [stop]
    assert rule.gathered(evidence)[0, -1, 0] == pytest.approx(gathered)
    if forgetting == 1:
        total = np.cumsum(odds_of(evidence.calibrated), 1)
        assert rule.gathered(evidence) == pytest.approx(total)
    assert rule.numbers(evidence)[0, -1, 0] == pytest.approx(1 / (1 + exp(-gathered)))


def test_the_bound_goes_from_the_first_to_the_last_in_a_straight_line_of_log_odds():
    bounds = ConfidenceRule(0.9, 5, first_bound=0.999).bounds(7)[:, 0]
    assert bounds[0] == 0.999 and (bounds[4:] == 0.9).all()  # exact at both ends
    steps = np.diff(np.log(bounds[:5] / (1 - bounds[:5])))
    assert steps == pytest.approx([(log(9) - log(999)) / 4] * 4)
    assert ConfidenceRule(0.9, 1, first_bound=0.99).bounds(1).tolist() == [[0.99]]
    late = one(0.95, 0.95, 0.95, 0.95, 0.95)
    assert ConfidenceRule(0.9, 5, first_bound=0.999).stops(late).tolist() == [4]
    assert ConfidenceRule(0.9, 5).stops(late).tolist() == [0]


def test_bounds_by_category():
    rule = ConfidenceRule({"blood": 0.9, "fire": 0.6}, 3).only(NAMES, range(2))
    assert rule.stops(one([0.55, 0.85], [0.65, 0.85])).tolist() == [1]
    assert rule.stops(one([0.55, 0.85], [0.55, 0.95])).tolist() == [1]
    assert rule.stops(one([0.55, 0.85], [0.55, 0.85])).tolist() == [NEVER]
    blood = rule.only(NAMES, [1])
    assert blood.as_dict() == {"bound": {"blood": 0.9}, "horizon": 3}
    assert blood.stops(one([0.85], [0.95])).tolist() == [1]
    with pytest.raises(InputError, match="one for each category, so categories= is needed"):
        ConfidenceRule({"fire": 0.6}, 3).stops(one([0.5, 0.5]))


def test_bounds_of_their_own():
    rule = ConfidenceRule(0.9, 3).with_bounds({"fire": 0.6}, NAMES)
    assert rule.as_dict()["bound"] == {"fire": 0.6, "blood": 0.9}
    assert ConfidenceRule(0.9, 3).with_bounds({}, NAMES) == ConfidenceRule(0.9, 3)
    again = rule.with_bounds({"blood": 0.7}, NAMES)
    assert again.as_dict()["bound"] == {"fire": 0.6, "blood": 0.7}
    with pytest.raises(InputError, match="bound of 'fire': .* family vote has no bounds"):
        VoteRule().with_bounds({"fire": 0.6}, NAMES)


def test_nothing_counts_after_the_horizon():
    late = one(0.1, 0.1, 0.99)
    for rule in (ConfidenceRule(0.9, 2), LikelihoodRatioRule(0.9, 2), VoteRule("0.5", 2)):
        assert rule.stops(late).tolist() == [NEVER] and rule.answers(late) == [SAFE]
        assert rule.accused(late) == []
        rule.need_steps(2)
        with pytest.raises(InputError, match=r"this sampling has 1 step, a .* needs 2"):
            rule.need_steps(1)


def test_evidence_of_no_step():
    nothing = evidence_of(np.zeros((2, 0, 3)))
    for rule in (ConfidenceRule(0.9, 2), LikelihoodRatioRule(0.9, 2), VoteRule("0.5", 2)):
        assert rule.stops(nothing).tolist() == [NEVER, NEVER]
        assert rule.answers(nothing) == [OPEN, OPEN]
        assert rule.accused(nothing.of([0])) == [] and rule.reason(nothing.of([0]))
    assert VoteRule("0", 2).answers(nothing) == [UNSAFE, UNSAFE]  # which no vote can change


def test_evidence_of_all_or_nothing_stays_finite():
    sure = one(0.0, 1.0, 1.0)
    for forgetting in (0, 0.5, 1):
        rule = LikelihoodRatioRule(1 - 2**-53, 3, forgetting=forgetting)
        assert np.isfinite(rule.gathered(sure)).all()
    assert ConfidenceRule(1 - 2**-53, 3).stops(sure).tolist() == [1]


def test_what_a_confidence_rule_says():
    rule = ConfidenceRule(0.99, 3).only(NAMES, range(2))
    unsafe = one([0.2, 0.3], [0.995, 0.99999])
    assert rule.reason(unsafe) == "blood 0.99999 at step 1, 0.99 makes a video unsafe"
    assert rule.accused(unsafe) == [1, 0]
    later = one([0.2, 0.991], [0.2, 0.9999])  # the step after which it was unsafe is told
    assert rule.reason(later).startswith("blood 0.991 at step 0")
    safe = one([0.2, 0.3], [0.6, 0.1], [0.1, 0.1])
    nearest = "nearest to its bound was fire 0.6 at step 1, 0.99 would make a video unsafe"
    assert rule.reason(safe) == nearest and rule.accused(safe) == []
    assert ConfidenceRule(0.99, 3).reason(unsafe).startswith("category 2 0.99999 at step 1")
    own = rule.with_bounds({"fire": 0.5}, NAMES)
    assert own.accused(one([0.6, 0.995])) == [1, 0] and own.accused(one([0.9, 0.991])) == [0, 1]
    assert rule.describe() == "confidence: bound 0.99, horizon 3"
    assert (
        "0.999 at the first step to 0.99 at the last" in ConfidenceRule(0.99, 3, 0.999).describe()
    )
    ratio = LikelihoodRatioRule(0.99, 3, forgetting=1).describe()
    assert ratio == "likelihood_ratio: bound 0.99, horizon 3, forgetting 1"


def test_costs():
    assert costs(np.array([0, 4, NEVER]), 5).tolist() == [0.2, 1.0, 1.0]


# ---- of all rules


RULES = st.one_of(
    st.builds(VoteRule, st.sampled_from(["0", "0.3", "0.6", "1"]), st.integers(1, 7)),
    st.builds(ConfidenceRule, BOUNDS, st.integers(1, 7), st.sampled_from([None, 0.3, 0.999])),
    st.builds(
        LikelihoodRatioRule,
        bound=BOUNDS,
        horizon=st.integers(1, 7),
        first_bound=st.sampled_from([None, 0.3, 0.999]),
        forgetting=st.sampled_from([0, 0.5, 0.9, 1]),
    ),
)


@settings(deadline=None, max_examples=300)
@given(RULES, PATHS)
def test_answers_never_change_and_stops_are_the_first_unsafe_ones(rule, path):
    evidence = one(*path)
    answers = [rule.answers(evidence.first(n))[0] for n in range(len(path) + 1)]
    for before, after in zip(answers, answers[1:]):
        assert before in (OPEN, after)
    unsafe = [n - 1 for n in range(1, len(answers)) if answers[n] == UNSAFE]
    assert rule.stops(evidence).tolist() == [unsafe[0] if unsafe else NEVER]
    assert answers[-1] != OPEN or len(path) < rule.horizon
    for n in range(len(path) + 1):
        assert (rule.accused(evidence.first(n)) == []) or answers[n] == UNSAFE


@IN_ANY_TIME
@given(RULES, PATHS, PATHS)
def test_a_video_is_judged_alone_as_among_others(rule, path, other):
    n = min(len(path), len(other))
    together = evidence_of([path[:n], other[:n]])
    assert rule.stops(together).tolist() == [
        int(rule.stops(together.of([video]))[0]) for video in range(2)
    ]


# ---- what is no rule, and no evidence


NO_BOUND = [0, 1, 1.5, -0.1, float("nan"), float("inf"), True, "0.9", None, [0.9], 10**5000, 1e-300]


@pytest.mark.parametrize("kind", [ConfidenceRule, LikelihoodRatioRule])
@pytest.mark.parametrize(
    "key, value",
    [
        *[("bound", value) for value in NO_BOUND],
        *[("bound", {"fire": value}) for value in NO_BOUND],
        ("bound", {}),
        *[("first_bound", value) for value in (*NO_BOUND[:-4], {"fire": 0.9})],
        *[("horizon", value) for value in (0, -1, True, 2.0, "5", None, 10**9, 10**5000)],
    ],
    ids=lambda value: shorten(value)[:20],
)
def test_settings_that_are_none(kind, key, value):
    with pytest.raises(InputError, match=f"^{key}") as error:
        kind(**{key: value})
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "1", None, 10**5000], ids=shorten)
def test_forgetting_that_is_none(value):
    with pytest.raises(InputError, match="^forgetting .*from 0 to 1 is needed"):
        LikelihoodRatioRule(forgetting=value)


@pytest.mark.parametrize(
    "bound, message",
    [
        ({"fire": 0.9}, "bound: category 'blood' has none"),
        ({"fire": 0.9, "blood": 0.9, "x": 0.9}, "bound: unknown category 'x'; the detectors have"),
    ],
)
def test_bounds_of_other_categories(bound, message):
    with pytest.raises(InputError, match=message):
        ConfidenceRule(bound, 5).only(NAMES, range(2))
    with pytest.raises(InputError, match=message):
        ConfidenceRule(bound, 5, categories=NAMES)


def test_a_rule_keeps_its_own_bounds():
    bounds = {"fire": 0.9, "blood": 0.8}
    rule = ConfidenceRule(bounds, 5)
    bounds["fire"] = 0.1
    assert rule.bound["fire"] == 0.9


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.1, float("inf")])
def test_evidence_that_is_no_probability(value):
    with pytest.raises(InputError, match="no probability"):
        one(0.5, value)


def test_evidence_of_other_shapes():
    with pytest.raises(InputError, match=r"says of shape \[2, 3\]"):
        Evidence(np.zeros((2, 3), bool))
    with pytest.raises(InputError, match=r"of shape \[1, 2, 1\]: that of says, \[1, 2, 2\]"):
        Evidence(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 1)))
    with pytest.raises(InputError, match="are not calibrated"):
        ConfidenceRule(0.9, 2).stops(Evidence(np.zeros((1, 2, 2), bool)))


def test_parts_of_evidence():
    evidence = evidence_of(np.arange(24).reshape(2, 4, 3) / 24)
    part = evidence.first(2).of([1]).by([2, 0])
    assert part.calibrated.tolist() == (np.array([[[14, 12], [17, 15]]]) / 24).tolist()
    assert part.says.shape == (1, 2, 2) and part.steps == 2
    assert Evidence(evidence.says).first(2).of([1]).by([0]).calibrated is None
