"""Watching a scheduler: each step is seen once, and the scheduler is as before afterwards."""

import copy
import inspect
import pickle
from functools import partial

import diffusers
import pytest
import torch

from lvd import X0Recorder, watch_steps
from lvd.errors import InputError
from lvd.x0.levels import levels_of
from lvd.x0.schedulers import timesteps_of
from lvd.x0.watch import watch_of
from tests.worlds.oracle import BETAS, BY_TIMESTEP, FLOW, SCALED, X0, make, oracle, sample


def test_begin_index_and_second_half_of_a_schedule():
    """As image-to-video with a strength: the first step is not the schedule's."""
    for name, settings in (
        ("DPMSolverMultistepScheduler", {}),
        ("FlowMatchEulerDiscreteScheduler", {}),
    ):
        scheduler = make(name, None, settings)
        scheduler.set_timesteps(10)
        scheduler.set_begin_index(4)
        seen = []
        with watch_steps(scheduler, lambda *step, seen=seen: seen.append(step[:3])):
            for number in range(4, 10):
                x = torch.randn(X0.shape)
                out = oracle(
                    SCALED if settings == {} and "DPM" in name else FLOW,
                    "epsilon",
                    x,
                    scheduler.sigmas[number].item(),
                )
                scheduler.step(out, scheduler.timesteps[number], x)
        assert [step for step, *_ in seen] == list(range(6))
        assert [timestep for _, timestep, _ in seen] == scheduler.timesteps[4:].tolist()
        assert max((x0 - X0).abs().max() for *_, x0 in seen) < 1e-4


def test_restored_after_errors_and_nested_use_refused():
    scheduler = make("DDIMScheduler", "epsilon", dict(clip_sample=False))
    before, config = dict(vars(scheduler)), dict(scheduler.config)
    with pytest.raises(RuntimeError, match="mine"), watch_steps(scheduler, lambda *_: None):
        assert (
            isinstance(scheduler, diffusers.DDIMScheduler)
            and type(scheduler).__name__ == "DDIMScheduler"
        )
        assert "eta" in inspect.signature(scheduler.step).parameters  # as pipelines ask
        with (
            pytest.raises(InputError, match="one watch at a time"),
            watch_steps(scheduler, lambda *_: None),
        ):
            pass
        raise RuntimeError("mine")
    assert type(scheduler) is diffusers.DDIMScheduler and vars(scheduler).keys() == before.keys()
    assert dict(scheduler.config) == config

    def fails(*_):
        raise RuntimeError("in on_step")

    with pytest.raises(RuntimeError, match="in on_step"), watch_steps(scheduler, fails):
        sample(scheduler, BY_TIMESTEP, "epsilon", 5)
    assert type(scheduler) is diffusers.DDIMScheduler
    assert torch.isfinite(sample(scheduler, BY_TIMESTEP, "epsilon", 5)).all()  # as good as new


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_watched_with_it_and_steps_itself(copied):
    scheduler = make("UniPCMultistepScheduler", "epsilon", BETAS)
    with X0Recorder(scheduler) as recorder:
        twin = copied(scheduler)
        twin.set_timesteps(5)
        sample(twin, SCALED, "epsilon", 5)
    assert recorder.x0.shape[1] == 5 and (recorder.x0 - X0[:, None]).abs().max() < 2e-4
    assert scheduler.step_index is None  # the original took no step
    sample(twin, SCALED, "epsilon", 5)  # it outlives the watch
    assert recorder.x0.shape[1] == 5
    with recorder:  # which may be used again
        sample(twin, SCALED, "epsilon", 5)
        sample(scheduler, SCALED, "epsilon", 3)
    assert recorder.x0.shape[1] == 3


def test_set_timesteps_may_be_replaced_or_called_before():
    for replaced in (False, True):
        scheduler = make("EulerDiscreteScheduler", "epsilon", BETAS)
        if replaced:
            scheduler.set_timesteps = partial(
                diffusers.EulerDiscreteScheduler.set_timesteps, scheduler
            )
        scheduler.set_timesteps(5)
        begun = []
        seen = []

        def on_step(step, *_, seen=seen):
            seen.append(step)

        with watch_steps(scheduler, on_step, on_begin=begun.append):
            x = torch.randn(X0.shape)
            for timestep in scheduler.timesteps:
                scheduler.scale_model_input(x, timestep)
                x = scheduler.step(torch.zeros_like(x), timestep, x).prev_sample
        assert begun == [scheduler.timesteps.tolist()] and seen == [0, 1, 2, 3, 4]


def test_two_samplings_or_two_schedulers_in_one_watch():
    scheduler = make("DDIMScheduler", "epsilon", dict(clip_sample=False))
    with (
        pytest.raises(InputError, match="a second sampling began after the first one's 5 steps"),
        watch_steps(scheduler, lambda *_: None),
    ):
        sample(scheduler, BY_TIMESTEP, "epsilon", 5)
        sample(scheduler, BY_TIMESTEP, "epsilon", 5)
    with pytest.raises(InputError, match="several copies"), watch_steps(scheduler, lambda *_: None):
        twin = copy.deepcopy(scheduler)
        for each in (scheduler, twin):
            each.set_timesteps(5)
        for each in (scheduler, twin):
            each.step(X0, each.timesteps[0], X0)


@pytest.mark.parametrize(
    "name",
    [
        "DDIMScheduler",
        "CogVideoXDPMScheduler",
        "UniPCMultistepScheduler",
        "PNDMScheduler",
        "DPMSolverSinglestepScheduler",
        "LCMScheduler",
    ],
)
def test_what_the_watcher_returns_takes_prev_samples_place(name):
    """For one video of a batch, from a step on: it stays what it is made, and the other's bits stay
    as they were."""
    form = SCALED if name.startswith(("UniPC", "DPM")) else BY_TIMESTEP
    settings = dict(skip_prk_steps=True) if name == "PNDMScheduler" else {}
    plain = sample(make(name, "v_prediction", settings), form, "v_prediction", 6)
    scheduler, steps, blanks = make(name, "v_prediction", settings), [], [0]

    def on_step(step, timestep, x0, prev_sample):
        assert x0.shape == prev_sample.shape
        steps.append(step)

    def blank(tensor):
        if len(steps) > 2:
            tensor = tensor.clone()
            tensor[0] = 0
            blanks[0] += 1
        return tensor

    with watch_steps(scheduler, on_step, on_call=blank):
        found = sample(scheduler, form, "v_prediction", 6)
    assert steps == list(range(6)) and blanks[0] >= 4
    assert torch.equal(found[1], plain[1]) and not found[0].any()

    scheduler = make(name, "v_prediction", settings)
    with watch_steps(
        scheduler,
        lambda step, timestep, x0, prev: torch.full_like(prev, 5.0) if step == 5 else None,
    ):
        assert (sample(scheduler, form, "v_prediction", 6) == 5).all()


def test_outputs_as_objects_are_replaced_too():
    scheduler = make("DDIMScheduler", "epsilon", dict(clip_sample=False))
    scheduler.set_timesteps(5)
    with watch_steps(scheduler, lambda *_: None, on_call=torch.zeros_like):
        found = scheduler.step(X0, scheduler.timesteps[0], X0)
        pair = scheduler.step(X0, scheduler.timesteps[1], X0, return_dict=False)
    assert len(pair) == 2 and not pair[0].any() and not pair[1].any()
    assert (
        not found.prev_sample.any() and not found.pred_original_sample.any() and not found[0].any()
    )


@pytest.mark.parametrize("name", ["DDIMScheduler", "UniPCMultistepScheduler", "PNDMScheduler"])
def test_pickles_and_copies_of_a_watched_scheduler(name):
    """A pickle holds a plain one; a copy is watched with it, and after the block anew."""
    scheduler = make(name, "epsilon", {})
    seen = []
    with watch_steps(scheduler, lambda *step: seen.append(step)):
        found = [pickle.loads(pickle.dumps(scheduler, kind)) for kind in range(6)]
        copies = [copy.copy(scheduler), copy.deepcopy(scheduler)]
        assert watch_of(copies[0]) is watch_of(scheduler) is not None
        copies += [copy.deepcopy(copies[1]), pickle.loads(pickle.dumps(copies[1]))]
        for plain in found:
            assert type(plain) is type(copies[3]) is getattr(diffusers, name)
            plain.set_timesteps(5)
            plain.step(X0, plain.timesteps[0], X0)
        assert not seen and watch_of(found[0]) is None
    for twin in copies:
        assert watch_of(twin) is None and twin.config == scheduler.config
        assert type(pickle.loads(pickle.dumps(twin))) is getattr(diffusers, name)
        with X0Recorder(twin) as recorder:
            twin.set_timesteps(5)
            twin.step(X0, twin.timesteps[0], X0)
        assert len(recorder.timesteps) == 1 and type(twin) is getattr(diffusers, name)
    assert type(scheduler) is getattr(diffusers, name)


def test_who_may_use_it_is_asked_before_each_step():
    scheduler = make("DDIMScheduler", "epsilon", dict(clip_sample=False))
    scheduler.set_timesteps(3)
    seen = []

    def refuse():
        raise InputError("not now")

    with watch_steps(scheduler, lambda *step: seen.append(step), on_use=refuse):
        with pytest.raises(InputError, match="not now"):
            scheduler.step(X0, scheduler.timesteps[0], X0)
    assert not seen


@pytest.mark.parametrize(
    "name, settings",
    [
        ("HeunDiscreteScheduler", {}),
        ("KDPM2DiscreteScheduler", {}),
        ("KDPM2AncestralDiscreteScheduler", {}),
        ("FlowMatchHeunDiscreteScheduler", {}),
        ("PNDMScheduler", dict(skip_prk_steps=False)),
    ],
)
def test_second_calls_are_no_steps_also_in_the_middle_of_the_schedule(name, settings):
    scheduler = make(name, None, settings)
    scheduler.set_timesteps(6)
    begin = 0 if name == "PNDMScheduler" else 2 * scheduler.order
    if begin:
        scheduler.set_begin_index(begin)
    planned = timesteps_of(scheduler)
    assert len(planned) == len(levels_of(scheduler)) == 6
    steps, calls = [], []
    with watch_steps(
        scheduler, lambda *step: steps.append(step[1]), on_call=lambda x: calls.append(0) or x
    ):
        for timestep in scheduler.timesteps[begin:]:
            scheduler.step(X0, timestep, X0)
    assert steps == planned[begin // 2 :]
    assert len(calls) >= len(scheduler.timesteps) - begin > len(steps)


def test_cosmos_asks_for_x0_before_it_takes_the_step():
    """With twice as many samples; that is no step, and what it returns is left as it is."""
    scheduler = make("EDMEulerScheduler")
    scheduler.set_timesteps(3)
    seen = []
    with watch_steps(scheduler, lambda *step: seen.append(step), on_call=torch.zeros_like):
        for timestep in scheduler.timesteps:
            both = scheduler.step(X0.repeat(2, 1, 1, 1, 1), timestep, X0.repeat(2, 1, 1, 1, 1))
            assert both.pred_original_sample.any() and both.prev_sample.any()
            scheduler._step_index -= 1
            guided = both.pred_original_sample[:2] * 2
            found = scheduler.step(guided, timestep, X0, pred_original_sample=guided)
            assert torch.equal(seen[-1][2], guided) and not found.prev_sample.any()
    assert [step for step, *_ in seen] == [0, 1, 2]
    scheduler.set_timesteps(3)
    with watch_steps(scheduler, lambda *step: None):
        scheduler.step(X0, scheduler.timesteps[0], X0)
        with pytest.raises(InputError, match="EDMEulerScheduler: takes a step without pred_orig"):
            scheduler.step(X0, scheduler.timesteps[1], X0)
