"""Each known video pipeline, recorded and guarded with no layout named.

Random detectors stand in for trained ones; what they answer is given.
"""

from types import SimpleNamespace

import pytest
import torch

import lvd
from benchmarks.common import tiny_hunyuan, tiny_pipelines, tiny_sana_motif, tiny_wan
from benchmarks.common.pipeline_world import NORMAL, STEPS, UNSAFE
from lvd import UnsafeVideoError
from lvd.x0.file import open_x0_file
from lvd.x0.layouts import find_layout
from tests.worlds.known_pipelines import CLIPS, guard_that_says, steps_of, write_detectors
from tests.worlds.pipeline_world import run, tiny_of


@pytest.fixture(scope="module", params=list(tiny_pipelines.FAMILIES))
def place(request, tmp_path_factory):
    """A tiny pipeline, videos that it makes without a guard, their recording, and detectors."""
    tiny = tiny_of(request.param)
    path = tmp_path_factory.mktemp(request.param) / "pred_x0.pth"
    kinds = [UNSAFE, NORMAL][: tiny.most]
    plain = run(tiny, kinds)
    with (
        steps_of(tiny.pipe.scheduler) as given,
        lvd.record(tiny.pipe, path, len(kinds), dtype="float32") as recording,
    ):
        with recording.rows(range(len(kinds))):
            recorded = run(tiny, kinds)
    x0 = open_x0_file(path)
    write_detectors(path.parent / "detectors", x0)
    return SimpleNamespace(
        tiny=tiny,
        kinds=kinds,
        plain=plain,
        recorded=recorded,
        given=given,
        x0=x0.tensor,
        detectors=path.parent / "detectors",
    )


def test_recorded_with_no_layout_named(place):
    """Recording changes no bit; x0 is the scheduler's own; the last x0 is nearly the video."""
    assert torch.equal(place.recorded, place.plain) and place.plain.std() > 0
    assert tuple(place.x0.shape) == (len(place.kinds), STEPS, *place.tiny.shape)
    axes = find_layout(place.tiny.pipe).axes
    if axes in CLIPS:
        given = torch.stack([CLIPS[axes](x, place.tiny) for x in place.given], 1)
        is_rounded = type(place.tiny.pipe).__name__ == "StableVideoDiffusionPipeline"
        torch.testing.assert_close(place.x0, given.float(), rtol=0, atol=1e-5 if is_rounded else 0)
    error = (place.x0[:, -1] - place.plain).abs().max() / place.plain.std()
    assert error < 0.03  # Cosmos ends at sigma 0.002, not 0


def test_an_unsafe_video_is_stopped_and_never_decoded(place):
    tiny, decoded = place.tiny, []
    guard = guard_that_says(place, [1.0] * len(place.kinds))
    decode = tiny.pipe.vae.decode
    tiny.pipe.vae.decode = lambda *args, **kwargs: decoded.append(1) or decode(*args, **kwargs)
    try:
        with pytest.raises(UnsafeVideoError), guard.watch(tiny.pipe) as watch:
            run(tiny, place.kinds, output_type="pt")
    finally:
        del tiny.pipe.vae.decode
    assert [result.steps_run for result in watch.results] == [1] * len(place.kinds) and not decoded


def test_a_safe_video_passes_bit_for_bit(place):
    with guard_that_says(place, [0.0] * len(place.kinds)).watch(place.tiny.pipe) as watch:
        guarded = run(place.tiny, place.kinds)
    assert torch.equal(guarded, place.plain)
    assert [result.verdict for result in watch.results] == ["safe"] * len(place.kinds)


def test_of_a_batch_only_the_unsafe_video_is_lost(place):
    if len(place.kinds) == 1:
        pytest.skip("one video a call")
    with guard_that_says(place, [1.0, 0.0]).watch(place.tiny.pipe) as watch:
        guarded = run(place.tiny, place.kinds)
    assert [result.verdict for result in watch.results] == ["unsafe", "safe"]
    assert not guarded[0].any() and torch.equal(guarded[1], place.plain[1])


# Image to video: the latents' first frame is, or is put back as, the image's. Blanked all the same.
KEEP_THE_FIRST_FRAME = {
    "Wan 2.2 (5B)": tiny_wan.wan_22_image,
    "SANA": tiny_sana_motif.sana_image,
    "HunyuanVideo": tiny_hunyuan.hunyuan_image,
}


@pytest.mark.parametrize("name", KEEP_THE_FIRST_FRAME)
def test_nothing_of_the_image_is_left_of_a_stopped_video(name, tmp_path):
    """These pipelines put the image's frame before, or into, the latents that the scheduler has
    stepped, where the guard's zeros are; what the call returns is black from the first frame on."""
    torch.manual_seed(0)
    pipe = (tiny := KEEP_THE_FIRST_FRAME[name]()).pipe
    pipe.set_progress_bar_config(disable=True)
    kinds, path = [UNSAFE, NORMAL], tmp_path / "pred_x0.pth"
    with lvd.record(pipe, path, 2) as recording, recording.rows([0, 1]):
        run(tiny, kinds)
    write_detectors(tmp_path / "detectors", open_x0_file(path))
    place = SimpleNamespace(detectors=tmp_path / "detectors")
    for form in ("latent", "pt"):
        plain = run(tiny, kinds, output_type=form)
        with guard_that_says(place, [1.0, 0.0]).watch(pipe):
            guarded = run(tiny, kinds, output_type=form)
        assert not guarded[0].any() and plain[0].any() and torch.equal(guarded[1], plain[1])
    with guard_that_says(place, [1.0, 1.0]).watch(pipe, on_unsafe="interrupt"):
        assert not run(tiny, kinds, output_type="pt").any()
    before_blanking = []

    def look(pipe, step, timestep, kwargs):
        before_blanking.append(kwargs["latents"])
        return {}

    if name == "SANA":  # what the call would return without blanking holds the image's frame
        with guard_that_says(place, [1.0, 0.0]).watch(pipe):
            run(tiny, kinds, callback_on_step_end=look)
        assert before_blanking[-1][0, :, :1].any() and not before_blanking[-1][0, :, 1:].any()
