"""The guard around a pipeline: what is stopped, what passes, and what is refused."""

import copy
import gc
import threading
import warnings
import weakref
from types import SimpleNamespace

import diffusers
import pytest
import torch

import lvd
from benchmarks.common.tiny_pipelines import build
from lvd import Guard, GuardResult, UnsafeVideoError
from lvd.errors import InputError
from lvd.guard.session import UNCHECKED
from lvd.rules.rule import SAFE, UNSAFE
from tests.worlds.guarded_recordings import SHAPE, STEPS, rigged, run


def test_a_pipeline_is_stopped_and_another_passes(world, tiny):
    """With the trained detectors: a prompt of the unsafe side of the world and one of the other."""
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

    watch = guard.watch(tiny.pipe)  # decoded, it is black, whatever zeros look like
    pictures = run(tiny.pipe, tiny, watch, (1, -1), output_type="pt")
    assert not pictures[0].any() and pictures[1].any()


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


def test_steps_that_no_detector_knows_or_another_size_are_refused_before_they_cost(world, tiny):
    guard, ran = Guard(world.shared, 0.6, 3, "cpu"), []
    own = tiny.pipe.scheduler
    handle = tiny.pipe.unet.register_forward_pre_hook(lambda *_: ran.append(1))
    try:
        tiny.pipe.scheduler = diffusers.DDIMScheduler.from_config(
            own.config, timestep_spacing="trailing"
        )
        with (
            pytest.raises(
                InputError, match="shared.pth: step 0 of this sampling has noise level -10"
            ),
            guard.watch(tiny.pipe),
        ):
            tiny.pipe(**tiny.inputs([1], steps=STEPS))
        tiny.pipe.scheduler = own
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
        tiny.pipe.scheduler = own


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


def test_a_pipeline_that_begins_in_the_middle_is_judged_by_the_detectors_of_those_steps(
    world, tiny
):
    """As video to video does: its first step is as noisy as the trained step 2."""

    class OwnPipeline:
        scheduler = tiny.pipe.scheduler

        def __call__(self, first, stop=STEPS):
            self.scheduler.set_timesteps(STEPS)
            x = torch.zeros(1, *SHAPE)
            for timestep in self.scheduler.timesteps[first:stop]:
                x = self.scheduler.step(x, timestep, x).prev_sample
            return x

    asked = []
    guard, _ = rigged(world, lambda step, n: asked.append(step) or [[0.0, 0.0]] * n)
    pipe = OwnPipeline()
    with guard.watch(pipe, layout="BCFHW") as watch:
        pipe(0)
    assert asked == [0, 1, 2] and watch.results[0].steps_total == STEPS
    asked.clear()
    with guard.watch(pipe, layout="BCFHW") as watch:
        pipe(2)
    (result,) = watch.results
    assert asked == [2, 3] and (result.verdict, result.steps_total) == (SAFE, STEPS - 2)
    assert result.detectors[0].startswith("1/2 ")
    with (
        pytest.raises(InputError, match="2 of 3 denoising steps"),
        guard.watch(pipe, layout="BCFHW"),
    ):
        pipe(2, STEPS - 1)


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


def test_copies_made_inside_can_be_watched_afterwards(world, tiny):
    """Of the pipeline, shallow and deep, in the block and in the call; nothing of the watch is left
    on them."""
    guard, copies = Guard(world.shared, 0.6, 3, "cpu"), []

    def copy_it(pipe, step, timestep, kwargs):
        copies.extend([copy.copy(pipe), copy.deepcopy(pipe)] if step == 1 else [])
        return {}

    with guard.watch(tiny.pipe):
        copies.append(copy.deepcopy(tiny.pipe))
        given = tiny.inputs([-1], (50,), first=100, steps=STEPS, callback_on_step_end=copy_it)
        plain = tiny.pipe(**given).frames
    for twin in copies:
        assert type(twin) is type(tiny.pipe) and "prepare_latents" not in vars(twin)
        watch = guard.watch(twin)
        assert torch.equal(run(twin, tiny, watch, (-1,), (50,)), plain)
        assert [r.verdict for r in watch.results] == [SAFE]
        with pytest.raises(UnsafeVideoError):
            run(twin, tiny, guard.watch(twin), (1,), (50,))


def test_others_are_left_alone(world, tiny):
    """Another model of the same class in another thread; another class in the block."""
    other, upscaler = build("AnimateDiffPipeline", seed=1), build("LattePipeline")
    alone = [pipe.pipe(**pipe.inputs([1], steps=2)).frames for pipe in (other, upscaler)]
    found = []

    def call(pipe):
        found.append(pipe.pipe(**pipe.inputs([1], steps=2)).frames)

    with Guard(world.shared, 0.6, 3, "cpu").watch(tiny.pipe):
        with pytest.raises(InputError, match="AnimateDiffPipeline: called while"):
            call(other)
        thread = threading.Thread(target=call, args=[other])
        thread.start()
        thread.join()
        call(upscaler)
        tiny.pipe(**tiny.inputs([-1], (50,), first=100, steps=STEPS))
    assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


def test_a_modular_pipeline_of_the_same_model_is_no_way_around(world, tiny):
    class Modular(diffusers.ModularPipeline):
        def __init__(self, unet):
            self.unet = unet

        def __call__(self):
            return "made"

    other = Modular(tiny.pipe.unet)
    with Guard(world.shared, 0.6, 3, "cpu").watch(tiny.pipe):
        with pytest.raises(InputError, match="Modular: called while"):
            other()
        assert Modular(None)() == "made"
        tiny.pipe(**tiny.inputs([-1], (50,), first=100, steps=STEPS))
    assert other() == "made"


def test_a_scheduler_copied_inside_keeps_no_watch_alive(world, tiny):
    """Nor its pipeline and detectors, however long the copy lives."""
    watch = Guard(world.shared, 0.6, 3, "cpu").watch(tiny.pipe)
    with watch:
        kept = copy.deepcopy(tiny.pipe.scheduler)
        tiny.pipe(**tiny.inputs([-1], (50,), first=100, steps=STEPS))
    of_watch = weakref.ref(watch)
    del watch
    gc.collect()
    assert of_watch() is None and kept.config == tiny.pipe.scheduler.config
