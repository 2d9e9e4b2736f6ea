"""Whatever is done in the block of a watch: nothing leaves it that has no verdict `safe`.

Each situation samples a batch of two videos, of which the first is unsafe.
"""

import contextlib
import copy
import pickle
import threading
from types import SimpleNamespace

import diffusers
import pytest
import torch

import lvd
from benchmarks.common import tiny_pipelines
from lvd import UnsafeVideoError
from lvd.errors import InputError
from lvd.rules.rule import SAFE, UNSAFE
from tests.worlds.guarded_recordings import STEPS, rigged

SITUATIONS = {}  # name → (function, error that ends it or None, what is handed out)
BLANKED, NOTHING = "the first video black, the second as ever", "nothing"


def situation(handed, error=None):
    """Register a situation: a function of a Place that hands out videos or is refused."""

    def register(function):
        SITUATIONS[function.__name__] = function, error, handed
        return function

    return register


class Place(SimpleNamespace):
    """pipe, its guard and watch; what a situation hands out goes to `handed`."""

    def call(self, pipe=None, **changes):
        inputs = self.tiny.inputs([1, -1], (3, 4), first=100, steps=STEPS, **changes)
        self.handed.append((pipe or self.pipe)(**inputs).frames)

    def at_step(self, number, action):
        """A callback that acts at the end of one step."""

        def callback(pipe, step, timestep, kwargs):
            return (action(kwargs) or {}) if step == number else {}

        return dict(callback_on_step_end=callback)

    def new_scheduler(self, *_):
        """A scheduler of the same settings takes the place of the pipeline's."""
        self.pipe.scheduler = diffusers.DDIMScheduler.from_config(self.pipe.scheduler.config)
        self.pipe.scheduler.set_timesteps(STEPS)

    def twin(self):
        twin = copy.copy(self.pipe)
        twin.scheduler = copy.deepcopy(self.pipe.scheduler)
        return twin

    def in_thread(self, function):
        """Run a function in a thread, and raise here what it raised there."""
        errors = []

        def run():
            try:
                function()
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]


# ---- the call itself


@situation(BLANKED)
def one_call(place):
    with place.watch:
        place.call()


@situation(BLANKED)
def in_a_thread(place):
    with place.watch:
        place.in_thread(place.call)


@situation(BLANKED)
def in_a_generator(place):
    def videos():
        with place.watch:
            place.call()
            yield

    assert len(list(videos())) == 1


@situation(BLANKED)
def of_a_class_that_calls_its_base(place):
    class Own(type(place.pipe)):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    place.pipe.__class__ = Own
    with place.watch:
        place.call()


@situation(BLANKED, InputError)
def called_twice(place):
    with place.watch:
        place.call()
        place.call()


@situation(BLANKED, InputError)
def never_left(place):
    place.watch.__enter__()
    place.call()
    place.call()


@situation(BLANKED)
def again_after_arguments_that_were_wrong(place):
    with place.watch:
        with pytest.raises(ValueError):
            place.call(height=7)
        place.call()


@situation(NOTHING, InputError)
def bound_before(place):
    call = place.pipe.__call__
    with place.watch:
        place.call(call)


@situation(NOTHING, InputError)
def by_hand(place):
    with place.watch:
        place.pipe.scheduler.set_timesteps(STEPS)
        x = torch.randn(2, 4, 3, 4, 8)
        for timestep in place.pipe.scheduler.timesteps:
            x = place.pipe.scheduler.step(x, timestep, x).prev_sample
        place.handed.append(x)


@situation(NOTHING, InputError)
def called_again_by_a_callback(place):
    with place.watch:
        place.call(**place.at_step(2, lambda kwargs: place.call()))


@situation(BLANKED)
def called_again_by_a_callback_that_swallows(place):
    def again(kwargs):
        place.new_scheduler()
        with pytest.raises(InputError, match="called a second time"):
            place.call()
        place.pipe.scheduler = mine

    mine = place.pipe.scheduler
    with place.watch:
        place.call(**place.at_step(2, again))


# ---- other objects


@situation(NOTHING, InputError)
def a_twin_made_before(place):
    twin = place.twin()
    with place.watch:
        place.call(twin)


@situation(NOTHING, InputError)
def a_twin_made_before_in_a_thread(place):
    twin = place.twin()
    with place.watch:
        place.in_thread(lambda: place.call(twin))


@situation(NOTHING, InputError)
def a_deep_copy_made_before(place):
    twin = copy.deepcopy(place.pipe)
    with place.watch:
        place.call(twin)


@situation(NOTHING, InputError)
def a_copy_made_inside(place):
    with place.watch:
        place.call(copy.copy(place.pipe))


@situation(NOTHING, InputError)
def a_deep_copy_made_inside(place):
    with place.watch:
        place.call(copy.deepcopy(place.pipe))


@situation(NOTHING, InputError)
def a_deep_copy_made_inside_in_a_thread(place):
    with place.watch:
        twin = copy.deepcopy(place.pipe)
        place.in_thread(lambda: place.call(twin))


def _other_kind(place):
    from diffusers import PIAPipeline

    return PIAPipeline(**place.pipe.components)


@situation(NOTHING, InputError)
def another_pipeline_of_its_parts(place):
    other = _other_kind(place)
    with place.watch:
        other("a wave")


@situation(NOTHING, InputError)
def another_pipeline_of_its_model(place):
    other = _other_kind(place)
    other.scheduler = diffusers.DDIMScheduler()
    with place.watch:
        other("a wave")


class Spread(torch.nn.Module):
    """A model in a module of its own, as torch.nn.DataParallel and others make it."""

    def __init__(self, model):
        super().__init__()
        self.module, self.config = model, model.config

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


@situation(NOTHING, InputError)
def a_twin_whose_model_is_wrapped_in_a_thread(place):
    twin = place.twin()
    twin.unet = Spread(place.pipe.unet)
    with place.watch:
        place.in_thread(lambda: place.call(twin))


@situation(NOTHING, InputError)
def a_class_made_inside(place):
    with place.watch:

        class Own(diffusers.DiffusionPipeline):
            def __call__(self, **inputs):
                return twin(**inputs)

        twin, own = place.twin(), Own()
        own.unet = twin.unet
        place.call(own)


@situation(NOTHING, InputError)
def a_class_made_inside_with_a_scheduler_of_its_own(place):
    with place.watch:

        class Own(diffusers.DiffusionPipeline):
            def __call__(self, **inputs):
                return SimpleNamespace(frames=self.unet)

        own = Own()
        own.unet = place.pipe.unet
        place.call(own)


@situation(NOTHING, InputError)
def a_twin_that_is_recorded(place):
    twin = place.twin()
    with place.watch, lvd.record(twin, place.folder / "pred_x0.pth", 2) as recording:
        with recording.rows([0, 1]):
            place.call(twin)


@situation(BLANKED)
def watched_twice_in_two_blocks(place):
    twin = place.twin()
    with place.watch, place.guard.watch(twin) as watch:
        place.call(twin)
        assert watch.results[0].stopped
        place.handed.clear()
        place.call()


# ---- the scheduler


@situation(BLANKED)
def another_right_scheduler_before(place):
    with place.watch:
        place.new_scheduler()
        place.call()


@situation(BLANKED)
def a_copy_of_the_scheduler(place):
    with place.watch:
        place.pipe.scheduler = copy.deepcopy(place.pipe.scheduler)
        place.call()


@situation(BLANKED)
def a_pickle_of_the_scheduler(place):
    with place.watch:
        place.pipe.scheduler = pickle.loads(pickle.dumps(place.pipe.scheduler))
        assert type(place.pipe.scheduler) is diffusers.DDIMScheduler
        place.call()


@situation(BLANKED)
def the_class_of_the_scheduler_put_back(place):
    with place.watch:
        place.pipe.scheduler.__class__ = diffusers.DDIMScheduler
        place.call()


@situation(NOTHING, InputError)
def a_wrong_scheduler_before(place):
    with place.watch:
        config = place.pipe.scheduler.config
        place.pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
        place.call()


@situation(NOTHING, InputError)
def no_scheduler(place):
    with place.watch:
        place.pipe.scheduler = None
        place.call()


@situation(BLANKED, InputError)
def another_scheduler_between_two_calls(place):
    with place.watch:
        place.call()
        place.new_scheduler()
        place.call()


@situation(NOTHING, InputError)
def another_scheduler_in_the_middle(place):
    with place.watch:
        place.call(**place.at_step(2, place.new_scheduler))


@situation(NOTHING, InputError)
def another_scheduler_in_the_middle_and_back(place):
    mine = place.pipe.scheduler
    back = lambda kwargs: setattr(place.pipe, "scheduler", mine)  # noqa: E731
    change = {1: place.new_scheduler, 3: back}

    def callback(pipe, step, timestep, kwargs):
        change.get(step, lambda _: None)(kwargs)
        return {}

    with place.watch:
        place.call(callback_on_step_end=callback)


def _replace(place, name):
    scheduler = place.pipe.scheduler
    setattr(scheduler, name, getattr(diffusers.DDIMScheduler, name).__get__(scheduler))


@situation(NOTHING, InputError)
def its_step_replaced_before(place):
    with place.watch:
        _replace(place, "step")
        place.call()


@situation(NOTHING, InputError)
def its_step_replaced_in_the_middle(place):
    with place.watch:
        place.call(**place.at_step(1, lambda kwargs: _replace(place, "step")))


@situation(NOTHING, InputError)
def its_timesteps_replaced_before(place):
    with place.watch:
        _replace(place, "set_timesteps")
        place.call()


@situation(BLANKED, InputError)
def its_step_replaced_between_two_calls(place):
    with place.watch:
        place.call()
        _replace(place, "step")
        place.call()


# ---- callbacks and errors


@situation(NOTHING, UnsafeVideoError)
def interrupted_before_the_verdict(place):
    with place.watch:
        place.call(**place.at_step(0, lambda kwargs: setattr(place.pipe, "_interrupt", True)))


@situation(BLANKED)
def latents_of_the_first_step_brought_back(place):
    kept = []

    def callback(pipe, step, timestep, kwargs):
        kept.append(kwargs["latents"].clone())
        kept[-1][0] = torch.randn_like(kept[-1][0])
        return {"latents": torch.stack([kept[0][0], kwargs["latents"][1]])}

    with place.watch:
        place.call(callback_on_step_end=callback)


@situation(NOTHING, RuntimeError)
def a_callback_that_fails(place):
    with place.watch:
        place.call(**place.at_step(1, _fail))


@situation(NOTHING, UnsafeVideoError)
def a_callback_that_fails_swallowed_in_the_block(place):
    with place.watch, contextlib.suppress(RuntimeError):
        place.call(**place.at_step(1, _fail))


def _fail(kwargs):
    raise RuntimeError("mine")


@situation(NOTHING, UnsafeVideoError)
def a_pipeline_that_swallows(place):
    """It makes something of its own when a step is refused."""

    class Own(type(place.pipe)):
        def __call__(self, **inputs):
            try:
                return super().__call__(**inputs)
            except UnsafeVideoError:
                return SimpleNamespace(frames=torch.randn(2, 4, 3, 4, 8))

    place.pipe.__class__ = Own
    place.scores = lambda step, n: [[1.0, 0.0]] * n
    with place.watch:
        place.call()


@situation(NOTHING, InputError)
def left_while_a_thread_samples(place):
    """The block is over before the call is."""
    reached, over = threading.Event(), threading.Event()
    errors = []

    def wait(kwargs):
        reached.set()
        assert over.wait(10)

    def call():
        try:
            place.call(**place.at_step(2, wait))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    with pytest.raises(UnsafeVideoError), place.watch:
        thread.start()
        assert reached.wait(10)
    over.set()
    thread.join()
    raise errors[0]


# ---- blocks


@situation(BLANKED)
def a_second_watch_inside(place):
    with place.watch:
        with pytest.raises(InputError, match="one watch at a time"):
            place.guard.watch(place.pipe).__enter__()
        place.call()


@situation(BLANKED)
def a_second_watch_inside_of_another_scheduler(place):
    with place.watch:
        place.new_scheduler()
        with pytest.raises(InputError, match="one watch at a time"):
            place.guard.watch(place.pipe).__enter__()
        place.call()


@situation(BLANKED)
def entered_twice(place):
    with place.watch:
        with pytest.raises(InputError, match="in use already"), place.watch:
            pass
        place.call()


@pytest.fixture(scope="module")
def own():
    """A tiny pipeline of this file alone, for situations to work on."""
    return tiny_pipelines.build("AnimateDiffPipeline")


@pytest.fixture(scope="module")
def plain(own):
    """What it makes without a guard, the same before and after all situations."""
    given = dict(first=100, steps=STEPS)
    found = own.pipe(**own.inputs([1, -1], (3, 4), **given)).frames
    yield found
    assert torch.equal(own.pipe(**own.inputs([1, -1], (3, 4), **given)).frames, found)


@pytest.fixture
def place(world, own, plain, tmp_path):
    """Where a situation happens; afterwards the pipeline is as it was."""
    pipe, kind, scheduler = own.pipe, type(own.pipe), own.pipe.scheduler
    diffusers_call = kind.__call__
    place = Place(tiny=own, pipe=pipe, handed=[], folder=tmp_path)
    # The first video is unsafe after step 2, the second is safe after the last.
    place.scores = lambda step, n: [[float(k == 0 and n == 2 and step == 2), 0.0] for k in range(n)]
    place.guard, _ = rigged(world, lambda *asked: place.scores(*asked), lambda_="0.2", eta=STEPS)
    place.watch = place.guard.watch(pipe)
    yield place
    if place.watch._entered:
        place.watch.__exit__(RuntimeError, None, None)
    for name in ("step", "set_timesteps"):
        vars(scheduler).pop(name, None)
    assert type(scheduler) is diffusers.DDIMScheduler
    pipe.__class__, pipe.scheduler = kind, scheduler
    assert kind.__call__ is diffusers_call and "prepare_latents" not in vars(pipe)


@pytest.mark.parametrize("name", SITUATIONS)
def test_nothing_leaves_without_a_verdict(place, plain, name):
    function, error, handed = SITUATIONS[name]
    with pytest.raises(error) if error else contextlib.nullcontext():
        function(place)
    if handed == NOTHING:
        assert not place.handed
        assert SAFE not in [result.verdict for result in place.watch.results]
        return
    (found,) = place.handed
    assert not found[0].any() and torch.equal(found[1], plain[1])
    verdicts = [(result.verdict, result.step) for result in place.watch.results]
    assert verdicts == [(UNSAFE, 2), (SAFE, STEPS - 1)]
