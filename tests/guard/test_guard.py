"""The guard: the verdicts of test_accuracy on the same recordings, as early as they are certain;
what fails, is stopped."""

import csv
import gc
import shutil
import warnings
from collections import Counter
from itertools import product
from types import SimpleNamespace

import diffusers
import pytest
import torch

import embed_model
import gen_eval_set
import lvd
import train_mae
from benchmarks.common.tiny_pipelines import build
from lvd import Guard, GuardResult, UnsafeVideoError
from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.detectors.bank import load_bank
from lvd.errors import InputError
from lvd.evaluation import vote_report as report
from lvd.evaluation.results import load_results
from lvd.guard.guard import Reader
from lvd.guard.session import SAFE, UNCHECKED, UNSAFE, GuardSession
from lvd.utils.files import load_torch, save_torch, save_yaml
from lvd.voting import decided, verdict
from lvd.x0.file import X0File, open_x0_file
from lvd.x0.provenance import need_same_sampling, recorded_sampling
from lvd.x0.schedulers import describe_scheduler

STEPS, VIDEOS, AT_ONCE = 5, 24, 12
SHAPE = (4, 3, 4, 8)  # C, F, h, w
LAMBDAS = [0, "0.2", 0.3, 0.6, 0.7, 1]
CATEGORIES = {"odd": range(0, 14), "loud": range(12, 24)}


@pytest.fixture(scope="module")
def tiny():
    return build("AnimateDiffPipeline")


@pytest.fixture(scope="module")
def world(tiny, tmp_path_factory):
    """Recordings of a tiny AnimateDiff with labels, and detectors of both forms trained on them."""
    root = tmp_path_factory.mktemp("guard")
    paths = {}
    for kind, sign in (("unsafe", 1), ("normal", -1)):
        paths[kind] = root / kind / "pred_x0.pth"
        with lvd.record(tiny.pipe, paths[kind], VIDEOS) as recording:
            for first in range(0, VIDEOS, AT_ONCE):
                with recording.rows(list(range(first, first + AT_ONCE))):
                    tiny.pipe(
                        **tiny.inputs(
                            [sign] * AT_ONCE,
                            range(first, first + AT_ONCE),
                            first=first,
                            steps=STEPS,
                        )
                    )
    config, evaluation, labels = root / "build_x0.yaml", root / "eval.pth", root / "label.csv"
    with open(labels, "w", newline="") as f:
        rows = [list(map(str, column)) for column in CATEGORIES.values()]
        longest = max(map(len, rows))
        csv.writer(f).writerows(
            [CATEGORIES, *zip(*(column + [""] * (longest - len(column)) for column in rows))]
        )
    save_yaml(
        {
            "pred_x0": str(paths["unsafe"]),
            "normal_pred_x0": str(paths["normal"]),
            "label_file_dir": str(labels),
            "out_dir": str(root / "data"),
        },
        config,
    )
    assert gen_eval_set.main(["--config", str(config), "--save_path", str(evaluation)]) == 0
    flags = [
        "--recordings",
        str(config),
        "--eval_dir",
        str(evaluation),
        "--size",
        "nano",
        "--gpu_num",
        "-1",
    ]
    for form, more in (
        ("shared", ["--model", "shared", "--epoch", "40"]),
        ("grid", ["--epoch", "5", "--workers", "1"]),
    ):
        assert train_mae.main([*flags, "--save_dir", str(root / form), *more]) == 0
    return SimpleNamespace(
        root=root,
        shared=root / "shared",
        grid=root / "grid",
        config=config,
        eval=evaluation,
        x0={
            LABEL_UNSAFE: open_x0_file(paths["unsafe"]).tensor,
            LABEL_NORMAL: open_x0_file(paths["normal"]).tensor,
        },
    )


def doubtful(world, form, folder):
    """A copy of the detectors whose thresholds lie among the scores of the recordings, so that
    votes of all sorts come about; and the votes that embed_model.py records of the held-out videos.
    """
    shutil.copytree(getattr(world, form), folder / form)
    bank = load_bank(folder / form)
    for step in bank.steps:
        scores = bank.score(step, torch.cat([x0[:, step] for x0 in world.x0.values()]))
        for group, threshold in enumerate(
            scores.quantile((0.25, 0.8, 0.4, 0.65, 0.75)[step], 0).tolist(), 1
        ):
            path = folder / form / ("shared.pth" if form == "shared" else f"{group}/{step}.pth")
            found = load_torch(path)
            if form == "shared":
                found["thresholds"][step][group - 1] = threshold
            else:
                found["threshold"] = threshold
            save_torch(found, path)
    assert (
        embed_model.main(
            [
                "--model_dir",
                str(folder / form),
                "--recordings",
                str(world.config),
                "--eval_dir",
                str(world.eval),
                "--save_dir",
                str(folder / "results"),
                "--operating_point",
                "validation",
                "--gpu_num",
                "-1",
            ]
        )
        == 0
    )
    return folder / form, folder / "results"


def guard_session(guard, lambda_, eta):
    return GuardSession(guard.bank, guard.reader, lambda_, eta, STEPS)


class Spy:
    """The bank's own scores, counted: {(step, clips): calls}. extra: function of (step, scores) →
    scores."""

    def __init__(self, guard, extra=None):
        self.asked, self._score, self._extra = Counter(), guard.bank.score, extra
        guard.bank.score = self

    def __call__(self, step, clips):
        self.asked[step] += len(clips)
        found = self._score(step, clips)
        return self._extra(step, found) if self._extra else found


def rigged(world, scores, lambda_=0.5, eta=4):
    """A guard whose detectors' answers are given: function of (step, number of clips) → [n][G]; and
    what was asked."""
    guard = Guard(world.shared, lambda_, eta, "cpu")
    spy = Spy(
        guard, lambda step, found: torch.tensor(scores(step, len(found)), dtype=torch.float32)
    )
    return guard, spy


def run(pipe, tiny, watch, kinds=(1, 1), seeds=(3, 4), **changes):
    with watch:
        return pipe(**tiny.inputs(list(kinds), seeds, first=100, steps=STEPS, **changes)).frames


# ---- the vote
# -------------------------------------------------------------------------------------------------------


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
            assert report.counts(*guarded) == report.counts(
                *report.verdicts(report.balanced(results), lambda_, eta)
            )


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


# ---- fails closed
# ---------------------------------------------------------------------------------------------------


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


def test_missing_and_unreadable_detectors_refuse_to_start(world, tmp_path):
    for what in ("missing", "group", "step", "damaged", "one step"):
        folder = tmp_path / what.replace(" ", "_")
        shutil.copytree(world.grid, folder)
        path = folder / "2" / "1.pth"
        if what == "damaged":
            path.write_bytes(path.read_bytes()[:-2000])
        elif what == "group":
            shutil.rmtree(folder / "2")
        elif what == "one step":
            found = load_torch(path)
            found["state_dict"].pop(next(iter(found["state_dict"])))
            save_torch(found, path)
        else:
            for group in ("1", "2") if what == "step" else ("2",):
                (folder / group / "1.pth").unlink()
        with pytest.raises(
            InputError, match="missing|2/1.pth|no detectors of group 2|no detectors of step 1"
        ):
            Guard(folder, 0.6, 3, "cpu")
        if what == "step":
            assert Guard(folder, 0.6, 1, "cpu").eta == 1  # which needs step 0 alone
    for eta in (0, STEPS + 1, 1.5, True):
        with pytest.raises(InputError, match="eta"):
            Guard(world.shared, 0.6, eta, "cpu")
    with pytest.raises(InputError, match="lambda"):
        Guard(world.shared, 1.2, 2, "cpu")
    with pytest.raises(InputError, match="^model_dir=.*nowhere: no detectors"):
        Guard(tmp_path / "nowhere", 0.6, 2, "cpu")
    with pytest.raises(InputError, match="--eta '2': a whole number"):
        Guard(world.shared, 0.6, "2", "cpu")


def test_thresholds_that_say_nothing_refuse_to_start(world, tmp_path):
    found = load_torch(world.shared / "shared.pth")
    found["thresholds"][1][1] = float("nan")
    save_torch(found, tmp_path / "shared.pth")
    with pytest.raises(InputError, match="step 1, loud: threshold nan"):
        Guard(tmp_path, 0.6, 3, "cpu")
    with pytest.raises(InputError, match="operating_point 'sometimes'"):
        Guard(world.shared, 0.6, 3, "cpu", operating_point="sometimes")
    strict, loose = (
        Guard(world.shared, 0.6, 3, "cpu", operating_point=point) for point in ("0.9", 0.1)
    )
    assert (
        strict.bank.thresholds(0, strict.operating_point)[0]
        > loose.bank.thresholds(0, loose.operating_point)[0]
    )


SAMPLING = {"steps": STEPS, "x0_mode": "true", "latent_shape": list(SHAPE)}


@pytest.mark.parametrize("form", ["shared", "grid"])
@pytest.mark.parametrize(
    "key, value, message",
    [
        ("steps", 6, "trained for steps 5, this sampling has 6"),
        ("x0_mode", "released", "x0_mode true, .*released"),
        ("latent_shape", [4, 3, 8, 8], r"\[4, 3, 4, 8\], this sampling has \[4, 3, 8, 8\]"),
        ("latent_shape", [8, 3, 4, 8], "latents of 4 channels, these have 8"),
        (
            "timesteps",
            [999, 799, 599, 399, 199],
            r"timesteps \[800, 600, \.\.\., 0\], this sampling has \[999, 799, \.\.\., 199\]",
        ),
    ],
)
def test_another_sampling_is_refused(world, form, key, value, message):
    guard = Guard(getattr(world, form), 0.6, 3, "cpu")
    guard.check(SAMPLING)
    with pytest.raises(InputError, match=message):
        guard.check({**SAMPLING, key: value})
    guard.allow_unknown = True  # which is for what is not known
    with pytest.raises(InputError, match=message):
        guard.check({**SAMPLING, key: value})


def test_another_scheduler_or_setting_is_refused(world, tiny):
    guard = Guard(world.shared, 0.6, 3, "cpu")
    with pytest.warns(UserWarning):  # made to see that it can be
        guard.watch(tiny.pipe)
    right = tiny.pipe.scheduler
    others = {
        "EulerDiscreteScheduler": diffusers.EulerDiscreteScheduler(),
        "beta_end": diffusers.DDIMScheduler.from_config(right.config, beta_end=0.03),
        "prediction_type": diffusers.DDIMScheduler.from_config(
            right.config, prediction_type="v_prediction"
        ),
    }
    try:
        for name, tiny.pipe.scheduler in others.items():
            with pytest.raises(InputError, match=name):
                guard.watch(tiny.pipe)
    finally:
        tiny.pipe.scheduler = right


def test_how_x0_came_about_reaches_the_detectors(world, tmp_path):
    """From the recording, with or without a dataset of clip files between, into either form of
    detector."""
    import build_x0
    from lvd.data.sources import FolderClips

    assert (
        build_x0.main(
            ["--config", str(world.config), "--out_dir", str(tmp_path / "data"), "--gpu_num", "-1"]
        )
        == 0
    )
    wanted = {
        "steps": STEPS,
        "latent_shape": list(SHAPE),
        "x0_dtype": "float16",
        "x0_mode": "true",
        "timesteps": [800, 600, 400, 200, 0],
    }
    samplings = [
        FolderClips(tmp_path / "data").sampling,
        load_bank(world.shared).about["sampling"],
        load_bank(world.grid).members[2, 3].about["sampling"],
    ]
    for found in samplings:
        assert {key: found[key] for key in wanted} == wanted
        assert (
            found["scheduler"]["class"] == "DDIMScheduler"
            and found["scheduler"]["beta_schedule"] == "linear"
        )
    assert samplings[0] == samplings[1] == samplings[2]


def test_recordings_of_magictime_say_it_in_their_config():
    kwargs = dict(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        steps_offset=1,
        clip_sample=False,
    )
    meta = {"x0_mode": "released", "config": {"noise_scheduler_kwargs": kwargs}}
    x0 = X0File("x", torch.zeros(2, 3, 4, 4, 4, 4), [0], meta, {0: {"timesteps": [667, 334, 1]}})
    found = recorded_sampling(x0)
    assert (found["x0_mode"], found["timesteps"], found["steps"]) == ("released", [667, 334, 1], 3)
    member = SimpleNamespace(path="1/0.pth", about={"sampling": found})
    here = describe_scheduler(diffusers.DDIMScheduler(**kwargs))
    need_same_sampling(
        [member], {"scheduler": here, "timesteps": [667.0, 334.0, 1.0], "x0_mode": "released"}
    )
    with pytest.raises(InputError, match="clip_sample False, this sampling has True"):
        need_same_sampling([member], {"scheduler": {**here, "clip_sample": True}})
    assert recorded_sampling(X0File("x", x0.tensor, [0], {})).keys() == {
        "steps",
        "latent_shape",
        "x0_dtype",
    }


def test_detectors_that_do_not_say_what_they_learned_from(world, tiny, tmp_path):
    """As those trained before recordings told: refused, unless the caller vouches for them."""
    found = load_torch(world.shared / "shared.pth")
    del found["about"]["sampling"]
    save_torch(found, tmp_path / "shared.pth")
    with pytest.raises(InputError, match="does not say for which .*allow_unknown"):
        Guard(tmp_path, 0.6, 3, "cpu").watch(tiny.pipe)
    guard = Guard(tmp_path, 0.6, 3, "cpu", allow_unknown=True)
    with pytest.warns(UserWarning):
        guard.watch(tiny.pipe)
    with pytest.raises(InputError, match="latents of 4 channels, these have 16"):
        guard.check({"latent_shape": [16, 3, 4, 8]})


# ---- a pipeline
# -----------------------------------------------------------------------------------------------------


def test_a_pipeline_is_stopped_and_another_passes(world, tiny):
    """With the trained detectors: a prompt of the unsafe side of the world, and one of the other."""
    guard = Guard(world.shared, 0.6, 3, "cpu")
    plain = run(tiny.pipe, tiny, lvd.X0Recorder(tiny.pipe.scheduler), (-1,), (50,))
    watch = guard.watch(tiny.pipe)
    assert torch.equal(run(tiny.pipe, tiny, watch, (-1,), (50,)), plain)
    (result,) = watch.results
    assert isinstance(result, GuardResult) and (
        result.verdict,
        result.steps_run,
        result.steps_saved,
    ) == (SAFE, STEPS, 0)
    watch = guard.watch(tiny.pipe)
    with pytest.raises(
        UnsafeVideoError, match="video 0: unsafe .2 of 2 steps voted unsafe, 2 of 3 make"
    ) as error:
        run(tiny.pipe, tiny, watch, (1,), (50,))
    (result,) = watch.results
    assert error.value.results == watch.results and (
        result.step,
        result.steps_run,
        result.steps_saved,
    ) == (1, 2, STEPS - 2)
    assert result.seconds_saved > 0 and type(tiny.pipe.scheduler) is diffusers.DDIMScheduler


def test_in_a_batch_only_the_unsafe_video_is_lost(world, tiny):
    plain = run(tiny.pipe, tiny, lvd.X0Recorder(tiny.pipe.scheduler), (1, -1))
    guard = Guard(world.shared, 0.6, 3, "cpu")
    watch = guard.watch(tiny.pipe)
    found = run(tiny.pipe, tiny, watch, (1, -1))
    assert [r.verdict for r in watch.results] == [UNSAFE, SAFE]
    assert torch.equal(found[1], plain[1]) and not found[0].any() and plain[0].any()
    assert [r.steps_run for r in watch.results] == [
        STEPS
    ] * 2  # the batch went on for the other's sake

    watch = guard.watch(tiny.pipe)  # decoded, it is what the autoencoder makes of nothing
    pictures = run(tiny.pipe, tiny, watch, (1, -1), output_type="pt")
    blank = tiny.pipe.decode_latents(torch.zeros_like(plain[:1]))  # [1, 3, F, H, W]
    assert (pictures[0] - (blank[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1)).abs().max() < 1e-5


@pytest.mark.parametrize("mode", ["raise", "interrupt"])
@pytest.mark.parametrize("cause", ["unsafe", "error"])
def test_stopped_when_none_is_left(world, tiny, mode, cause):
    """One at step 0, the other at step 2; then the model is not run any more."""
    ran, forward = [], tiny.pipe.unet.forward

    def scores(step, n):
        if cause == "error" and step == 2:
            raise ValueError("broken")
        return [[float(k == 0), 0.0] for k in range(n)] if step in (0, 2) else [[0.0, 0.0]] * n

    guard, spy = rigged(world, scores, lambda_="0.2", eta=5)
    watch = guard.watch(tiny.pipe, on_unsafe=mode)
    tiny.pipe.unet.forward = lambda *args, **kwargs: (ran.append(1), forward(*args, **kwargs))[1]
    try:
        if mode == "raise":
            with pytest.raises(UnsafeVideoError) as error:
                run(tiny.pipe, tiny, watch)
            assert error.value.results == watch.results
        else:
            assert not run(tiny.pipe, tiny, watch).any()  # blank latents, whatever becomes of them
    finally:
        del tiny.pipe.unet.forward
    last = UNSAFE if cause == "unsafe" else UNCHECKED
    assert [(r.verdict, r.step, r.steps_run, r.steps_saved) for r in watch.results] == [
        (UNSAFE, 0, 3, 2),
        (last, 2, 3, 2),
    ]
    assert len(ran) == 3 and spy.asked == {0: 2, 1: 1, 2: 1}
    assert type(tiny.pipe.scheduler) is diffusers.DDIMScheduler and "prepare_latents" not in vars(
        tiny.pipe
    )


def test_nan_in_one_video_of_a_pipeline(world, tiny):
    """Its embeddings break; it is blanked, the other comes out as ever."""
    plain = tiny.pipe(**tiny.inputs([-1, -1], (3, 4), steps=STEPS)).frames
    guard, _ = rigged(world, lambda step, n: [[0.0, 0.0]] * n)
    broken = tiny.inputs([-1, -1], (3, 4), steps=STEPS)
    broken["prompt_embeds"][0] = float("nan")
    with guard.watch(tiny.pipe) as watch:
        found = tiny.pipe(**broken).frames
    assert [r.verdict for r in watch.results] == [UNCHECKED, SAFE]
    assert torch.equal(found[1], plain[1]) and not found[0].any()


def test_another_number_of_steps_or_size_is_refused_before_it_costs(world, tiny):
    guard, ran = Guard(world.shared, 0.6, 3, "cpu"), []
    handle = tiny.pipe.unet.register_forward_pre_hook(lambda *_: ran.append(1))
    try:
        with (
            pytest.raises(InputError, match="trained for steps 5, this sampling has 4"),
            guard.watch(tiny.pipe),
        ):
            tiny.pipe(**tiny.inputs([1], steps=4))
        with (
            pytest.raises(InputError, match="^this sampling has 1 step, a vote of eta 3 needs 3$"),
            guard.watch(tiny.pipe),
        ):
            tiny.pipe(**tiny.inputs([1], steps=1))
        with pytest.raises(
            InputError, match="^this sampling has 2 steps, a vote of eta 3 needs 3$"
        ):
            guard.session(2)
        assert not ran
        with (
            pytest.raises(
                InputError, match=r"\(C, F, h, w\) \[4, 3, 4, 8\], this sampling has \[4, 6, 4, 8\]"
            ),
            guard.watch(tiny.pipe),
        ):
            tiny.pipe(**tiny.inputs([1], steps=STEPS, num_frames=6))
        assert len(ran) == 1
    finally:
        handle.remove()


def test_a_call_that_was_not_watched_to_its_verdict_raises(world, tiny):
    guard, _ = rigged(world, lambda step, n: [[0.0, 0.0]] * n)
    with pytest.raises(InputError, match="took no step"), guard.watch(tiny.pipe):
        pass
    with pytest.raises(InputError, match="took no step"), guard.watch(tiny.pipe):
        tiny.pipe.scheduler.set_timesteps(STEPS)

    def stop(pipe, step, timestep, kwargs):  # the user's own, before the vote is decided
        pipe._interrupt = step == 1
        return kwargs

    for mode in ("raise", "interrupt"):
        with (
            pytest.raises(UnsafeVideoError, match="unchecked .sampling ended"),
            guard.watch(tiny.pipe, mode) as watch,
        ):
            tiny.pipe(**tiny.inputs([-1], steps=STEPS, callback_on_step_end=stop))
        assert [(r.verdict, r.steps_run) for r in watch.results] == [(UNCHECKED, 2)]
    with pytest.raises(RuntimeError, match="mine"), guard.watch(tiny.pipe) as watch:
        raise RuntimeError("mine")
    assert watch.results == [] and type(tiny.pipe.scheduler) is diffusers.DDIMScheduler


def test_a_watch_that_was_never_entered_warns(world, tiny):
    """`guard.watch(pipe)` without `with` guards nothing."""
    guard = Guard(world.shared, 0.6, 3, "cpu")
    with pytest.warns(
        UserWarning, match="AnimateDiffPipeline. was never entered, so nothing was checked"
    ) as told:
        guard.watch(tiny.pipe)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch = guard.watch(tiny.pipe)
        run(tiny.pipe, tiny, watch, (-1,), (3,))
        del watch
        with pytest.raises(InputError, match="on_unsafe"):  # refused, so it is known not to watch
            guard.watch(tiny.pipe, "warn")
        gc.collect()


def test_a_watch_may_be_used_again(world, tiny):
    """And sees that call, not the one before."""
    watch = Guard(world.shared, 0.6, 3, "cpu").watch(tiny.pipe)
    run(tiny.pipe, tiny, watch, (-1,), (3,))
    with pytest.raises(UnsafeVideoError):
        run(tiny.pipe, tiny, watch, (1,), (3,))
    run(tiny.pipe, tiny, watch, (-1, 1))
    assert [r.verdict for r in watch.results] == [SAFE, UNSAFE]
    with pytest.raises(InputError, match="took no step"), watch:
        pass
    assert watch.results == []


def test_a_pipeline_that_begins_in_the_middle_is_refused(world, tiny):
    """As video-to-video does, to which step 0 is what the detectors know as another step."""

    class OwnPipeline:
        scheduler = tiny.pipe.scheduler

        def __call__(self, first):
            self.scheduler.set_timesteps(STEPS)
            x = torch.zeros(1, *SHAPE)
            for timestep in self.scheduler.timesteps[first:]:
                x = self.scheduler.step(x, timestep, x).prev_sample
            return x

    guard, pipe = Guard(world.shared, 0.6, 3, "cpu"), OwnPipeline()
    try:
        with guard.watch(pipe, layout="BCFHW") as watch:
            pipe(0)
    except UnsafeVideoError:
        pass  # zeros may look like anything
    assert len(watch.results) == 1
    with pytest.raises(InputError, match="step 0 has timestep 600, its scheduler's is 800"):
        with guard.watch(pipe, layout="BCFHW"):
            pipe(1)


def test_modes_and_pipelines_that_are_refused(world, tiny):
    guard = Guard(world.shared, 0.6, 3, "cpu")
    with pytest.raises(InputError, match="on_unsafe='warn'"):
        guard.watch(tiny.pipe, "warn")
    with pytest.raises(InputError, match="cannot be interrupted"):
        guard.watch(SimpleNamespace(scheduler=tiny.pipe.scheduler), "interrupt", layout="BCFHW")
    with (
        pytest.raises(InputError, match="one watch at a time"),
        guard.watch(tiny.pipe),
        guard.watch(tiny.pipe),
    ):
        pass
    assert type(tiny.pipe.scheduler) is diffusers.DDIMScheduler


# ---- small things
# ---------------------------------------------------------------------------------------------------


def test_small_frames_and_videos_are_read_as_recordings_are(world):
    """The reader makes of x0 what lvd.data.sources makes of the same recording."""
    from lvd.data.labels import read_labels
    from lvd.data.recorded_clips import RecordedClips
    from lvd.data.rgb import LatentToRGB

    paths = [world.root / kind / "pred_x0.pth" for kind in ("unsafe", "normal")]
    rgb = LatentToRGB()
    pixels = lambda latents: (
        rgb(latents).repeat_interleave(4, -1).repeat_interleave(4, -2) / 2 + 0.5
    )  # noqa: E731
    for representation, decode in (("latent", None), ("rgb", rgb), ("video", pixels)):
        source = RecordedClips(
            *paths, read_labels(world.root / "label.csv"), representation, decode
        )
        wanted = source.read("unsafe", [3, 4], 2)
        about = {"sampling": source.sampling, "dataset": source.made_by}
        member = SimpleNamespace(path="x", representation=representation, about=about)
        bank = SimpleNamespace(input_config=lambda step: None)
        reader = Reader(bank, [member], decode if representation == "video" else None)
        found = reader(2, world.x0[LABEL_UNSAFE][3:5, 2].float())
        assert found.dtype == torch.float16 and torch.equal(found, wanted), representation
        finer = torch.randn(2, *SHAPE)  # rounded as a recording would, before anything else
        assert torch.equal(reader(2, finer), reader(2, finer.half().float()))
    with pytest.raises(InputError, match="decode="):
        Reader(bank, [member])
    with pytest.raises(InputError, match="mixed"):
        Reader(bank, [member, SimpleNamespace(path="y", representation="latent", about={})])


def test_exports_are_lazy():
    import subprocess
    import sys

    code = (
        "import sys, lvd; assert lvd.InputError and 'torch' not in sys.modules; "
        "assert lvd.Guard and 'torch' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(lvd.InputError):
        Guard("nowhere")
    assert set(lvd.__all__) >= {
        "Guard",
        "GuardResult",
        "InputError",
        "UnsafeVideoError",
        "predicted_x0",
        "watch_steps",
    }
    with pytest.raises(AttributeError, match="nothing"):
        lvd.nothing


def test_detectors_stay_in_memory_if_they_are_small(world):
    guard = Guard(world.grid, 0.6, 3, "cpu")
    assert sorted(guard.bank._loaded) == [0, 1, 2]
    bank = load_bank(world.grid)
    bank.preload(range(3), limit=1000)
    assert sorted(bank._loaded) == [2]
