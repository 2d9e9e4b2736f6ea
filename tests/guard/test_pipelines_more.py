"""The other known video pipelines: channels last, tokens of conditions, sound, video to video,
blocks. Each is recorded and guarded with no layout named."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch

import lvd
from benchmarks.common import tiny_pipelines
from benchmarks.common.pipeline_world import NORMAL, STEPS, UNSAFE
from benchmarks.common.tiny_inputs import pictures
from lvd import UnsafeVideoError
from lvd.errors import InputError
from lvd.x0.file import open_x0_file
from lvd.x0.layouts import find_layout
from tests.worlds.known_pipelines import CLIPS, guard_that_says, steps_of, write_detectors
from tests.worlds.pipeline_world import run, tiny_of

MORE = list(tiny_pipelines.MORE)
OF_VIDEO = [name for name in MORE if "VideoToVideo" in name]
WITH_SOUND = [name for name in MORE if "LTX2" in name and "HDR" not in name]
WITH_SOUND += ["Kandinsky6TI2VAPipeline"]
# Frames in front that are not the last x0: they are matched to the rest of the video at the end.
OTHER_FRAMES = {"Kandinsky5I2VPipeline": 3}


def tokens_to_clips(x, shape):
    """[B, F * H * W, C] → [B, C, F, H, W], of patches of one latent."""
    return x.transpose(1, 2).unflatten(2, shape[1:])


def count(tiny):
    """Number of tokens of a video."""
    return torch.Size(tiny.shape[1:]).numel()


OWN_CLIPS = {
    **CLIPS,
    "1BCFHW": lambda x, tiny: x.squeeze(0),
    "B(FHW+K)C": lambda x, tiny: tokens_to_clips(x[:, : count(tiny)], tiny.shape),
    "B(K+FHW)C": lambda x, tiny: tokens_to_clips(x[:, -count(tiny) :], tiny.shape),
}


def make_place(name, folder):
    """A tiny pipeline, videos that it makes without a guard, their recording, and detectors."""
    tiny, path = tiny_of(name), folder / "pred_x0.pth"
    kinds = [UNSAFE, NORMAL][: tiny.most]
    with (
        steps_of(tiny.pipe.scheduler) as given,
        lvd.record(tiny.pipe, path, len(kinds), dtype="float32") as recording,
    ):
        with recording.rows(range(len(kinds))):
            recorded = run(tiny, kinds)
    x0 = open_x0_file(path)
    write_detectors(folder / "detectors", x0)
    return SimpleNamespace(
        name=name,
        tiny=tiny,
        kinds=kinds,
        plain=run(tiny, kinds),
        recorded=recorded,
        given=[x for x in given if x.shape == given[0].shape],  # without those of the sound
        x0=x0.tensor,
        detectors=folder / "detectors",
    )


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Function of a name → its place, made once."""
    made = {}

    def place_of(name):
        if name not in made:
            made[name] = make_place(name, tmp_path_factory.mktemp(name))
        return made[name]

    return place_of


@pytest.mark.parametrize("name", MORE)
def test_recorded_with_no_layout_named(places, name):
    """Recording changes no bit; x0 is the scheduler's own; the last x0 is nearly the video."""
    place = places(name)
    steps = STEPS - 1 if name in OF_VIDEO else STEPS
    assert torch.equal(place.recorded, place.plain) and place.plain.std() > 0
    assert tuple(place.x0.shape) == (len(place.kinds), steps, *place.tiny.shape)
    clips = OWN_CLIPS[find_layout(place.tiny.pipe).axes]
    given = torch.stack([clips(x, place.tiny) for x in place.given], 1)
    assert torch.equal(place.x0, given.float())
    last, video = (x[:, :, OTHER_FRAMES.get(name, 0) :] for x in (place.x0[:, -1], place.plain))
    assert (last - video).abs().max() / video.std() < 1e-4


@pytest.mark.parametrize("name", MORE)
def test_an_unsafe_video_is_stopped_and_never_decoded(places, name, monkeypatch):
    place = places(name)
    tiny, decoded = place.tiny, []
    guard = guard_that_says(place, [1.0] * len(place.kinds))
    for part in ("vae", "audio_vae"):
        if model := getattr(tiny.pipe, part, None):
            monkeypatch.setattr(model, "decode", lambda *args, **kwargs: decoded.append(1))
    with pytest.raises(UnsafeVideoError), guard.watch(tiny.pipe) as watch:
        run(tiny, place.kinds, output_type="pt")
    assert [result.steps_run for result in watch.results] == [1] * len(place.kinds) and not decoded


@pytest.mark.parametrize("name", MORE)
def test_a_safe_video_passes_bit_for_bit(places, name):
    place = places(name)
    with guard_that_says(place, [0.0] * len(place.kinds)).watch(place.tiny.pipe) as watch:
        guarded = run(place.tiny, place.kinds)
    assert torch.equal(guarded, place.plain)
    assert [result.verdict for result in watch.results] == ["safe"] * len(place.kinds)


@pytest.mark.parametrize("name", [n for n in MORE if tiny_of(n).most is None])
def test_of_a_batch_only_the_unsafe_video_is_lost(places, name):
    """All that is returned of it is zero, also an image that it was to begin with."""
    place = places(name)
    with guard_that_says(place, [1.0, 0.0]).watch(place.tiny.pipe) as watch:
        guarded = run(place.tiny, place.kinds)
    assert [result.verdict for result in watch.results] == ["unsafe", "safe"]
    assert not guarded[0].any() and place.plain[0].any()
    if name != "Kandinsky5I2VPipeline":
        assert torch.equal(guarded[1], place.plain[1])


def test_kandinsky5_matches_first_frames_to_those_of_all_videos(places):
    """Its `normalize_first_frame` averages over the batch, so a stopped neighbour changes the
    first four latent frames of the others, and nothing else."""
    place = places("Kandinsky5I2VPipeline")
    with guard_that_says(place, [1.0, 0.0]).watch(place.tiny.pipe):
        guarded = run(place.tiny, place.kinds)
    difference = (guarded[1] - place.plain[1]).abs()  # [C, F, h, w], without the image's frame
    assert not difference[:, 3:].any() and 0 < difference[:, :3].max() < place.plain.std()


@pytest.mark.parametrize("name", ["LTXConditionPipeline", "Kandinsky5I2VPipeline"])
def test_a_stopped_video_is_black_though_it_began_with_an_image(places, name):
    place = places(name)
    with guard_that_says(place, [1.0, 0.0]).watch(place.tiny.pipe):
        video = run(place.tiny, place.kinds, output_type="pt")
    assert not video[0].any() and video[1].any()


@pytest.mark.parametrize("output_type", ["pt", "latent"])
@pytest.mark.parametrize("name", WITH_SOUND)
def test_sound_of_a_stopped_video_does_not_come_out(places, name, output_type):
    """Nor in a tuple, nor with a scheduler of its own; that of the others keeps its bits."""
    place, tiny = places(name), places(name).tiny
    plain = sound_of(tiny, place.kinds, output_type)
    assert plain[0].any() and plain[1].any()
    for changes in ({}, {"return_dict": False}):
        with guard_that_says(place, [1.0, 0.0]).watch(tiny.pipe):
            sound = sound_of(tiny, place.kinds, output_type, **changes)
        assert not sound[0].any() and torch.equal(sound[1], plain[1])
    if "audio_scheduler" not in tiny.pipe._optional_components:
        return
    pipe = type(tiny.pipe)(
        **{**tiny.pipe.components, "audio_scheduler": copy.deepcopy(tiny.pipe.scheduler)}
    )
    pipe.set_progress_bar_config(disable=True)
    own = SimpleNamespace(pipe=pipe, inputs=tiny.inputs)
    with guard_that_says(place, [1.0, 0.0]).watch(pipe):
        sound = sound_of(own, place.kinds, output_type)
    assert not sound[0].any() and torch.equal(sound[1], plain[1])


def sound_of(tiny, kinds, output_type, **changes):
    torch.manual_seed(100)
    given = tiny.inputs(kinds, first=100, steps=STEPS, output_type=output_type, **changes)
    output = tiny.pipe(**given)
    return output[1] if isinstance(output, tuple) else output.audio


def test_copies_of_the_scheduler_are_left_alone_only_where_they_step_sound():
    """With a layout that knows nothing of sound, LTX-2's copy is refused as before."""
    tiny = tiny_of("LTX2Pipeline")
    layout = find_layout(tiny.pipe)
    layout.copies_are_others = False
    with (
        layout.following(tiny.pipe),
        pytest.raises(InputError, match="timesteps were set again|second sampling|several copies"),
        lvd.X0Recorder(tiny.pipe.scheduler, layout.unpack),
    ):
        run(tiny, [NORMAL])


def test_kandinsky6_from_an_image(places):
    """Its latents are one more frame at the end, which the detectors do not see."""
    tiny = tiny_of("Kandinsky6TI2VAPipeline")
    layout = find_layout(tiny.pipe)
    with (
        layout.following(tiny.pipe),
        lvd.X0Recorder(tiny.pipe.scheduler, layout.unpack, layout.copies_are_others) as recorder,
    ):
        video = run(tiny, [NORMAL], image=pictures([(1, 0)]))
    assert recorder.x0.shape == (1, STEPS, *tiny.shape)
    assert torch.allclose(recorder.x0[:, -1], video, atol=1e-5)


def test_given_latents_tell_the_size():
    """Height, width and number of frames of the call do not count then."""
    tiny = tiny_of("LTX2Pipeline")
    layout, latents = find_layout(tiny.pipe), torch.randn(1, 4, 2, 4, 6)
    with (
        layout.following(tiny.pipe),
        lvd.X0Recorder(tiny.pipe.scheduler, layout.unpack, layout.copies_are_others) as recorder,
    ):
        video = run(tiny, [NORMAL], latents=latents)
    assert recorder.x0[:, -1].shape == video.shape == latents.shape


def test_a_stop_of_a_modular_pipeline_is_quiet(places, caplog):
    """An error of a block is logged as ever."""
    place = places("WanModularPipeline")
    pipe, logger = place.tiny.pipe, logging.getLogger("diffusers.modular_pipelines")
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(UnsafeVideoError):
            with guard_that_says(place, [1.0, 1.0]).watch(pipe):
                run(place.tiny, place.kinds)
        assert not caplog.records
        with pytest.raises(Exception, match="num_frames|int|str"):
            with guard_that_says(place, [1.0, 1.0]).watch(pipe):
                run(place.tiny, place.kinds, num_frames="many")
        assert any("Error in block" in record.message for record in caplog.records)
    finally:
        logger.removeHandler(caplog.handler)


def test_the_whole_state_of_blocks_is_refused_when_one_video_of_several_was_stopped(places):
    """Parts of it cannot be told apart by video."""
    place = places("WanModularPipeline")
    with pytest.raises(InputError, match="cannot|told apart"):
        with guard_that_says(place, [1.0, 0.0]).watch(place.tiny.pipe):
            place.tiny.pipe(**place.tiny.inputs(place.kinds, steps=STEPS, output=None))


def test_video_to_video_is_refused_at_its_first_step_where_detectors_are_too_far(places):
    """At strength 1 it takes all steps, and detectors of the last two do not know the first."""
    place = places("WanVideoToVideoPipeline")
    with pytest.raises(InputError, match="noise level"):
        with guard_that_says(place, [0.0, 0.0]).watch(place.tiny.pipe):
            run(place.tiny, place.kinds, strength=1.0)
