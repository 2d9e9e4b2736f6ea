"""Layouts, recording and the guard on the video pipelines of diffusers, each with tiny random
components."""

import csv
import re
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from benchmarks.common import tiny_pipelines
from benchmarks.common.pipeline_world import NORMAL, STEPS, UNSAFE, make_world
from benchmarks.common.tiny_inputs import pictures
from benchmarks.guard import pipelines
from lvd import Guard, UnsafeVideoError, X0Recorder, record
from lvd.errors import InputError
from lvd.utils.config import ROOT
from lvd.x0.file import open_x0_file
from lvd.x0.layouts import KNOWN, FramesFirst, FramesInBatch, Layout, can_interrupt, find_layout
from lvd.x0.provenance import need_same_sampling
from lvd.x0.schedulers import describe_scheduler

FAMILIES = list(tiny_pipelines.FAMILIES)
tiny_of = cache(tiny_pipelines.build)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """(Tiny, its world): recorded, trained."""
    tiny = tiny_of(request.param)
    return tiny, make_world(tiny, tmp_path_factory.mktemp(request.param))


def run(tiny, kinds, **changes):
    """What the pipeline makes of prompts that no detector was trained on, [B, C, F, h, w] of the
    latents or pixels."""
    torch.manual_seed(100)
    frames = tiny.pipe(**tiny.inputs(kinds, first=100, steps=STEPS, **changes)).frames
    return frames if "output_type" in changes else tiny.clips(frames)


@contextmanager
def counted(owner, name):
    """A list to which each call of owner.name adds its first tensor."""
    calls, found = [], getattr(owner, name)

    def counting(*args, **kwargs):
        calls.append(
            next((a for a in [*args, *kwargs.values()] if isinstance(a, torch.Tensor)), None)
        )
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
    """Up to its scaling, a scale and a shift per channel; blanked videos are flat there and the
    others untouched."""
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
    given = given[:, :, -tiny.shape[1] :]  # a first frame may be the image's
    for ours, theirs in zip(clips.unbind(1), given.unbind(1), strict=True):
        scale = theirs.std() / ours.std()
        assert torch.allclose(
            theirs, (ours - ours.mean()) * scale + theirs.mean(), atol=1e-4 * float(theirs.std())
        )
    blank = layout.unpack(layout.blank(seen[0], [1]))
    assert torch.equal(blank[0], clips[0]) and not blank[1].any() and clips[1].any()


@pytest.mark.parametrize(
    ("name", "scheduler"), [(n, s) for n, found in tiny_pipelines.SCHEDULERS.items() for s in found]
)
def test_other_schedulers(name, scheduler):
    """The last x0 is the finished video (PNDM's last step mixes in earlier ones); the guard knows
    the scheduler again."""
    tiny = tiny_pipelines.build(name, scheduler)
    layout = find_layout(tiny.pipe)
    with layout.following(tiny.pipe), X0Recorder(tiny.pipe.scheduler, layout.unpack) as recorder:
        video = run(tiny, [UNSAFE, NORMAL])
    last = recorder.x0[:, -1]
    assert recorder.x0.shape == (2, STEPS, *tiny.shape)
    assert torch.allclose(
        last, video, atol=(1e-2 if scheduler == "PNDMScheduler" else 1e-5) * float(video.std())
    )
    recorded = describe_scheduler(tiny.pipe.scheduler)
    detector = SimpleNamespace(path="0.pth", about={"sampling": {"scheduler": recorded}})
    need_same_sampling([detector], {"scheduler": recorded})
    with pytest.raises(InputError, match="num_train_timesteps"):
        need_same_sampling([detector], {"scheduler": {**recorded, "num_train_timesteps": 500}})


@pytest.mark.slow
def test_recordings(family):
    """The last x0 is the finished video; timesteps and shape are the pipeline's."""
    tiny, world = family
    assert world.unsafe.tensor.shape == (16, STEPS, *tiny.shape) and world.unsafe.rows == list(
        range(16)
    )
    assert (
        len(world.unsafe.info[0]["timesteps"]) == STEPS
        and world.unsafe.meta["pipeline"] == type(tiny.pipe).__name__
    )
    torch.manual_seed(0)
    video = tiny.clips(tiny.pipe(**tiny.inputs([UNSAFE] * 8, steps=STEPS)).frames)
    assert torch.allclose(
        world.unsafe.tensor[:8, -1].float(), video, rtol=2e-3, atol=2e-3 * float(video.std())
    )


@pytest.mark.slow
def test_guard_stops_an_unsafe_video(family):
    tiny, world = family
    with counted(denoiser(tiny.pipe), "forward") as whole:
        run(tiny, [UNSAFE])
    guard = Guard(world.detectors, lambda_=0.5, eta=2, device="cpu")
    with (
        counted(tiny.pipe.vae, "decode") as decoded,
        counted(denoiser(tiny.pipe), "forward") as calls,
    ):
        with pytest.raises(UnsafeVideoError) as error, guard.watch(tiny.pipe) as watch:
            run(tiny, [UNSAFE], output_type="pt")
    (result,) = watch.results
    assert error.value.results == watch.results
    assert (result.verdict, result.step, result.votes) == ("unsafe", 0, [1])
    assert (result.steps_run, result.steps_saved) == (1, STEPS - 1) and result.detectors == [
        "1/0 (unsafe)"
    ]
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
    batch, alone = run(tiny, kinds), run(tiny, [NORMAL])
    with Guard(world.detectors, lambda_=0.6, eta=STEPS, device="cpu").watch(tiny.pipe) as watch:
        guarded = run(tiny, kinds)
    assert [r.verdict for r in watch.results] == ["safe", "unsafe", "safe"]
    assert [r.step for r in watch.results] == [1, 1, 1]
    assert not guarded[1].any() and batch[1].any()
    assert torch.equal(guarded[[0, 2]], batch[[0, 2]])
    assert torch.allclose(guarded[0], alone[0], rtol=1e-3, atol=1e-3 * float(alone.std()))


@pytest.mark.slow
def test_interrupt(family):
    """Pipelines that have it skip their remaining steps and come back; the others are refused
    before they start."""
    tiny, world = family
    guard = Guard(world.detectors, lambda_=0.5, eta=2, device="cpu")
    if not can_interrupt(tiny.pipe):
        with pytest.raises(InputError, match="cannot be interrupted"):
            guard.watch(tiny.pipe, on_unsafe="interrupt")
        return
    with counted(denoiser(tiny.pipe), "forward") as whole:
        run(tiny, [UNSAFE, UNSAFE])
    with (
        counted(denoiser(tiny.pipe), "forward") as calls,
        guard.watch(tiny.pipe, on_unsafe="interrupt") as watch,
    ):
        guarded = run(tiny, [UNSAFE, UNSAFE])
    assert [r.verdict for r in watch.results] == ["unsafe", "unsafe"] and not guarded.any()
    assert len(calls) * STEPS == len(whole)
    assert run(tiny, [UNSAFE]).any()  # the next call is as ever


def test_a_pipeline_that_is_not_known_is_refused_unless_its_layout_is_given(tmp_path):
    class OtherPipeline:
        scheduler = tiny_of("AnimateDiffPipeline").pipe.scheduler

    with pytest.raises(InputError, match="OtherPipeline.*layout=.*BCFHW, BFCHW"):
        find_layout(OtherPipeline())
    with pytest.raises(InputError, match="OtherPipeline"):
        record(OtherPipeline(), tmp_path / "pred_x0.pth", 1)
    with pytest.raises(InputError, match="'HWC'"):
        find_layout(OtherPipeline(), "HWC")
    x = torch.arange(2 * 3 * 4 * 5 * 6).view(2, 3, 4, 5, 6)
    assert torch.equal(find_layout(OtherPipeline(), "BCFHW").unpack(x), x)
    assert torch.equal(find_layout(OtherPipeline(), "BFCHW").unpack(x)[1, 2, 0], x[1, 0, 2])
    with pytest.raises(InputError, match="4 axes|5 axes"):
        find_layout(OtherPipeline(), "BCFHW").unpack(x[0])
    with pytest.raises(InputError, match="unknown number"):
        find_layout(OtherPipeline(), "(BF)CHW").unpack(x[0])
    frames = FramesInBatch(frames=2)
    assert find_layout(OtherPipeline(), frames) is frames and frames.unpack(
        x.flatten(0, 1)
    ).shape == (3, 4, 2, 5, 6)
    with pytest.raises(InputError, match="5 frames"):
        frames.unpack(torch.zeros(5, 1, 2, 2))


def test_a_class_that_derives_from_a_known_pipeline_has_its_layout():
    class OwnPipeline(type(tiny_of("StableVideoDiffusionPipeline").pipe)):
        """As people make them."""

    assert find_layout(OwnPipeline.__new__(OwnPipeline)).axes == "BFCHW"


@pytest.mark.parametrize(
    ("name", "axes", "other"),
    [
        ("AnimateDiffPipeline", "BCFHW", "BFCHW"),
        ("CogVideoXPipeline", "BFCHW", "BCFHW"),
        ("LTXPipeline", "B(FHW)C", "BCFHW"),
    ],
)
def test_axes_that_contradict_a_known_pipeline_are_refused(tmp_path, name, axes, other):
    """With as many channels as frames no shape would tell, and the detectors would see noise."""
    pipe = tiny_of(name).pipe
    assert type(find_layout(pipe, axes)) is KNOWN[name]
    with pytest.raises(
        InputError,
        match=f"layout '{other}': a {name} steps through {re.escape(axes)}; leave layout= away",
    ):
        record(pipe, tmp_path / "x0.pth", 1, layout=other)
    own = KNOWN["WanPipeline"]()
    assert find_layout(pipe, own) is own  # said on purpose


def test_tokens_of_larger_patches():
    """LTX-Video's own packing, with patches of 2 x 2 x 2."""
    pipe = tiny_of("LTXPipeline").pipe
    clips, layout = torch.randn(2, 3, 4, 6, 8), find_layout(pipe)
    layout.patch, layout.grid = (2, 2), (2, 3, 4)
    assert torch.equal(layout.unpack(pipe._pack_latents(clips, 2, 2)), clips)
    with pytest.raises(InputError, match="24 tokens a video, 2 x 3 x 5"):
        layout.grid = (2, 3, 5)
        layout.unpack(pipe._pack_latents(clips, 2, 2))


def test_a_layout_of_ones_own(tmp_path):
    """As in docs/pipelines.md; what is recorded is what the known layout gives."""

    class Tokens(Layout):
        axes = "B(FHW)C"

        def unpack(self, x):
            return x.unflatten(1, (3, 2, 3)).movedim(-1, 1)

    tiny = tiny_of("LTXPipeline")
    for name, layout in (("own", Tokens()), ("known", None)):
        with (
            record(tiny.pipe, tmp_path / name / "pred_x0.pth", 1, layout=layout) as recording,
            recording.row(0),
        ):
            run(tiny, [UNSAFE])
    own, known = (open_x0_file(tmp_path / name / "pred_x0.pth").tensor for name in ("own", "known"))
    assert torch.equal(own, known) and own.any()


def test_a_sampling_outside_of_a_row_is_refused(tmp_path):
    """It would be recorded nowhere: without a row, in one not entered, and between two."""
    tiny = tiny_of("AnimateDiffPipeline")
    kind, calls = type(tiny.pipe.scheduler), []
    hook = tiny.pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(InputError, match="none.pth: a sampling outside of .with recording.row"):
        with record(tiny.pipe, tmp_path / "none.pth", 1):
            run(tiny, [UNSAFE])
    hook.remove()
    assert len(calls) == 1  # at the first step, not when all was paid for
    with (
        pytest.raises(InputError, match="a sampling outside"),
        record(tiny.pipe, tmp_path / "none.pth", 1) as recording,
    ):
        recording.row(0)
        run(tiny, [UNSAFE])
    assert type(tiny.pipe.scheduler) is kind and not (tmp_path / "none.pth").exists()
    with (
        record(tiny.pipe, tmp_path / "a.pth", 2) as first,
        record(tiny.pipe, tmp_path / "b.pth", 1) as second,
    ):
        with first.row(0):
            run(tiny, [UNSAFE])
        with second.row(0):
            run(tiny, [NORMAL])
        with pytest.raises(InputError, match="a sampling outside"):
            run(tiny, [NORMAL])
        with first.row(1):
            run(tiny, [UNSAFE])
    assert type(tiny.pipe.scheduler) is kind and run(tiny, [NORMAL]).any()
    assert open_x0_file(tmp_path / "a.pth").rows == [0, 1] and open_x0_file(
        tmp_path / "b.pth"
    ).rows == [0]


def test_prepare_latents_is_put_back():
    tiny = tiny_of("LTXPipeline")
    own = tiny.pipe.prepare_latents
    tiny.pipe.prepare_latents = own  # someone else's, on the instance
    with pytest.raises(RuntimeError), find_layout(tiny.pipe).following(tiny.pipe):
        assert tiny.pipe.prepare_latents is not own
        raise RuntimeError
    assert vars(tiny.pipe).pop("prepare_latents") is own


def test_recording_goes_on_where_it_stopped_and_refuses_what_does_not_belong(tmp_path):
    tiny, path = tiny_of("WanPipeline"), tmp_path / "wan" / "pred_x0.pth"

    def recorded(rows, kinds=None, **changes):
        with record(tiny.pipe, path, 3, about={"prompts": "three"}, **changes) as recording:
            with recording.rows(rows, [{"prompt": f"number {row}", "seed": 0} for row in rows]):
                tiny.pipe(**tiny.inputs(kinds or [UNSAFE] * len(rows), first=rows[0]))
            return recording.whole

    with pytest.raises(InputError, match=r"2 row\(s\) named, the pipeline makes 1"):
        recorded([0, 1], kinds=[UNSAFE])
    with pytest.raises(InputError, match="row 3 is outside the 3 videos"):
        recorded([2, 3])
    with (
        record(tiny.pipe, path, 3) as recording,
        pytest.raises(InputError, match=r"facts of 1 video\(s\) for 2"),
    ):
        with recording.rows([0, 1], [{}]):
            pass
    assert not path.exists()
    assert recorded([0, 1]) == {0, 1}
    assert recorded([2]) == {0, 1, 2}
    found = open_x0_file(path)
    assert found.tensor.shape == (3, 3, *tiny.shape) and found.tensor.dtype == torch.float16
    assert (
        found.meta["scheduler"]["class"] == "UniPCMultistepScheduler"
        and found.meta["prompts"] == "three"
    )
    assert found.info[2] == {"prompt": "number 2", "seed": 0, "timesteps": [999, 857, 600]}
    assert (found.tensor[0] != found.tensor[1]).any() and found.tensor[2].any()
    for changes, words in (
        ({"dtype": "float32"}, "dtype"),
        ({"about": {"prompts": "others"}}, "meta.prompts"),
        ({"videos": 4}, "shape"),
        ({"layout": FramesFirst()}, "meta.layout"),
        ({"dtype": "double"}, "'double'"),
    ):
        with pytest.raises(InputError, match=words):  # before anything is sampled
            record(tiny.pipe, path, **{"videos": 3, "about": {"prompts": "three"}, **changes})
    with pytest.raises(InputError, match="meta.pipeline"):
        record(tiny_of("HunyuanVideoPipeline").pipe, path, 3, about={"prompts": "three"})


def test_an_interrupted_or_failed_call_is_not_recorded(tmp_path):
    tiny = tiny_of("WanPipeline")

    def stop(pipe, step, timestep, kwargs):
        pipe._interrupt = step == 1
        return {}

    def fail(pipe, step, timestep, kwargs):
        raise RuntimeError("as it may be")

    for callback, error, words in (
        (stop, InputError, "2 of 3 denoising steps"),
        (fail, RuntimeError, "as it may be"),
    ):
        with record(tiny.pipe, tmp_path / "pred_x0.pth", 1) as recording:
            with pytest.raises(error, match=words), recording.row(0):
                tiny.pipe(**tiny.inputs([UNSAFE], callback_on_step_end=callback))
            with pytest.raises(InputError, match="0 of 0 denoising steps"), recording.row(0):
                pass
        assert not recording.whole and not (tmp_path / "pred_x0.pth").exists()
    assert type(tiny.pipe.scheduler).__name__ == "UniPCMultistepScheduler" and "step" not in vars(
        tiny.pipe.scheduler
    )


def test_samplings_of_another_kind_are_refused(tmp_path):
    """Video to video begins in the middle of the schedule, FreeInit samples twice."""
    from diffusers import AnimateDiffVideoToVideoPipeline

    tiny, path = tiny_pipelines.build("AnimateDiffPipeline"), tmp_path / "pred_x0.pth"
    other = AnimateDiffVideoToVideoPipeline(**tiny.pipe.components)
    other.set_progress_bar_config(disable=True)
    given = {key: value for key, value in tiny.inputs([UNSAFE]).items() if key != "num_frames"}
    given["video"] = [pictures([(UNSAFE, row) for row in range(3)])]
    with record(other, path, 1, layout="BCFHW") as recording:
        with (
            pytest.raises(InputError, match="timestep 333, its scheduler's is 666"),
            recording.row(0),
        ):
            other(**given, strength=0.7)
        assert not path.exists()
        with recording.row(0):
            other(**given, strength=1.0)
    assert open_x0_file(path).tensor.shape == (1, 3, *tiny.shape)
    tiny.pipe.enable_free_init(num_iters=2)
    with (
        record(tiny.pipe, tmp_path / "free.pth", 1) as recording,
        pytest.raises(InputError, match="FreeInit"),
    ):
        with recording.row(0):
            tiny.pipe(**tiny.inputs([UNSAFE]))
    assert not (tmp_path / "free.pth").exists()


@pytest.mark.slow
def test_table_of_the_pipelines(tmp_path, capsys):
    """The benchmark writes its table into the page; the page in docs has every known pipeline, and
    all did well."""
    page, out = tmp_path / "page.md", tmp_path / "pipelines.csv"
    page.write_text(f"before\n{pipelines.BEGIN}\nold\n{pipelines.END}\nafter\n")
    assert pipelines.main(["--only", "LTXPipeline", "--out", str(out), "--page", str(page)]) == 0
    (row,) = csv.DictReader(out.read_text().splitlines())
    shown = row["pipeline"], row["scheduler"], row["as_it_should"]
    assert shown == ("LTXPipeline", "FlowMatchEulerDiscreteScheduler", "True")
    assert (
        "old" in page.read_text() and "8 of 8, after step 2 of 3" in capsys.readouterr().out
    )  # of some alone: not written
    pipelines.put_table(page, "new")
    assert page.read_text() == f"before\n{pipelines.BEGIN}\nnew\n{pipelines.END}\nafter\n"
    assert pipelines.main(["--only", "NoPipeline"]) == 2 and "NoPipeline" in capsys.readouterr().err

    shown = (ROOT / "docs/pipelines.md").read_text()
    table = shown.split(pipelines.BEGIN)[1].split(pipelines.END)[0]
    rows = list(csv.DictReader((ROOT / "docs/results/pipelines.csv").read_text().splitlines()))
    assert {row["pipeline"] for row in rows} == set(KNOWN) == set(FAMILIES)
    assert all(row["as_it_should"] == "True" for row in rows)
    assert all(f"| `{row['pipeline']}` | `{row['scheduler']}` |" in table for row in rows)
