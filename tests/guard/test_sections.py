"""Pipelines of diffusers that make a video in sections: recorded and guarded, with tiny random
components. What the detectors answer is given.
"""

import copy
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, wraps
from inspect import signature
from types import SimpleNamespace

import pytest
import torch

import lvd
from benchmarks.common import tiny_pipelines
from benchmarks.common.tiny_inputs import guided
from benchmarks.common.tiny_sections import SECTIONS, Sections
from lvd import Guard, UnsafeVideoError
from lvd.errors import InputError
from lvd.rules.rule import SAFE, UNSAFE
from lvd.x0.file import open_x0_file
from lvd.x0.provenance import recorded_sampling
from tests.worlds.random_detectors import write_detectors

STEPS = 3


def free_init():
    """The same video twice, the second time from noise made of the first."""
    tiny = tiny_pipelines.build("AnimateDiffPipeline")
    tiny.pipe.enable_free_init(num_iters=2)
    return tiny


def chunks_of_cosmos():
    """Two chunks of two latent frames."""
    tiny = tiny_pipelines.build("Cosmos2_5_TransferPipeline")
    fixed = {**tiny.fixed, "num_frames_per_chunk": 5, "num_ar_conditional_frames": 1}
    channels, _, *size = tiny.shape
    return replace(tiny, shape=(channels, 2, *size), fixed=fixed)


PLACES = {
    **SECTIONS,
    "FreeInit": Sections(free_init, 2, lambda pipe, found, number: found if number else None),
    "Cosmos2_5_TransferPipeline": Sections(
        chunks_of_cosmos, 2, lambda pipe, found, number: None if number else found[:, :, :2]
    ),
}
UNSAFE_KIND, NORMAL_KIND = 1, -1


def run(place, seeds=(4, 5), **changes):
    torch.manual_seed(100)  # an image's latents may be drawn from it
    kinds = place.kinds
    return place.tiny.pipe(**place.tiny.inputs(kinds, seeds[: len(kinds)], **changes)).frames


@contextmanager
def steps_of(scheduler):
    """A list of x0 of each step that a scheduler takes while the block runs, by its own formulas
    or by that of flows, from what `step` is given."""
    kind, found = type(scheduler), []
    step = kind.step

    @wraps(step)
    def told(self, *args, **kwargs):
        given = signature(step).bind(self, *args, **kwargs).arguments
        out, timestep, x = (given[name] for name in ("model_output", "timestep", "sample"))
        twin = copy.deepcopy(self)
        twin.__class__ = kind
        if hasattr(twin, "convert_model_output"):
            if twin.step_index is None:
                twin._init_step_index(timestep)
            found.append(twin.convert_model_output(out, sample=x))
        elif hasattr(twin, "alphas_cumprod"):
            found.append(step(twin, out, timestep, x).pred_original_sample)
        else:
            found.append(x - twin.sigmas[twin.step_index or 0].to(x.dtype) * out)
        return step(self, *args, **kwargs)

    kind.step = told
    try:
        yield found
    finally:
        kind.step = step


@contextmanager
def counted(owner, name):
    """A list to which each call of owner.name adds one."""
    calls, method = [], getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: calls.append(args) or method(*args, **kwargs))
    try:
        yield calls
    finally:
        delattr(owner, name)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Function of a class's name: a tiny pipeline, what it makes without a guard, its recording,
    and detectors."""
    return cache(lambda name: make_place(name, tmp_path_factory.mktemp(name)))


@pytest.fixture(params=list(PLACES))
def place(request, places):
    return places(request.param)


def make_place(name, folder):
    sections = PLACES[name]
    tiny = tiny_pipelines.build(name) if name in SECTIONS else sections.build()
    kinds = [UNSAFE_KIND, NORMAL_KIND][: tiny.most or 2]
    place = SimpleNamespace(tiny=tiny, sections=sections, kinds=kinds)
    path, rows = folder / "pred_x0.pth", len(kinds) * sections.samplings
    place.plain = run(place)
    with steps_of(tiny.pipe.scheduler) as place.given:
        with lvd.record(tiny.pipe, path, rows, dtype="float32") as recording:
            with recording.rows(range(rows)):
                place.recorded = run(place)
    place.x0 = open_x0_file(path)
    sampling = recorded_sampling(place.x0)
    place.detectors = write_detectors(folder / "detectors", list(tiny.shape), STEPS, sampling)
    return place


def guard_that_says(place, *answers):
    """A guard of one vote. answers: of each sampling, a score for each video that is looked at;
    the last for later ones too."""
    guard, asked = Guard(place.detectors, 0.5, 1, "cpu"), []

    def score(step, clips, level=None):
        scores = answers[min(len(asked), len(answers) - 1)]
        asked.append(len(clips))
        return torch.tensor(scores[-len(clips) :]).view(-1, 1)

    guard.bank.score = score
    return guard


def same(one, other):
    """Whether two outputs are equal to the bit, tensors or lists of them."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_recorded(place):
    """Recording changes no bit; x0 is the scheduler's own in rows of each sampling; the last x0 is
    that section as the pipeline has it when it is done."""
    assert same(place.recorded, place.plain)
    videos, samplings = len(place.kinds), place.sections.samplings
    assert tuple(place.x0.tensor.shape) == (videos * samplings, STEPS, *place.tiny.shape)
    for row in range(videos * samplings):
        assert place.x0.info[row]["sampling"] == row // videos
    told = 0
    for number in range(samplings):
        x0 = place.x0.tensor[number * videos : (number + 1) * videos]
        given = torch.stack(place.given[number * STEPS : (number + 1) * STEPS], 1)
        assert torch.equal(
            x0, place.sections.clips(place.tiny.pipe, given.flatten(0, 1)).view(x0.shape)
        )
        finished = place.sections.finished(place.tiny.pipe, place.plain, number)
        if finished is not None:
            told += 1
            assert (
                x0[:, -1, :, : finished.shape[2]] - finished
            ).abs().max() < 0.02 * finished.std()
    assert told


@pytest.mark.parametrize("number", [0, 1])
def test_an_unsafe_section_ends_the_call(place, number):
    """Nothing later is sampled, and that section is not decoded; what came before stays inside."""
    videos = len(place.kinds)
    guard = guard_that_says(place, *[[0.0] * videos] * number, [1.0] * videos)
    pipe, steps = place.tiny.pipe, []
    with counted(pipe.vae, "decode") as plain_decodes:
        run(place, output_type="pt")
    with counted(pipe.vae, "decode") as decoded:
        with pytest.raises(UnsafeVideoError) as error, guard.watch(pipe):
            run(place, output_type="pt", callback_on_step_end=lambda *a: steps.append(a) or {})
    assert len(steps) == STEPS * number  # the step that was stopped has no callback
    assert len(decoded) == (number if len(plain_decodes) > 1 else 0)
    for result in error.value.results:
        assert (result.verdict, result.sampling, result.step) == (UNSAFE, number, 0)
        assert [earlier.verdict for earlier in result.earlier] == [SAFE] * number


def test_a_safe_video_passes_bit_for_bit(place):
    guard = guard_that_says(place, [0.0] * len(place.kinds))
    with guard.watch(place.tiny.pipe) as watch:
        found = run(place)
    assert same(found, place.plain)
    last = place.sections.samplings - 1
    assert [(r.verdict, r.sampling) for r in watch.results] == [(SAFE, last)] * len(place.kinds)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("output_type", ["latent", "pt"])
def test_of_a_batch_one_video_is_blanked_in_all_sections(place, number, output_type):
    """The other has its bits, as far as its noise is not drawn after the first one's."""
    if len(place.kinds) == 1:
        pytest.skip("it makes one video at a time")
    guard = guard_that_says(place, *[[0.0, 0.0]] * number, [1.0, 0.0], [0.0])
    plain = run(place, output_type=output_type)
    with guard.watch(place.tiny.pipe) as watch:
        found = run(place, output_type=output_type)
    assert [(r.verdict, r.sampling) for r in watch.results] == [(UNSAFE, number), (SAFE, 1)]
    is_list = isinstance(found, list)
    for section, unguarded in zip(*((x if is_list else [x]) for x in (found, plain)), strict=True):
        assert not section[0].any() and unguarded[0].any()
        assert torch.equal(section[1], unguarded[1])


def test_interrupted(place):
    """The pipeline goes through its sections without a step, and comes back black."""
    if not lvd.x0.layouts.can_interrupt(place.tiny.pipe):
        pytest.skip("it cannot be interrupted")
    videos = len(place.kinds)
    guard, steps = guard_that_says(place, [1.0] * videos), []
    with guard.watch(place.tiny.pipe, "interrupt") as watch:
        found = run(place, callback_on_step_end=lambda *a: steps.append(a) or {})
    is_obeyed = type(place.tiny.pipe).__name__ != "AnyFlowFARPipeline"  # that does not look at it
    assert len(steps) == (1 if is_obeyed else STEPS * place.sections.samplings)
    assert not any(section.any() for section in found)
    assert [(r.verdict, r.sampling) for r in watch.results] == [(UNSAFE, 0)] * videos


def test_the_image_of_a_stopped_video_does_not_come_out(places):
    """FramePack puts the image in front of the sections, whatever is in them: a video that is
    stopped is decoded with it, and comes out black."""
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import (
        FramepackSamplingType,
    )

    place = places("HunyuanVideoFramepackPipeline")
    changes = {"sampling_type": FramepackSamplingType.VANILLA, "output_type": "pt"}
    plain = run(place, **changes)
    guard = guard_that_says(place, [0.0, 1.0], [0.0])
    with counted(place.tiny.pipe.vae, "decode") as decoded, guard.watch(place.tiny.pipe) as watch:
        found = run(place, **changes)
    first = decoded[0][0]  # latents of the image and of the first section
    assert first.shape[2] == 4 and first[1, :, 0].any() and not first[1, :, 1:].any()
    assert [r.verdict for r in watch.results] == [SAFE, UNSAFE]
    assert not found[1].any() and plain[1].any() and torch.equal(found[0], plain[0])


def test_free_noise_changes_no_step():
    """It looks at windows of the frames inside of each step: the call is one sampling."""
    tiny = tiny_pipelines.build("AnimateDiffPipeline")
    adapter = SimpleNamespace(config=SimpleNamespace(motion_max_seq_length=32))
    tiny.pipe.motion_adapter = adapter  # it is part of the tiny UNet, and asked for its length
    tiny.pipe.enable_free_noise(context_length=2, context_stride=1)

    def encode_prompt(prompt, **_):
        given = guided([(UNSAFE_KIND, row) for row in range(len(prompt))])
        return given["prompt_embeds"], given["negative_prompt_embeds"]

    tiny.pipe.encode_prompt = encode_prompt  # of texts, which it interpolates over the frames
    given = tiny.inputs([UNSAFE_KIND], steps=STEPS, prompt={0: "a", 2: "b"})
    one = torch.Generator().manual_seed(1)  # it takes no list of them
    given.update(prompt_embeds=None, negative_prompt_embeds=None, generator=one)
    recorder = lvd.X0Recorder(tiny.pipe.scheduler)
    with recorder:
        found = tiny.pipe(**given).frames
    assert recorder.x0.shape == (1, STEPS, *tiny.shape)
    assert (recorder.x0[:, -1] - found).abs().max() < 0.02 * found.std()


OTHER_LENGTHS = {
    "AnyFlowFARPipeline": ("16, 1, 4, 8", {"chunk_partition": [3, 1, 2]}),
    "LTX2DFRTemporalRefinePipeline": (
        "4, 3, 4, 8",
        {
            "num_frames": 5,
            "keyframe_positions": [2, 4],
            "latents": torch.zeros(2, 4, 3, 4, 8),
            "keyframes_latents": torch.zeros(2, 4, 2, 4, 8),
        },
    ),
}


@pytest.mark.parametrize("name", OTHER_LENGTHS)
def test_chunks_of_another_length_are_refused(places, name):
    """AnyFlow FAR as it is released begins with a chunk of one frame, and two keyframes make tiles
    of two lengths: detectors know one shape."""
    place, (shape, changes) = places(name), OTHER_LENGTHS[name]
    guard = guard_that_says(place, [0.0] * 2)
    with (
        pytest.raises(InputError, match=f"this sampling has .{shape}."),
        guard.watch(place.tiny.pipe),
    ):
        run(place, **changes)
