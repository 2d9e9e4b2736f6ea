"""`guard.protect(pipe)`: every call is guarded, several at once, and nothing else changes."""

import asyncio
import copy
import gc
import inspect
from concurrent.futures import ThreadPoolExecutor

import diffusers
import pytest
import torch

from lvd import Guard, UnsafeVideoError
from lvd.errors import InputError
from lvd.rules.rule import SAFE, UNSAFE
from lvd.x0 import calls
from tests.worlds.guarded_recordings import SHAPE, STEPS, rigged
from tests.worlds.protected_calls import at_once, call, meeting

AT_ONCE = 8


@pytest.fixture(scope="module")
def trained(world):
    return Guard(world.shared, 0.6, 3, "cpu")


@pytest.fixture
def passing(world):
    """A guard whose detectors find nothing unsafe."""
    return rigged(world, lambda step, n: [[0.0, 0.0]] * n)[0]


@pytest.fixture
def pipe(tiny):
    """A pipeline object of its own: the parts of `tiny`, another scheduler."""
    pipe = copy.copy(tiny.pipe)
    pipe.scheduler = copy.deepcopy(tiny.pipe.scheduler)
    return pipe


def assert_nothing_left():
    assert calls._active == () and calls._replaced == {}


# ---- one call


def test_it_is_a_pipeline_of_the_same_class_and_signature(trained, tiny, pipe):
    safe = trained.protect(pipe)
    assert isinstance(safe, type(pipe)) and type(safe).__name__ == type(pipe).__name__
    assert inspect.signature(safe.__call__) == inspect.signature(pipe.__call__)
    assert inspect.signature(type(safe).__call__) == inspect.signature(type(pipe).__call__)
    assert not hasattr(safe.__call__, "__wrapped__")  # the call without a guard
    assert safe.components == pipe.components
    plain = pipe(**tiny.inputs([-1], (50,), first=100, steps=STEPS)).frames
    output = safe(**tiny.inputs([-1], (50,), first=100, steps=STEPS))
    assert torch.equal(output.frames, plain)
    assert [r.verdict for r in output.lvd] == [SAFE]
    assert list(output) == ["frames"] and len(output.to_tuple()) == 1  # the rest is as ever
    assert call(safe, tiny, 1) == (None, [UNSAFE])
    assert_nothing_left()


def test_of_a_batch_the_unsafe_video_is_black(trained, tiny, pipe):
    told = []
    safe = trained.protect(pipe, on_result=told.append)
    inputs = tiny.inputs([1, -1], (3, 4), first=100, steps=STEPS, output_type="pt")
    plain = pipe(**inputs).frames
    inputs = tiny.inputs([1, -1], (3, 4), first=100, steps=STEPS, output_type="pt")
    output = safe(**inputs, return_dict=False)
    assert isinstance(output, tuple) and [r.verdict for r in output.lvd] == [UNSAFE, SAFE]
    (frames,) = output
    assert not frames[0].any() and torch.equal(frames[1], plain[1])
    with pytest.raises(UnsafeVideoError):
        safe(**tiny.inputs([1], (3,), first=100, steps=STEPS))
    assert [[r.verdict for r in results] for results in told] == [[UNSAFE, SAFE], [UNSAFE]]


def test_interrupted_it_returns_black_videos(trained, tiny, pipe):
    safe = trained.protect(pipe, on_unsafe="interrupt")
    frames, verdicts = call(safe, tiny, 1)
    assert verdicts == [UNSAFE] and not frames.any()


def test_what_a_call_sets_is_its_own(trained, tiny, pipe):
    safe, before = trained.protect(pipe), dict(vars(pipe))
    seen = []

    def look(twin, step, timestep, kwargs):
        seen.append(twin)
        assert twin.scheduler is not pipe.scheduler and twin.unet is not pipe.unet
        assert twin.num_timesteps == STEPS
        return {}

    safe.scheduler.set_timesteps(3)  # what a former call has left
    call(safe, tiny, callback_on_step_end=look)
    assert vars(pipe) == before and len(pipe.scheduler.timesteps) == 3
    assert call(seen[0], tiny, 1) == (None, [UNSAFE])  # one that a callback kept is protected


def test_what_is_set_on_it_is_set_on_the_pipeline(trained, tiny, pipe, tmp_path):
    safe = trained.protect(pipe)
    assert safe.to(torch.float32) is safe
    new = diffusers.DDIMScheduler.from_config(safe.scheduler.config)
    safe.scheduler = new
    assert pipe.scheduler is new
    pipe.set_progress_bar_config(disable=True, desc="mine")
    assert safe._progress_bar_config["desc"] == "mine"
    assert call(safe, tiny) == (pytest.approx(call(safe, tiny)[0]), [SAFE])
    safe.scheduler = diffusers.EulerDiscreteScheduler.from_config(new.config)
    refused = pytest.raises(InputError, match="of this sampling has noise level")
    with counted(pipe.unet) as ran, refused:
        call(safe, tiny)
    safe.scheduler = diffusers.IPNDMScheduler()
    with counted(pipe.unet) as ran, pytest.raises(InputError, match="IPNDMScheduler"):
        call(safe, tiny)
    assert ran == []
    safe.scheduler = new
    safe.save_pretrained(tmp_path)
    assert '"_class_name": "AnimateDiffPipeline"' in (tmp_path / "model_index.json").read_text()


class counted:
    """A list to which each run of a module adds an entry."""

    def __init__(self, module):
        self.module = module

    def __enter__(self):
        ran = []
        self.handle = self.module.register_forward_pre_hook(lambda *_: ran.append(1))
        return ran

    def __exit__(self, *_):
        self.handle.remove()


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "its class, of its parts": lambda safe: type(safe)(**safe.components),
    "from_pipe": lambda safe: type(safe).from_pipe(safe),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_protected(trained, tiny, pipe, how):
    safe = COPIES[how](trained.protect(pipe))
    safe.set_progress_bar_config(disable=True)
    assert call(safe, tiny, 1) == (None, [UNSAFE])
    assert call(safe, tiny)[1] == [SAFE]


# ---- several calls


def test_many_threads(trained, tiny, pipe):
    """Eight threads, three calls each, unsafe and normal ones: all as if they were alone."""
    safe = trained.protect(pipe)
    jobs = [(kind, seed) for seed in range(AT_ONCE * 3 // 2) for kind in (1, -1)]
    alone = [call(safe, tiny, *job) for job in jobs]
    assert [verdicts for _, verdicts in alone] == [[UNSAFE], [SAFE]] * (len(jobs) // 2)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = list(threads.map(lambda job: call(safe, tiny, *job), jobs))
    for (frames, verdicts), (frames_alone, verdicts_alone) in zip(found, alone, strict=True):
        assert verdicts == verdicts_alone
        assert frames is None if frames_alone is None else torch.equal(frames, frames_alone)
    assert_nothing_left()


def test_calls_overlap(trained, tiny, pipe):
    """None waits for another: each goes on when all have taken a step."""
    safe, together = trained.protect(pipe), meeting(4)
    found = at_once(lambda kind: call(safe, tiny, kind, **together), [(1,), (-1,), (-1,), (1,)])
    assert [verdicts for _, verdicts in found] == [[UNSAFE], [SAFE], [SAFE], [UNSAFE]]


def test_detectors_of_a_folder_are_shared_by_threads(world, tiny, pipe):
    """Of which the bank keeps those of one step at a time."""
    guard = Guard(world.grid, 0.6, 3, "cpu")
    guard.bank.keep = 1
    safe = guard.protect(pipe)
    jobs = [(kind, seed) for seed in range(2) for kind in (1, -1)]
    alone = [call(safe, tiny, *job) for job in jobs]
    found = at_once(lambda *job: call(safe, tiny, *job), jobs)
    for (frames, verdicts), (frames_alone, verdicts_alone) in zip(found, alone, strict=True):
        assert verdicts == verdicts_alone
        assert frames is None if frames_alone is None else torch.equal(frames, frames_alone)


def test_two_pipelines_of_one_model(trained, passing, tiny, pipe):
    """Each by its own guard, both at once."""
    other = type(pipe)(**pipe.components)
    other.set_progress_bar_config(disable=True)
    one, two, together = trained.protect(pipe), passing.protect(other), meeting(2)
    found = at_once(lambda safe: call(safe, tiny, 1, **together), [(one,), (two,)])
    assert [verdicts for _, verdicts in found] == [[UNSAFE], [SAFE]]


def test_the_pipeline_itself_is_refused_while_a_protected_call_runs(passing, tiny, pipe):
    """In any thread; before and after it is its owner's, and unguarded."""
    safe, refused = passing.protect(pipe), []

    def call_it(*_):
        with pytest.raises(InputError, match="called while") as error:
            pipe(**tiny.inputs([1], steps=2))
        refused.append(error)
        return {}

    def in_a_thread(*_):
        at_once(call_it, [()])
        return {}

    assert call(safe, tiny, callback_on_step_end=call_it)[1] == [SAFE]
    assert call(safe, tiny, callback_on_step_end=in_a_thread)[1] == [SAFE]
    assert len(refused) == 2 * STEPS
    assert len(pipe(**tiny.inputs([1], steps=2)).frames) == 1


def test_a_callback_may_call_it_again(trained, tiny, pipe):
    safe, inner = trained.protect(pipe), []

    def again(twin, step, timestep, kwargs):
        if step == 1:
            inner.append(call(safe, tiny, 1))
        return {}

    assert call(safe, tiny, callback_on_step_end=again)[1] == [SAFE]
    assert inner == [(None, [UNSAFE])]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_one_call_leaves_the_others_alone(passing, tiny, pipe, error):
    safe, together = passing.protect(pipe), meeting(2)["callback_on_step_end"]

    def fail(*given):
        together(*given)
        raise error("mine")

    def call_with(callback):
        try:
            return call(safe, tiny, callback_on_step_end=callback)[1]
        except BaseException as found:
            return type(found)

    assert at_once(call_with, [(fail,), (together,)]) == [error, [SAFE]]
    assert call(safe, tiny)[1] == [SAFE]
    assert_nothing_left()


def test_in_asyncio(trained, tiny, pipe):
    safe = trained.protect(pipe)

    async def serve():
        wanted = [asyncio.to_thread(call, safe, tiny, kind) for kind in (1, -1, 1)]
        return await asyncio.gather(*wanted)

    found = asyncio.run(serve())
    assert [verdicts for _, verdicts in found] == [[UNSAFE], [SAFE], [UNSAFE]]


class Quick:
    """A pipeline whose model takes no time."""

    def __init__(self, scheduler):
        self.scheduler = scheduler

    def __call__(self):
        self.scheduler.set_timesteps(STEPS)
        x = torch.zeros(1, *SHAPE)
        for timestep in self.scheduler.timesteps:
            x = self.scheduler.step(x, timestep, x).prev_sample
        return x


def test_nothing_grows_from_call_to_call(passing, pipe):
    safe, counts = passing.protect(Quick(pipe.scheduler), layout="BCFHW"), []
    for many in (10, 200):
        for _ in range(many):
            assert [result.verdict for result in safe().lvd] == [SAFE]
        gc.collect()
        counts.append((len(gc.get_objects()), len(type(pipe.scheduler).__subclasses__())))
    (objects, schedulers), (objects_then, schedulers_then) = counts
    assert objects_then - objects < 100 and schedulers_then == schedulers
    assert_nothing_left()
