"""What is done about each category: what one does changes no verdict of another."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lvd
from lvd import Guard
from lvd.errors import InputError
from lvd.guard.policy import ACTIONS, FLAG, IGNORE, STOP, Judge, Policy, read_policy
from lvd.rules.confidence import ConfidenceRule, LikelihoodRatioRule
from lvd.rules.rule import NEVER, OPEN, SAFE, UNSAFE
from lvd.rules.vote import VoteRule
from lvd.utils.files import save_yaml
from tests.worlds.guarded_recordings import CATEGORIES, SHAPE, STEPS, Spy

NAMES = ("fire", "blood", "smoke")
RULES = [
    VoteRule("0", 3),
    VoteRule("0.6", 3),
    VoteRule("1", 4),
    ConfidenceRule(0.9, 3),
    ConfidenceRule({"fire": 0.5, "blood": 0.9, "smoke": 0.99}, 4),
    LikelihoodRatioRule(0.9, 4, first_bound=0.99, forgetting=0.5),
]
VALUES = st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.99, 1.0])
PATHS = st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=4, max_size=5)
ACTED = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(ACTIONS))
IN_ANY_TIME = settings(deadline=None)  # a busy machine may be slow


def course(rule, policy, path):
    """The answers of a judge after each step, and what it says at the end."""
    judge = Judge(rule.only(NAMES, range(3)), NAMES, policy)
    answers, evidence = [], None
    for n in range(len(path) + 1):
        calibrated = [list(step) for step in path[:n]]
        says = [[value >= 0.5 for value in step] for step in calibrated]
        evidence = judge.evidence(says, calibrated)
        answers.append(judge.answer(evidence))
    return judge, answers, evidence


def unsafe_at(answers):
    return answers.index(UNSAFE) if UNSAFE in answers else NEVER


def changed(path, column, values):
    """The path with other values of one category."""
    return [
        (*step[:column], value, *step[column + 1 :])
        for step, value in zip(path, (values * len(path))[: len(path)])
    ]


# ---- what one category does changes no verdict of another


@IN_ANY_TIME
@given(st.sampled_from(RULES), PATHS, ACTED)
def test_the_rule_decides_as_if_there_were_only_the_categories_that_stop(rule, path, actions):
    stopping = [k for k, name in enumerate(NAMES) if actions.get(name, STOP) == STOP]
    if all(action == IGNORE for action in actions.values()) and len(actions) == 3:
        return
    judge, answers, evidence = course(rule, Policy(actions), path)
    assert answers[-1] != OPEN  # the path is as long as the rule looks
    if not stopping:
        assert answers[-1] == SAFE and judge.reason(evidence) == "no category stops videos"
        return
    alone = rule.only(NAMES, range(3)).only(NAMES, stopping)
    for n, answer in enumerate(answers):
        (of_rule,) = alone.answers(evidence.first(n).by(stopping))
        assert (answer == UNSAFE) == (of_rule == UNSAFE)
        assert answer != SAFE or of_rule == SAFE  # never before the rule is settled
    assert judge.reason(evidence) == alone.reason(evidence.by(stopping))
    assert set(judge.accused(evidence)) <= {NAMES[column] for column in stopping}


@IN_ANY_TIME
@given(st.sampled_from(RULES), PATHS, ACTED, st.integers(0, 2), st.lists(VALUES, min_size=1))
def test_what_an_ignored_or_flagged_category_says_changes_no_verdict(
    rule, path, actions, column, values
):
    other_path = changed(path, column, values)
    others = dict.fromkeys(NAMES, STOP) | actions
    if {action for name, action in others.items() if name != NAMES[column]} == {IGNORE}:
        return
    told = {}
    for action in (IGNORE, FLAG):
        policy = Policy({**actions, NAMES[column]: action})
        judge, before, evidence = course(rule, policy, path)
        _, after, changed_evidence = course(rule, policy, other_path)
        assert unsafe_at(before) == unsafe_at(after) and before[-1] == after[-1]
        assert judge.reason(evidence) == judge.reason(changed_evidence)
        assert judge.accused(evidence) == judge.accused(changed_evidence)
        flags = [set(judge.flags(one)) - {NAMES[column]} for one in (evidence, changed_evidence)]
        assert flags[0] == flags[1]
        if action == IGNORE:
            assert before == after and NAMES[column] not in judge.flags(evidence)
        told[action] = unsafe_at(before), before[-1], flags[0]
    assert told[IGNORE] == told[FLAG]


@IN_ANY_TIME
@given(st.sampled_from(RULES), PATHS, st.integers(0, 2), st.sampled_from([IGNORE, FLAG]))
def test_a_video_that_a_category_never_accused_keeps_its_verdict(rule, path, column, action):
    quiet = changed(path, column, [0.0])
    _, before, _ = course(rule, Policy(), quiet)
    judge, after, evidence = course(rule, Policy({NAMES[column]: action}), quiet)
    assert unsafe_at(before) == unsafe_at(after) and before[-1] == after[-1]
    if action == FLAG and rule != RULES[0]:  # lambda 0 finds everything
        assert judge.flags(evidence) == []


@IN_ANY_TIME
@given(st.sampled_from(RULES[3:]), PATHS, st.sampled_from(NAMES))
def test_a_bound_of_its_own_holds_for_that_category_alone(rule, path, name):
    bounds = {name: 0.7}
    actions = dict.fromkeys(NAMES, FLAG)
    judge, _, evidence = course(rule, Policy(actions, bounds), path)
    usual, _, _ = course(rule, Policy(actions), path)
    (column,) = [k for k, other in enumerate(NAMES) if other == name]
    own = rule.only(NAMES, range(3)).with_bounds(bounds, NAMES).only(NAMES, [column])
    found = own.answers(evidence.by([column])) == [UNSAFE]
    assert (name in judge.flags(evidence)) == found
    assert set(judge.flags(evidence)) - {name} == set(usual.flags(evidence)) - {name}


def test_safe_waits_for_the_flags():
    rule, policy = VoteRule("1", 3), Policy({"smoke": FLAG})
    path = [(0.0, 0.0, 0.9)] * 3  # safe after one vote; smoke is found after three
    judge, answers, evidence = course(rule, policy, path)
    assert answers == [OPEN, OPEN, OPEN, SAFE] and judge.flags(evidence) == ["smoke"]
    assert judge.vote([0, 0, 1]) == 0 and judge.vote([0, 1, 0]) == 1
    assert course(rule, Policy(), [(0.0, 0.0, 0.0)] * 3)[1][1] == SAFE


# ---- what a policy may say


@pytest.mark.parametrize(
    "categories, said",
    [
        ([1], r"categories: content: found \[1\]"),
        ("fire", "categories: content: found 'fire'"),
        ([], "categories: content: found"),
        ({1: {}}, "categories: 1"),
        ({"fire": "flag"}, "categories: fire: found 'flag'"),
        ({"fire": {"action": "warn"}}, "fire.action: found 'warn'; 'stop', 'flag' or 'ignore'"),
        ({"fire": {"actions": "flag"}}, "unknown key 'fire.actions'"),
        ({"fire": {"bound": "x"}}, "fire.bound: found 'x'"),
        ({"fire": {"bound": True}}, "fire.bound: found True"),
        ({"fire": {"bound": float("nan")}}, "fire.bound"),
        ({"fire": {"action": "ignore", "bound": 0.5}}, "bound of 'fire': changes nothing"),
        ({"fire": {"bound": 2.0}}, "bound of 'fire' 2.0: a probability between 0 and 1"),
        ({"fir": {"action": "flag"}}, "unknown category 'fir'; the detectors have 'fire, blood"),
        ({name: {"action": "ignore"} for name in NAMES}, "all categories are ignored"),
    ],
)
def test_what_is_no_policy(categories, said):
    with pytest.raises(InputError, match=said) as error:
        Judge(ConfidenceRule(0.9, 3), NAMES, read_policy(categories))
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


def test_a_vote_has_no_bounds():
    with pytest.raises(InputError, match="^x.yaml: bound of 'fire': .*vote has no bounds"):
        Judge(VoteRule(), NAMES, read_policy({"fire": {"bound": 0.5}}, "x.yaml"))


def test_what_is_usual_is_not_told():
    policy = read_policy({"fire": {"action": "stop"}, "smoke": {"action": "flag", "bound": 0.7}})
    assert policy.as_dict() == {"smoke": {"action": "flag", "bound": 0.7}}
    assert policy.describe() == "smoke: flag, bound 0.7"
    assert read_policy(None).as_dict() == {} and read_policy({}).describe() == ""


# ---- in the guard


def judged(guard, scores, videos=1):
    """The result of one video whose detectors answer [step][G] of scores; and what was asked."""
    spy = Spy(guard, lambda step, found: torch.tensor([scores[step]] * len(found)))
    session = guard.session(STEPS)
    for step in range(STEPS):
        session.observe(step, torch.zeros(videos, *SHAPE))
    return session.results()[0], spy


def test_flagged_videos_pass_and_are_told(world):
    policy = {"loud": {"action": "flag"}}
    guard = Guard(world.shared, 1, 3, "cpu", categories=policy)
    result, spy = judged(guard, [[0.0, 1.0]] * STEPS)
    assert (result.verdict, result.flags, result.categories) == (SAFE, ["loud"], [])
    assert result.votes == [0, 0, 0] and not result.stopped and sum(spy.asked.values()) == 3
    assert result.step == 2 and result.scores["loud"] == [1.0] * 3
    result, _ = judged(guard, [[1.0, 1.0]] * STEPS)
    assert (result.verdict, result.categories, result.flags) == ("unsafe", ["odd"], ["loud"])
    result, _ = judged(guard, [[0.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert result.flags == []


def test_ignored_categories_count_nowhere_even_when_they_fail(world):
    guard = Guard(world.shared, 1, 2, "cpu", categories={"loud": {"action": "ignore"}})
    for answer in (1.0, float("nan")):
        result, _ = judged(guard, [[0.0, answer]] * STEPS)
        assert (result.verdict, result.flags, result.votes) == (SAFE, [], [0])
    guard = Guard(world.shared, 1, 2, "cpu", categories={"loud": {"action": "flag"}})
    result, _ = judged(guard, [[0.0, float("nan")]] * STEPS)
    assert result.verdict == "unchecked"


def test_a_guard_file(world, tmp_path):
    path = tmp_path / "guard.yaml"
    content = {
        "detectors": str(world.shared),
        "rule": {"family": "confidence", "bound": 0.9, "horizon": 3},
        "operating_point": "argmax",
        "categories": {"odd": {"action": "flag", "bound": 0.5}, "loud": {"action": "stop"}},
    }
    save_yaml(content, path)
    for named in (path, str(path)):
        guard = lvd.Guard.from_file(named, device="cpu")
        assert guard.rule.as_dict() == {"bound": 0.9, "horizon": 3} and guard.eta == 3
        assert guard.operating_point == "argmax" and guard.lambda_ is None
        assert guard.policy.as_dict() == {"odd": {"action": "flag", "bound": 0.5}}
    (tmp_path / "detectors").symlink_to(world.shared)  # paths count from the file's folder
    save_yaml({"detectors": "detectors"}, path)
    assert lvd.Guard.from_file(path, "cpu").rule == VoteRule("0.6", 5)
    rule = {"format": "lvd rule 1", "family": "vote", "lambda": "0.2", "eta": 2}
    save_yaml({**rule, "operating_point": 0.7}, tmp_path / "r.yaml")
    save_yaml({"detectors": "detectors", "rule": "r.yaml"}, path)
    guard = lvd.Guard.from_file(path, "cpu")
    assert (guard.rule, guard.operating_point) == (VoteRule("0.2", 2), 0.7)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"detectors": None}, "detectors"),
        ({"detectors": 5}, "detectors: found 5"),
        ({"detectors": ""}, "detectors: found ''"),
        ({"detectors": "nowhere"}, "detectors .*nowhere: no detectors"),
        ({"detector": "x"}, "unknown key 'detector'"),
        ({"rule": 5}, "rule: found 5; the path of a rule.yaml, or a mapping"),
        ({"rule": "none.yaml"}, "rule .*none.yaml: no such file"),
        ({"rule": {"family": "confidence", "bound": 0.5}}, "rule: key 'horizon' is missing"),
        ({"rule": {"family": "vote", "lambda": 2, "eta": 3}}, "rule: lambda 2"),
        (
            {"rule": {"family": "confidence", "bound": 0.5, "horizon": 9}},
            "rule: a rule with horizon 9 needs the detectors of its first 9 steps",
        ),
        ({"operating_point": "fair"}, "operating_point 'fair'"),
        ({"categories": {"odd": "flag"}}, "categories.odd: found 'flag'"),
        ({"categories": {"even": {}}}, "categories: unknown category 'even'"),
        ({"categories": {name: {"action": "ignore"} for name in CATEGORIES}}, "all .* ignored"),
        ({"categories": {"odd": {"bound": 0.5}}}, "categories: bound of 'odd': .* no bounds"),
        ({"categories": 5}, "categories: found 5"),
    ],
)
def test_a_guard_file_that_is_damaged(world, tmp_path, changes, said):
    path = tmp_path / "guard.yaml"
    save_yaml({"detectors": str(world.shared), **changes}, path)
    with pytest.raises(InputError, match=said) as error:
        lvd.Guard.from_file(path, "cpu", asked_by="--guard ")
    message = str(error.value)
    assert message.startswith(f"--guard {path}: ") and "\n" not in message


@pytest.mark.parametrize("text", ["", "[1]", "detectors: [", "\0"])
def test_a_guard_file_that_is_none(tmp_path, text):
    path = tmp_path / "guard.yaml"
    for _ in range(2):
        with pytest.raises(InputError, match=f"^path={path}: "):
            lvd.Guard.from_file(path)  # first there is none
        path.write_text(text)
    for bad in (None, 5, b"guard.yaml", "x" * 100_000):
        with pytest.raises(InputError, match="^path=.*the path of a guard.yaml is needed"):
            lvd.Guard.from_file(bad)


# ---- the names of an unsafe video


def named_guard(world, names, **settings):
    guard = Guard(world.shared, "0.5", 2, "cpu", **settings)
    guard.bank.names = names
    return guard


@pytest.mark.parametrize(
    "probabilities, categories",
    [
        ([0.2, 0.9], ["loud"]),
        ([0.6, 0.9], ["loud", "odd"]),
        ([0.2, 0.1], ["odd"]),  # the largest at least
        (None, ["odd"]),  # the detectors have no names: as the rule accuses
        ([float("nan"), 0.9], ["odd"]),
        ([0.2, 0.3, 0.9], ["odd"]),
        ([], ["odd"]),
    ],
)
def test_a_network_of_names_is_asked_once_and_only_of_unsafe_videos(
    world, probabilities, categories
):
    asked = []

    def names(step, clips):
        asked.append((step, len(clips)))
        return None if probabilities is None else torch.tensor([probabilities])

    result, _ = judged(named_guard(world, names), [[0.0, 0.0], [1.0, 0.0]])
    assert (result.verdict, result.step) == ("unsafe", 1)
    assert result.categories == categories and asked == [(1, 1)]
    result, _ = judged(named_guard(world, names), [[0.0, 0.0]] * STEPS)
    assert (result.verdict, result.categories) == (SAFE, []) and len(asked) == 1


def test_names_that_fail_change_no_verdict(world):
    def broken(step, clips):
        raise RuntimeError("no such kernel")

    result, _ = judged(named_guard(world, broken), [[0.0, 1.0]] * STEPS)
    assert (result.verdict, result.categories) == ("unsafe", ["loud"])


def test_only_categories_that_stop_are_named(world):
    names = lambda step, clips: torch.tensor([[0.9, 0.8]])  # noqa: E731
    for action in (FLAG, IGNORE):
        guard = named_guard(world, names, categories={"odd": {"action": action}})
        result, _ = judged(guard, [[0.0, 1.0]] * STEPS)
        assert result.categories == ["loud"]


def test_an_answer_of_a_video_among_others_is_its_own(world):
    """Each video is named by its own clip."""
    guard = named_guard(world, lambda step, clips: clips[:, 0, 0, 0, :2].float())
    Spy(guard, lambda step, found: torch.ones_like(found))
    x0 = torch.zeros(2, *SHAPE)
    x0[0, 0, 0, 0, 0] = x0[1, 0, 0, 0, 1] = 1
    session = guard.session(STEPS)
    session.observe(0, x0)
    assert [result.categories for result in session.results()] == [["odd"], ["loud"]]
    assert np.unique([result.verdict for result in session.results()]).tolist() == ["unsafe"]
