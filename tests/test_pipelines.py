"""Layouts, recording and the guard on the video pipelines of diffusers, each with tiny random components."""

from contextlib import contextmanager
from functools import cache

import pytest
import torch

import tiny_pipelines
from lvd import Guard, UnsafeVideoError, record
from lvd.errors import InputError
from lvd.layouts import Dense, FramesInBatch, can_interrupt, find_layout
from lvd.x0_file import open_x0_file
from pipeline_world import NORMAL, STEPS, UNSAFE, make_world

FAMILIES = list(tiny_pipelines.FAMILIES)
BY_FRAME = ("StableVideoDiffusionPipeline", "CogVideoXPipeline")  # their latents come as [B, F, C, h, w]
tiny_of = cache(tiny_pipelines.build)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """(Tiny, its world): recorded, trained."""
    tiny = tiny_of(request.param)
    return tiny, make_world(tiny, tmp_path_factory.mktemp(request.param))


def clips_of(tiny, frames):
    """What a pipeline returns with output_type latent, as [B, C, F, h, w], without lvd.layouts."""
    name = type(tiny.pipe).__name__
    if name == "LTXPipeline":
        return tiny.pipe._unpack_latents(frames, *tiny.shape[1:])
    return frames.transpose(1, 2) if name in BY_FRAME else frames


def run(tiny, kinds, **changes):
    """[B, C, F, h, w] of a run, the same prompts for the same kinds every time."""
    torch.manual_seed(100)
    return clips_of(tiny, tiny.pipe(**tiny.inputs(kinds, steps=STEPS, **changes)).frames)


@contextmanager
def counted(owner, name):
    """A list to which each call of owner.name adds its first tensor."""
    calls, found = [], getattr(owner, name)

    def counting(*args, **kwargs):
        calls.append(next((a for a in [*args, *kwargs.values()] if isinstance(a, torch.Tensor)), None))
        return found(*args, **kwargs)

    setattr(owner, name, counting)
    try:
        yield calls
    finally:
        delattr(owner, name)


def denoiser(pipe):
    return pipe.components.get("unet") or pipe.transformer


@pytest.mark.parametrize("name", FAMILIES)
def test_unpacked_latents_are_what_the_autoencoder_decodes(name):
    """Up to its scaling, a scale and a shift per channel; blanked videos are flat there and the others untouched."""
    tiny = tiny_of(name)
    layout, seen = find_layout(tiny.pipe), []
    torch.manual_seed(3)
    step = tiny.pipe.scheduler.step

    def last_step(*args, **kwargs):
        found = step(*args, **kwargs)
        seen[:] = [found[0] if isinstance(found, tuple) else found.prev_sample]
        return found

    tiny.pipe.scheduler.step = last_step
    try:
        with layout.following(tiny.pipe), counted(tiny.pipe.vae, "decode") as decoded:
            tiny.pipe(**tiny.inputs([1, -1], seeds=[1, 2], output_type="pt"))
    finally:
        del tiny.pipe.scheduler.step
    assert "prepare_latents" not in vars(tiny.pipe)
    clips = layout.unpack(seen[0])
    assert tuple(clips.shape) == (2, *tiny.shape) and layout.videos(seen[0]) == 2
    given = torch.cat(decoded)
    if given.dim() == 4:  # an image model's: frame after frame
        given = given.unflatten(0, (2, -1)).transpose(1, 2)
    for ours, theirs in zip(clips.unbind(1), given.unbind(1), strict=True):
        scale = theirs.std() / ours.std()
        assert torch.allclose(theirs, (ours - ours.mean()) * scale + theirs.mean(), atol=1e-4 * float(theirs.std()))
    blank = layout.unpack(layout.blank(seen[0], [1]))
    assert torch.equal(blank[0], clips[0]) and not blank[1].any() and clips[1].any()


@pytest.mark.slow
def test_recordings(family):
    """The last x0 is the finished video; timesteps and shape are the pipeline's."""
    tiny, world = family
    assert world.unsafe.tensor.shape == (16, STEPS, *tiny.shape) and world.unsafe.rows == list(range(16))
    assert len(world.unsafe.info[0]["timesteps"]) == STEPS and world.unsafe.meta["pipeline"] == type(tiny.pipe).__name__
    torch.manual_seed(0)
    video = clips_of(tiny, tiny.pipe(**tiny.inputs([UNSAFE] * 8, steps=STEPS)).frames)
    assert torch.allclose(world.unsafe.tensor[:8, -1].float(), video, rtol=2e-3, atol=2e-3 * float(video.std()))


@pytest.mark.slow
def test_guard_stops_an_unsafe_video(family):
    tiny, world = family
    with counted(tiny.pipe.vae, "decode") as decoded, counted(denoiser(tiny.pipe), "forward") as whole:
        run(tiny, [UNSAFE], output_type="pt") if False else run(tiny, [UNSAFE])
    guard = Guard(world.detectors, lambda_=0.5, eta=2, device="cpu")
    with counted(tiny.pipe.vae, "decode") as decoded, counted(denoiser(tiny.pipe), "forward") as calls:
        with pytest.raises(UnsafeVideoError) as error, guard.watch(tiny.pipe) as watch:
            run(tiny, [UNSAFE], output_type="pt")
    (result,) = watch.results
    assert error.value.results == watch.results
    assert (result.verdict, result.step, result.votes) == ("unsafe", 0, [1])
    assert (result.steps_run, result.steps_saved) == (1, STEPS - 1) and result.detectors == ["1/0 (unsafe)"]
    assert not decoded and len(calls) * STEPS == len(whole)


@pytest.mark.slow
def test_guard_lets_a_normal_video_pass_bit_for_bit(family):
    tiny, world = family
    alone = run(tiny, [NORMAL])
    with Guard(world.detectors, lambda_=1, eta=STEPS, device="cpu").watch(tiny.pipe) as watch:
        guarded = run(tiny, [NORMAL])
    assert [(r.verdict, r.step, r.votes) for r in watch.results] == [("safe", 0, [0])]
    assert torch.equal(guarded, alone) and alone.any()


@pytest.mark.slow
def test_guard_blanks_only_the_unsafe_video_of_a_batch(family):
    tiny, world = family
    kinds = [NORMAL, UNSAFE, NORMAL]
    batch = run(tiny, kinds, seeds=[0, 0, 0])
    with Guard(world.detectors, lambda_=0.6, eta=STEPS, device="cpu").watch(tiny.pipe) as watch:
        guarded = run(tiny, kinds, seeds=[0, 0, 0])
    assert [r.verdict for r in watch.results] == ["safe", "unsafe", "safe"]
    assert [r.step for r in watch.results] == [1, 1, 1]
    assert not guarded[1].any() and batch[1].any()
    assert torch.equal(guarded[[0, 2]], batch[[0, 2]])


@pytest.mark.slow
def test_interrupt(family):
    """Pipelines that have it skip their remaining steps and come back; the others are refused before they start."""
    tiny, world = family
    guard = Guard(world.detectors, lambda_=0.5, eta=2, device="cpu")
    if not can_interrupt(tiny.pipe):
        with pytest.raises(InputError, match="cannot be interrupted"):
            guard.watch(tiny.pipe, on_unsafe="interrupt")
        return
    with counted(denoiser(tiny.pipe), "forward") as whole:
        run(tiny, [UNSAFE, UNSAFE])
    with counted(denoiser(tiny.pipe), "forward") as calls, guard.watch(tiny.pipe, on_unsafe="interrupt") as watch:
        guarded = run(tiny, [UNSAFE, UNSAFE])
    assert [r.verdict for r in watch.results] == ["unsafe", "unsafe"] and not guarded.any()
    assert len(calls) * STEPS == len(whole)
    assert run(tiny, [UNSAFE]).any()  # the next call is as ever
