"""The votes of a batch: the verdicts of test_accuracy on the same recordings, as early as they are
certain. What fails is stopped.
"""

from itertools import product

import pytest
import torch

from lvd import Guard
from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.errors import InputError
from lvd.evaluation.results import load_results
from lvd.evaluation.vote_report import balanced, counts, verdicts
from lvd.guard.session import UNCHECKED
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.rule import SAFE, UNSAFE
from lvd.rules.vote import VoteRule
from lvd.voting import decided, verdict
from tests.worlds.guarded_recordings import (
    CATEGORIES,
    SHAPE,
    STEPS,
    doubtful,
    guard_session,
    rigged,
)

LAMBDAS = [0, "0.2", 0.3, 0.6, 0.7, 1]


@pytest.mark.parametrize("form", ["shared", "grid"])
def test_verdicts_of_test_accuracy_for_every_lambda_and_eta(world, form, tmp_path):
    """Of the held-out videos of both kinds; and decided as soon as that is certain, not earlier."""
    detectors, found = doubtful(world, form, tmp_path)
    results, steps = load_results(found)
    rows = [(label, row) for label in results for row in results[label]]
    assert steps == STEPS and len({tuple(results[label][row]) for label, row in rows}) >= 3
    x0 = torch.stack(
        [world.x0[label][int(row)] for label, row in rows]
    ).float()  # [N, S, C, F, h, w]
    guard = Guard(detectors, 0.5, STEPS, "cpu")
    for lambda_ in LAMBDAS:
        for eta in range(1, STEPS + 1):
            session = guard_session(guard, lambda_, eta)
            for step in range(STEPS):
                states = session.observe(step, x0[:, step])
                for (label, row), state in zip(rows, states, strict=True):
                    assert state == decided(results[label][row][: step + 1], lambda_, eta)
            for (label, row), result in zip(rows, session.results(), strict=True):
                votes = results[label][row]
                assert result.verdict == [SAFE, UNSAFE][verdict(votes, lambda_, eta)]
                assert result.votes == votes[: len(result.votes)] and len(result.votes) == min(
                    n for n in range(eta + 1) if decided(votes[:n], lambda_, eta)
                )
                assert result.step == max(0, len(result.votes) - 1)
            # As many videos of both kinds: test_accuracy's balance leaves none out.
            guarded = (
                [int(label) for label, _ in rows],
                [int(r.verdict == UNSAFE) for r in session.results()],
            )
            told = verdicts(balanced(results), lambda_, eta)
            assert counts(*guarded) == counts(*told)


def test_every_pattern_of_votes_for_every_lambda_and_eta(world):
    """All 32 as one batch; a video that is decided is not asked about again."""
    guard = Guard(world.shared, 0.5, STEPS, "cpu")
    patterns = torch.tensor(list(product((0, 1), repeat=STEPS)))  # [32, S]
    number = (
        torch.arange(32.0).view(-1, 1, 1, 1, 1).expand(-1, *SHAPE)
    )  # x0 tells which video it is
    asked = []

    def score(step, clips):
        videos = clips[:, 0, 0, 0, 0].long()
        asked.extend((step, video) for video in videos.tolist())
        votes = patterns[videos, step].float()
        return torch.stack(
            [votes * (videos % 2), votes * (videos % 2 == 0)], 1
        )  # one category or the other says so

    guard.bank.score = score
    for lambda_, eta in product([*LAMBDAS, 0.14, "0.55", 0.8], range(1, STEPS + 1)):
        asked.clear()
        session = guard_session(guard, lambda_, eta)
        for step in range(STEPS):
            session.observe(step, number)
        for video, (votes, result) in enumerate(
            zip(patterns.tolist(), session.results(), strict=True)
        ):
            assert result.verdict == [SAFE, UNSAFE][verdict(votes, lambda_, eta)], (
                lambda_,
                eta,
                votes,
            )
            needed = next(n for n in range(eta + 1) if decided(votes[:n], lambda_, eta))
            assert (
                [step for step, v in asked if v == video]
                == list(range(needed))
                == list(range(len(result.votes)))
            )


def test_one_at_a_time_as_in_a_batch(world):
    guard = Guard(world.shared, 0.6, 3, "cpu")
    x0 = torch.cat([world.x0[label][:6] for label in world.x0]).float()
    batch = guard.session(STEPS)
    for step in range(STEPS):
        batch.observe(step, x0[:, step])
    for number, together in enumerate(batch.results()):
        alone = guard.session(STEPS, videos=1)
        for step in range(STEPS):
            alone.observe(step, x0[number : number + 1, step])
        found = alone.results()[0]
        assert (found.verdict, found.votes, found.step) == (
            together.verdict,
            together.votes,
            together.step,
        )
        for name in CATEGORIES:
            assert found.scores[name] == pytest.approx(together.scores[name], abs=1e-5)


def test_in_a_pipeline_under_autocast(world):
    """Detectors answer as they did when their thresholds were chosen."""
    guard, x0 = Guard(world.shared, 1, 1, "cpu"), world.x0[LABEL_UNSAFE][:3, 0].float()
    plain, cast = guard.session(STEPS), guard.session(STEPS)
    plain.observe(0, x0)
    with torch.autocast("cpu", torch.bfloat16):
        cast.observe(0, x0)
    assert [r.scores for r in plain.results()] == [r.scores for r in cast.results()]


def test_no_detector_runs_after_the_decision(world):
    guard, spy = rigged(
        world, lambda step, n: [[0.0, 0.0]] * n, lambda_=0.5, eta=4
    )  # 2 of 4: safe after three noes
    session = guard.session(STEPS)
    for step in range(STEPS):
        states = session.observe(step, torch.zeros(2, *SHAPE))
        assert states == [None if step < 2 else SAFE] * 2
    assert spy.asked == {0: 2, 1: 2, 2: 2}
    (result, _) = session.results()
    assert (result.verdict, result.step, result.votes) == (SAFE, 2, [0, 0, 0])
    assert (result.steps_run, result.steps_saved) == (STEPS, 0)
    assert result.scores == {"odd": [0.0] * 3, "loud": [0.0] * 3} and not result.stopped
    assert result.detectors == [
        f"{group}/{step} ({name})" for step in range(3) for group, name in ((1, "odd"), (2, "loud"))
    ]
    assert result.reason == "0 of 3 steps voted unsafe, 2 of 4 make a video unsafe"


def test_the_batch_may_shrink_and_only_open_videos_are_looked_at(world):
    """As MagicTime's sampler does: whoever is stopped leaves; the numbers of the others stay
    theirs."""
    guard, spy = rigged(
        world,
        lambda step, n: [[0.0, float(step == 0 and k == 1)] for k in range(n)],
        lambda_="0.2",
        eta=5,
    )
    session = guard.session(STEPS, videos=3)
    x0 = torch.zeros(3, *SHAPE)
    assert session.observe(0, x0) == [None, UNSAFE, None]
    for step in range(1, STEPS):
        assert session.observe(step, x0[:2], [0, 2]) == [None if step < 4 else SAFE] * 2
    assert spy.asked == {0: 3, 1: 2, 2: 2, 3: 2, 4: 2}
    assert [(r.verdict, r.steps_run, r.steps_saved) for r in session.results()] == [
        (SAFE, 5, 0),
        (UNSAFE, 1, 4),
        (SAFE, 5, 0),
    ]
    stopped = session.results()[1]
    assert stopped.seconds_saved > 0 and 0 < stopped.seconds <= session.results()[0].seconds
    assert (stopped.step, stopped.votes, stopped.scores["loud"]) == (0, [1], [1.0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e6])
def test_latents_that_are_not_finite_are_not_safe(world, bad):
    """Also when half precision, in which detectors know x0, cannot hold them; and the other video
    does not mind."""
    guard = Guard(world.shared, 0.5, 2, "cpu")
    x0 = world.x0[LABEL_NORMAL][:2].float().clone()
    x0[0, 0, 0, 0, 0, 0] = bad
    session, alone = guard.session(STEPS), guard.session(STEPS)
    for step in range(STEPS):
        states = session.observe(step, x0[:, step])
        alone.observe(step, x0[1:, step])
    assert states[0] == UNCHECKED and session.results()[0].step == 0
    assert (
        "not finite" in session.results()[0].reason
        or "no probability" in session.results()[0].reason
    )
    assert session.results()[1].votes == alone.results()[0].votes and states[1] != UNCHECKED


def test_latents_that_break_after_the_vote_was_safe(world):
    guard, _ = rigged(world, lambda step, n: [[0.0, 0.0]] * n, lambda_=1, eta=1)
    session = guard.session(STEPS)
    assert session.observe(0, torch.zeros(1, *SHAPE)) == [SAFE]
    assert session.observe(1, torch.full((1, *SHAPE), float("nan"))) == [UNCHECKED]


def test_the_categories_that_said_unsafe_are_named_most_often_first(world):
    guard, _ = rigged(world, lambda step, n: [[float(step == 1), 1.0]] * n, lambda_=0.75)
    session, (odd, loud) = guard.session(STEPS), guard.bank.categories.values()
    for step in range(3):
        session.observe(step, torch.zeros(1, *SHAPE))
    assert [(r.verdict, r.categories) for r in session.results()] == [(UNSAFE, [loud, odd])]
    guard, _ = rigged(world, lambda step, n: [[0.0, 0.0]] * n)
    session = guard.session(STEPS)
    session.observe(0, torch.zeros(1, *SHAPE))
    assert session.results()[0].categories == []


def test_an_error_inside_a_detector_stops_that_video_alone(world):
    guard = Guard(world.shared, 0.5, 4, "cpu")
    score = guard.bank.score

    def broken(step, clips):
        if step == 1 and (clips > 50).any():
            raise RuntimeError("CUDA error: something\nlong")
        return score(step, clips)

    guard.bank.score = broken
    x0 = torch.zeros(3, *SHAPE)
    x0[1] = 60
    session = guard.session(STEPS)
    states = [session.observe(step, x0) for step in range(STEPS)][-1]
    result = session.results()[1]
    assert states[1] == UNCHECKED and UNCHECKED not in (states[0], states[2])
    assert (
        result.reason == "RuntimeError in the detectors of step 1: CUDA error: something long"
        and result.stopped
    )
    assert (
        result.step == 1
        and len(result.votes) == 1
        and result.detectors == ["1/0 (odd)", "2/0 (loud)"]
    )


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), -0.5, 1.5])
def test_an_answer_that_is_no_probability(world, answer):
    guard, _ = rigged(world, lambda step, n: [[0.0, answer]] * n)
    session = guard.session(STEPS)
    assert session.observe(0, torch.zeros(1, *SHAPE)) == [UNCHECKED]
    assert "no probability" in session.results()[0].reason


@pytest.mark.parametrize("answer", ["fine", True, None, "Unsafe"])
def test_a_rule_that_answers_something_else_lets_nothing_pass(world, answer):
    class Strange(VoteRule):
        def answers(self, evidence):
            return [answer] * len(evidence.says)

    guard = Guard(world.shared, rule=Strange("0.5", 2), device="cpu")
    session = guard.session(STEPS)
    assert session.observe(0, torch.zeros(2, *SHAPE)) == [UNCHECKED] * 2
    assert all(result.stopped for result in session.results())


def test_sampling_that_ends_early_or_skips_a_step_is_unchecked(world):
    guard, _ = rigged(world, lambda step, n: [[0.0, 0.0]] * n)
    session = guard.session(STEPS)
    session.observe(0, torch.zeros(1, *SHAPE))
    (result,) = session.results()
    assert (result.verdict, result.step, result.steps_run) == (
        UNCHECKED,
        None,
        1,
    ) and "ended before" in result.reason
    assert session.observe(2, torch.zeros(1, *SHAPE)) == [UNCHECKED]
    for indices in ([0], None):
        with pytest.raises(InputError, match="2 videos at step 3, 1 are expected"):
            session.observe(3, torch.zeros(2, *SHAPE), indices)


@pytest.mark.parametrize("indices", [[0, 0], [-1, 0], [0, 5], ["a", 1], [0, None]])
def test_videos_that_are_named_wrongly(world, indices):
    """One that is named twice would vote twice at one step."""
    session = guard_session(Guard(world.shared, 0.5, 2, "cpu"), 0.5, 2)
    session.observe(0, torch.zeros(2, *SHAPE))
    with pytest.raises(InputError, match="indices=.*different numbers of the 2 videos"):
        session.observe(1, torch.zeros(2, *SHAPE), indices)
    assert all(len(result.votes) == 1 for result in session.results())


def test_a_trace_of_a_vote_has_raw_scores_and_their_thresholds(world, tmp_path):
    detectors, _ = doubtful(world, "shared", tmp_path)
    guard = Guard(detectors, 0.5, 3, "cpu")
    x0 = world.x0[LABEL_UNSAFE][:2].float()
    session = guard.session(STEPS, 2)
    for step in range(STEPS):
        session.observe(step, x0[:, step])
        for number, result in enumerate(session.results()):
            trace = session.trace(number)
            assert trace.is_vote and trace.categories == list(result.scores)
            assert trace.numbers.T.tolist() == list(result.scores.values())
            votes = (trace.numbers >= trace.bounds[: len(trace.numbers)]).any(1)
            assert votes.astype(int).tolist() == result.votes
            assert trace.bounds.shape == (3, len(CATEGORIES))


def test_a_trace_of_a_bound_has_calibrated_probabilities_of_categories_that_stop(world):
    *stopping, flagged = CATEGORIES
    bounds = {name: 0.5 + 0.1 * k for k, name in enumerate(CATEGORIES)}
    policy = {flagged: {"action": "flag"}}
    rule = ConfidenceRule(bounds, STEPS)
    session = Guard(world.shared, rule=rule, device="cpu", categories=policy).session(STEPS, 1)
    assert session.trace(0).numbers.shape == (0, len(stopping))
    session.observe(0, world.x0[LABEL_UNSAFE][:1, 0].float())
    trace = session.trace(0)
    assert trace.categories == stopping and not trace.is_vote
    assert trace.bounds.tolist() == [[bounds[name] for name in stopping]] * STEPS
    assert trace.numbers.shape == (1, len(stopping))


def test_a_guard_under_another_rule_is_as_one_made_with_it(world):
    base = Guard(world.shared, device="cpu")
    x0 = world.x0[LABEL_UNSAFE][:3].float()
    results = []
    for guard in (base.with_rule(VoteRule(0.3, 4)), Guard(world.shared, 0.3, 4, "cpu")):
        session = guard.session(STEPS, len(x0))
        for step in range(STEPS):
            session.observe(step, x0[:, step])
        results.append([(r.verdict, r.step, r.votes, r.reason) for r in session.results()])
    assert results[0] == results[1] and base.eta != 4
    with pytest.raises(InputError, match="a vote of eta 99"):
        base.with_rule(VoteRule(0.3, 99))
