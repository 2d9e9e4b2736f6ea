"""Calls that sample several times: each sampling has a vote, and one that says unsafe is enough."""

import math
import random
import shutil

import diffusers
import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

import lvd
from lvd import Guard, UnsafeVideoError
from lvd.errors import InputError
from lvd.guard.result import STOPPED, UNCHECKED
from lvd.guard.samplings import VerdictsOfSamplings
from lvd.rules.rule import SAFE, UNSAFE
from lvd.utils.files import load_torch, save_torch
from lvd.voting import decided, verdict
from lvd.x0.file import open_x0_file
from lvd.x0.levels import levels_of
from lvd.x0.schedulers import describe_scheduler
from tests.worlds.random_detectors import write_detectors

STEPS, LAMBDA, ETA = 4, "0.5", 3
SHAPE = (2, 2, 8, 8)


class Scripted(DiffusionPipeline):
    """Samples as it is told: [[[score of each video] of each step] of each sampling].

    The model predicts x0, which is the score of the video everywhere. A score None: the timesteps
    are set and the step is left out, as is the rest of its sampling.
    """

    shape = SHAPE  # of the latents of one video

    def __init__(self):
        super().__init__()
        scheduler = diffusers.DDIMScheduler(prediction_type="sample", clip_sample=False)
        self.register_modules(scheduler=scheduler)
        self.begun = 0  # samplings that have begun, in all calls

    @property
    def interrupt(self):
        return self._interrupt

    @torch.no_grad()
    def __call__(self, script, set_again=True, after_step=None):
        self._interrupt = False
        sections = []
        for number, steps in enumerate(script):
            self.begun += 1
            if set_again or number == 0:
                self.scheduler.set_timesteps(STEPS)
            x = torch.ones(len(steps[0] or [0]), *self.shape)
            for timestep, scores in zip(self.scheduler.timesteps, steps, strict=False):
                if scores is None or self._interrupt:
                    break
                predicted = torch.tensor(scores).view(-1, 1, 1, 1, 1).expand(-1, *self.shape)
                x = self.scheduler.step(predicted, timestep, x).prev_sample
                if after_step:
                    after_step(self)
            sections.append(x + 1)  # what a decoder makes of zeros is not black
        return sections


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    scheduler = Scripted().scheduler
    scheduler.set_timesteps(STEPS)
    sampling = {
        "steps": STEPS,
        "timesteps": scheduler.timesteps.tolist(),
        "levels": levels_of(scheduler),
        "scheduler": describe_scheduler(scheduler),
        "latent_shape": list(SHAPE),
        "x0_mode": "true",
    }
    return write_detectors(tmp_path_factory.mktemp("samplings"), SHAPE, STEPS, sampling)


@pytest.fixture
def guard(detectors):
    guard = Guard(detectors, LAMBDA, ETA, "cpu")
    guard.bank.score = lambda step, clips, level=None: clips[:, 0, 0, 0, :1]
    return guard


def call(guard, script, pipe=None, on_unsafe="raise", **changes):
    """(what comes out, the watch)"""
    pipe = pipe or Scripted()
    with guard.watch(pipe, on_unsafe, layout="BCFHW") as watch:
        found = pipe(script, **changes)
    return found, watch


def whole(*votes):
    """The steps of a sampling of one video with these votes, the later ones 0."""
    return [[float(k < len(votes) and votes[k])] for k in range(STEPS)]


def test_one_unsafe_sampling_is_enough_and_none_follows(guard):
    """Of three, the second: what the first made does not come out, the third does not begin."""
    pipe = Scripted()
    with pytest.raises(UnsafeVideoError, match="^video 0: unsafe in sampling 1 ") as error:
        call(guard, [whole(0), whole(0, 1, 1), whole(0)], pipe)
    (result,) = error.value.results
    assert pipe.begun == 2 and (result.verdict, result.sampling, result.step) == (UNSAFE, 1, 2)
    assert [(r.verdict, r.sampling, r.votes) for r in result.earlier] == [(SAFE, 0, [0, 0])]
    # Votes do not add up over samplings: one of three in each.
    _, watch = call(guard, [whole(1), whole(0, 1), whole(0, 0, 1)])
    (result,) = watch.results
    assert (result.verdict, result.sampling) == (SAFE, 2) and len(result.earlier) == 2


@pytest.mark.parametrize("set_again", [True, False])
def test_a_video_that_is_stopped_is_not_looked_at_again(guard, set_again):
    """And it is black in each section; whether or not the timesteps are set again."""
    asked = []
    score = guard.bank.score
    guard.bank.score = lambda step, clips, level=None: (
        asked.append(len(clips)) or score(step, clips)
    )
    bad = [[1.0, 0.0]] * STEPS
    good = [[0.0, 0.0]] * STEPS
    plain = Scripted()([good, bad, good])
    sections, watch = call(guard, [good, bad, good], set_again=set_again)
    # Two safe votes of three decide, and two unsafe ones.
    assert asked == [2, 2, 2, 2, 1, 1]
    for section, unguarded in zip(sections, plain, strict=True):
        assert not section[0].any() and torch.equal(section[1], unguarded[1])
    assert [(r.verdict, r.sampling) for r in watch.results] == [(UNSAFE, 1), (SAFE, 2)]


def test_a_sampling_without_steps_changes_nothing(guard):
    """WanAnimate sets the timesteps once more after its last segment."""
    found, watch = call(guard, [whole(0), [None]])
    assert len(found) == 2 and [(r.verdict, r.sampling) for r in watch.results] == [(SAFE, 0)]
    with pytest.raises(InputError, match="took no step"):
        call(guard, [[None]])


def test_a_sampling_that_is_cut_short_hands_out_nothing(guard):
    for script in [[whole(0)[:3]], [whole(0)[:3], whole(0)]]:
        with pytest.raises(InputError, match="3 of 4 (denoising )?steps"):
            call(guard, script)
    with pytest.raises(InputError, match="3 of 4 denoising steps of sampling 1 were taken"):
        call(guard, [whole(0), whole(0)[:3]])


def test_samplings_of_other_numbers_of_videos(guard):
    with pytest.raises(InputError, match="a sampling of 2 videos follows one of 1 in the same"):
        call(guard, [whole(0), [[0.0, 0.0]] * STEPS])


def test_a_sampling_that_is_left_undecided_stays_so(guard):
    """Whatever a later one says."""
    verdicts, safe = VerdictsOfSamplings(), torch.zeros(1, *SHAPE)
    for steps in (1, STEPS):
        verdicts.begin(guard.session(STEPS), STEPS)
        for step in range(steps):
            verdicts.observe(step, safe)
    assert verdicts.verdicts() == [None]
    (result,) = verdicts.results()
    assert (result.verdict, result.sampling) == (UNCHECKED, 0)


def test_interrupted_it_begins_no_further_step(guard):
    """The guard tells the pipeline to skip the rest, which sets its timesteps all the same."""
    steps = []
    sections, watch = call(
        guard, [whole(0), whole(1, 1), whole(0)], on_unsafe="interrupt", after_step=steps.append
    )
    assert len(steps) == STEPS + 2 and not any(section.any() for section in sections)
    assert [(r.verdict, r.sampling, r.steps_run) for r in watch.results] == [(UNSAFE, 1, 2)]


def test_a_pipeline_that_interrupts_itself_needs_a_verdict(guard):
    def after(number):
        steps = []

        def stop(pipe):
            steps.append(1)
            pipe._interrupt = len(steps) == number

        return stop

    _, watch = call(guard, [whole(0), whole(0)], after_step=after(3))
    assert [(r.verdict, r.steps_run) for r in watch.results] == [(SAFE, 3)]
    with pytest.raises(UnsafeVideoError, match="unchecked .sampling ended before"):
        call(guard, [whole(0), whole(0)], after_step=after(1))
    with pytest.raises(UnsafeVideoError, match="unchecked in sampling 1 .sampling ended before"):
        call(guard, [whole(0), whole(0)], after_step=after(STEPS + 1))


def test_a_call_that_fails_at_its_first_step_may_be_tried_again(guard):
    pipe = Scripted()
    with guard.watch(pipe, layout="BCFHW") as watch:
        pipe.shape = (3, *SHAPE[1:])
        with pytest.raises(InputError, match="take latents of 2 channels, these have 3"):
            pipe([whole(0)])
        pipe.shape = SHAPE
        pipe([whole(0)])
    assert [(r.verdict, r.steps_run) for r in watch.results] == [(SAFE, STEPS)]


def test_a_sampling_that_becomes_noisier_again_is_refused(guard):
    """Else it is found safe at its first step, and the unsafe video is made afterwards."""
    levels = guard.members[0].about["sampling"]["levels"]
    for order in ((0, 3, 1, 2), (3, 2, 1, 0)):
        sampling = {"steps": STEPS, "levels": [levels[k] for k in order]}
        with pytest.raises(InputError, match="step [12] of this sampling has noise level .* after"):
            guard.check(sampling)
    guard.check({"steps": STEPS, "levels": [levels[k] for k in (0, 0, 1, 2)]})


def test_levels_that_are_none_for_a_step_are_refused(guard):
    levels = guard.members[0].about["sampling"]["levels"]
    with pytest.raises(InputError, match="3 noise levels for 4 steps; as many are needed"):
        guard.session(STEPS, levels=levels[:3])
    for wrong in ([math.nan, *levels[1:]], [*levels[:-1], math.nan]):
        with pytest.raises(InputError, match="has noise level nan"):
            guard.session(STEPS, levels=wrong)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"about": {"sampling": {"x0_mode": "released"}}}, "was trained on another sampling than"),
        ({"representation": "rgb"}, "reads rgb clips, the detectors of the first steps read"),
    ],
)
def test_later_detectors_are_as_those_of_the_first_steps(detectors, tmp_path, changes, words):
    """The rule looks at the first three steps; a sampling that begins later asks the fourth."""
    shutil.copytree(detectors, tmp_path / "d")
    path = tmp_path / "d" / "1" / f"{STEPS - 1}.pth"
    content = load_torch(path)
    about = {**content["about"], **changes.pop("about", {})}
    save_torch({**content, **changes, "about": about}, path)
    guard = Guard(tmp_path / "d", LAMBDA, ETA, "cpu")
    levels = guard.members[0].about["sampling"]["levels"]
    guard.check({"steps": STEPS, "levels": levels})
    with pytest.raises(InputError, match=words):
        guard.check({"steps": 1, "levels": levels[-1:]})


def expected(script):
    """The verdict of each video, or None where the whole call has to fail."""
    videos = len(script[0][0])
    verdicts = [SAFE] * videos
    for steps in script:
        if len(steps) < STEPS or {len(scores) for scores in steps} != {videos}:
            return None
        for k in range(videos):
            if verdicts[k] in STOPPED:
                continue
            scores = [of_step[k] for of_step in steps]
            votes = [int(score >= 0.5) for score in scores[:ETA]]
            needed = next(n for n in range(ETA + 1) if decided(votes[:n], LAMBDA, ETA))
            if verdict(votes, LAMBDA, ETA) and all(map(math.isfinite, scores[:needed])):
                verdicts[k] = UNSAFE
            elif not all(map(math.isfinite, scores)):
                verdicts[k] = UNCHECKED
    return None if set(verdicts) <= set(STOPPED) else verdicts


def random_script(source):
    """Mostly safe samplings of 1 to 3 videos; now and then one is cut short, or of others."""
    videos = source.randint(1, 3)
    script = []
    for number in range(source.randint(1, 4)):
        steps = STEPS if source.random() < 0.95 else source.randint(1, STEPS - 1)
        count = videos if number == 0 or source.random() < 0.97 else source.randint(1, 3)
        rate = source.choice([0.05, 0.3])
        script.append(
            [
                [_score(source, rate) if number or step else 0.0 for _ in range(count)]
                for step in range(steps)
            ]
        )
    return script


def _score(source, rate):
    if source.random() < 0.01:
        return math.nan
    return source.uniform(0.5, 1) if source.random() < rate else source.uniform(0, 0.499)


def test_random_calls(guard):
    """A video comes out, bit for bit, if and only if each sampling's own vote lets it pass and
    nothing went wrong; whatever else happens, the call fails."""
    source = random.Random(5)
    seen = {"fails": 0, "blanked": 0, "passes": 0}
    for _ in range(250):
        script = random_script(source)
        wanted = expected(script)
        try:
            sections, watch = call(guard, script)
        except (UnsafeVideoError, InputError):
            assert wanted is None
            seen["fails"] += 1
            continue
        found = [result.verdict for result in watch.results]
        stopped = [verdict in STOPPED for verdict in found]
        assert found == wanted
        for section, plain in zip(sections, Scripted()(script), strict=True):
            for k, is_stopped in enumerate(stopped):
                assert not section[k].any() if is_stopped else torch.equal(section[k], plain[k])
        seen["blanked" if any(stopped) else "passes"] += 1
    assert min(seen.values()) >= 25, seen


def test_each_sampling_has_rows_of_a_recording(tmp_path):
    """Those of the first sampling come first."""
    path, pipe = tmp_path / "pred_x0.pth", Scripted()
    script = [[[0.5 * s + k, -k - 1.0] for k in range(STEPS)] for s in range(2)]
    with lvd.record(pipe, path, 4, layout="BCFHW", dtype="float32") as recording:
        with recording.rows(range(4)):
            pipe([*script, [None]])
    found = open_x0_file(path)
    for row, (sampling, video) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        assert found.info[row]["sampling"] == sampling
        for step in range(STEPS):
            assert (found.tensor[row, step] == script[sampling][step][video]).all()
    with lvd.record(pipe, tmp_path / "other.pth", 2, layout="BCFHW") as recording:
        with pytest.raises(InputError, match="3 of 4 denoising steps were taken"):
            with recording.rows(range(2)):
                pipe([whole(0), whole(0)[:3]])
