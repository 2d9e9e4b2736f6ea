"""Another guidance scale than the detectors learned from: warned of once, told, or refused."""

import warnings
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lvd import Guard, InputError, UnsafeVideoError
from lvd.guard.guidance import TrainedGuidance, scale_of_call
from lvd.utils.files import load_torch, save_torch
from lvd.x0.provenance import recorded_sampling
from tests.worlds.guarded_recordings import STEPS


@pytest.fixture
def detectors(world, tmp_path):
    """The world's shared detector, as if its recordings had told their guidance scale."""
    found = load_torch(world.shared / "shared.pth")
    found["about"]["sampling"]["guidance_scale"] = 4.0
    save_torch(found, tmp_path / "shared.pth")
    return tmp_path


class Pipe:
    """What has a guidance scale in one of the ways of diffusers."""

    guidance_scale = None

    def __call__(self, prompt, guidance_scale=5.0):
        pass


class Silent(Pipe):
    def __call__(self, prompt, **kwargs):
        pass


class NotYet(Silent):
    @property
    def guidance_scale(self):
        return self._guidance_scale  # set by a call


class Called(Pipe):
    guidance_scale = 4.0  # left from an earlier call


class Guided(Silent):
    guider = SimpleNamespace(guidance_scale=7.5)  # as HunyuanVideo 1.5 and modular ones have it


@pytest.mark.parametrize(
    ("pipe", "args", "kwargs", "scale"),
    [
        (Pipe(), ["p"], {}, 5.0),
        (Pipe(), ["p", 8], {}, 8.0),
        (Pipe(), [], {"prompt": "p", "guidance_scale": 1}, 1.0),
        (Pipe(), ["p"], {"guidance_scale": float("nan")}, None),
        (Pipe(), ["p"], {"unknown": 1}, None),  # the call says what is wrong
        (Silent(), ["p"], {"guidance_scale": 3.0}, 3.0),
        (Silent(), ["p"], {}, None),
        (NotYet(), ["p"], {}, None),
        (Called(), ["p"], {"guidance_scale": np.float32(8)}, 8.0),
        (Called(), ["p"], {"guidance_scale": torch.tensor(8)}, 8.0),
        (Called(), ["p"], {"guidance_scale": [4, 8]}, [4.0, 8.0]),
        (Called(), ["p"], {"guidance_scale": "8"}, None),
        (Guided(), ["p"], {}, 7.5),
    ],
)
def test_the_scale_of_a_call(pipe, args, kwargs, scale):
    assert scale_of_call(pipe, pipe.__call__, args, kwargs) == scale


def test_an_attribute_is_the_scale_where_no_argument_is():
    pipe = Silent()
    pipe.guidance_scale = 6
    assert scale_of_call(pipe, pipe.__call__, ["p"], {}) == 6.0


def results_of(watched, tiny, scale):
    """[GuardResult] of a guarded call at a guidance scale, also where the video was stopped."""
    inputs = tiny.inputs([-1], first=100, steps=STEPS, guidance_scale=scale)
    with suppress(UnsafeVideoError), watched as watch:
        tiny.pipe(**inputs)
    return watch.results


def test_a_call_at_another_scale_is_told_in_its_results(detectors, tiny):
    guard = Guard(detectors, 0.6, 3, "cpu")
    (known,) = results_of(guard.watch(tiny.pipe), tiny, 4.0)
    assert known.other_guidance is None
    with pytest.warns(UserWarning, match="this sampling has 8"):
        (other,) = results_of(guard.watch(tiny.pipe), tiny, 8.0)
    assert other.other_guidance == {"trained": [4.0], "call": 8.0}


def test_a_strict_guard_refuses_a_call_before_the_model_runs(detectors, tiny, monkeypatch):
    guard = Guard(detectors, 0.6, 3, "cpu", guidance="same")
    assert results_of(guard.watch(tiny.pipe), tiny, 4.0)
    monkeypatch.setattr(type(tiny.pipe.unet), "forward", None)  # no step can be taken
    with pytest.raises(InputError, match="this sampling has 8"):
        results_of(guard.watch(tiny.pipe), tiny, 8.0)
    safe = guard.protect(tiny.pipe)
    with pytest.raises(InputError, match="this sampling has 8"):
        safe(**tiny.inputs([-1], steps=STEPS, guidance_scale=8.0))


def test_a_guard_warns_once_and_tells(detectors):
    guard = Guard(detectors, 0.6, 3, "cpu")
    assert guard.guidance.scales == [4.0] and guard.check({"guidance_scale": 4}) == {}
    with pytest.warns(UserWarning, match="trained at guidance_scale 4, this sampling has 8"):
        told = guard.check({"guidance_scale": 8})
    assert told == {"other_guidance": {"trained": [4.0], "call": 8}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert guard.check({"guidance_scale": 8}) == told
        for other in (np.float32(8), [4, 8], torch.tensor([4.0, 8.0])):
            assert guard.check({"guidance_scale": other}) == told
        assert guard.check({"guidance_scale": np.float16(4.0)}) == {}
        for unknown in (None, "8", float("nan"), True, [], ["8"]):
            assert guard.check({"guidance_scale": unknown}) == {}
        assert guard.check({}) == {}


def test_a_strict_guard_refuses(detectors):
    guard = Guard(detectors, 0.6, 3, "cpu", guidance="same")
    assert guard.check({"guidance_scale": 4.0}) == {}
    with pytest.raises(InputError, match="shared.pth: trained at guidance_scale 4, .* has 8"):
        guard.check({"guidance_scale": 8.0})


def test_detectors_that_do_not_say_it_check_nothing(world):
    guard = Guard(world.shared, 0.6, 3, "cpu", guidance="same")
    assert TrainedGuidance([], "same").scales == []
    if not guard.guidance.scales:  # the recordings of this world say none
        assert guard.check({"guidance_scale": 8.0}) == {}


@pytest.mark.parametrize(
    ("meta", "scale"),
    [
        ({}, None),
        ({"guidance_scale": 3.5}, 3.5),  # of lvd.record's `about`
        ({"config": {"guidance_scale": 8}}, 8),  # of MagicTime
        ({"config": {"guidance_scale": "8"}}, None),
        ({"config": {"guidance_scale": float("inf")}}, None),
    ],
)
def test_recordings_tell_it(meta, scale):
    x0 = SimpleNamespace(meta=meta, tensor=torch.zeros(1, 3, 4, 2, 4, 4), info={})
    assert recorded_sampling(x0).get("guidance_scale") == scale


@pytest.mark.parametrize("choice", ["other", None, True, 3, ["same"]])
def test_what_is_no_choice(world, choice):
    with pytest.raises(InputError, match="^guidance=.*one of warn, same"):
        Guard(world.shared, 0.6, 3, "cpu", guidance=choice)
