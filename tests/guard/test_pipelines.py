"""Layouts, recording and the guard on the video pipelines of diffusers, each with tiny random
components."""

import csv
import re
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from benchmarks.common import tiny_pipelines
from benchmarks.common.pipeline_world import NORMAL, STEPS, UNSAFE, make_world
from benchmarks.common.tiny_inputs import pictures
from benchmarks.common.video_classes import video_classes
from benchmarks.guard import pipelines
from lvd import Guard, UnsafeVideoError, X0Recorder, record
from lvd.errors import InputError
from lvd.utils.config import ROOT
from lvd.x0.file import open_x0_file
from lvd.x0.layouts import KNOWN, can_interrupt, find_layout
from lvd.x0.provenance import need_same_meaning
from lvd.x0.refused import REFUSED
from lvd.x0.schedulers import describe_scheduler
from tests.worlds.pipeline_world import run, tiny_of

FAMILIES = list(tiny_pipelines.FAMILIES)
PAGES = "pipelines.md", "pipelines_table.md"
# Detectors are trained for these; test_known_pipelines.py has stand-ins for all.
TRAINED = [
    "AnimateDiffPipeline",
    "TextToVideoSDPipeline",
    "StableVideoDiffusionPipeline",
    "I2VGenXLPipeline",
    "CogVideoXPipeline",
    "CogVideoXImageToVideoPipeline",
    "LTXPipeline",
    "LTXImageToVideoPipeline",
    "WanPipeline",
    "WanImageToVideoPipeline",
    "HunyuanVideoPipeline",
    "MochiPipeline",
    "LattePipeline",
]


@pytest.fixture(scope="module", params=TRAINED)
def family(request, tmp_path_factory):
    """(Tiny, its world): recorded, trained."""
    tiny = tiny_of(request.param)
    return tiny, make_world(tiny, tmp_path_factory.mktemp(request.param))


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
    kinds = [1, -1][: tiny.most]
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
            tiny.pipe(**tiny.inputs(kinds, seeds=[1, 2][: tiny.most], output_type="pt"))
    finally:
        del tiny.pipe.scheduler.step
    assert "prepare_latents" not in vars(tiny.pipe)
    clips = layout.unpack(seen[0])
    videos = len(kinds)
    assert tuple(clips.shape) == (videos, *tiny.shape) and layout.videos(seen[0]) == videos
    given = torch.cat(decoded)
    if given.dim() == 4:  # an image model's: frame after frame
        given = given.unflatten(0, (videos, -1)).transpose(1, 2)
    given = given[:, :, -tiny.shape[1] :]  # a first frame may be the image's
    for ours, theirs in zip(clips.unbind(1), given.unbind(1), strict=True):
        scale = theirs.std() / ours.std()
        assert torch.allclose(
            theirs, (ours - ours.mean()) * scale + theirs.mean(), atol=1e-4 * float(theirs.std())
        )
    blank = layout.unpack(layout.blank(seen[0], [videos - 1]))
    assert torch.equal(blank[:-1], clips[:-1]) and not blank[-1].any() and clips[-1].any()


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
    need_same_meaning([detector], {"scheduler": recorded})
    with pytest.raises(InputError, match="num_train_timesteps"):
        need_same_meaning([detector], {"scheduler": {**recorded, "num_train_timesteps": 500}})


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


def test_video_to_video_is_recorded_from_where_it_begins(tmp_path):
    from diffusers import AnimateDiffVideoToVideoPipeline

    tiny, path = tiny_pipelines.build("AnimateDiffPipeline"), tmp_path / "pred_x0.pth"
    other = AnimateDiffVideoToVideoPipeline(**tiny.pipe.components)
    other.set_progress_bar_config(disable=True)
    given = {key: value for key, value in tiny.inputs([UNSAFE]).items() if key != "num_frames"}
    given["video"] = [pictures([(UNSAFE, row) for row in range(3)])]
    with record(other, path, 1, layout="BCFHW") as recording, recording.row(0):
        other(**given, strength=0.7)
    found = open_x0_file(path)
    assert found.tensor.shape == (1, 2, *tiny.shape) and found.info[0]["timesteps"] == [333, 0]
    bars = other.scheduler.alphas_cumprod[[333, 0]]
    assert found.info[0]["levels"] == pytest.approx((bars / (1 - bars)).log().tolist(), rel=1e-4)
    whole = tmp_path / "whole.pth"
    with record(other, whole, 1, layout="BCFHW") as recording, recording.row(0):
        other(**given, strength=1.0)
    assert open_x0_file(whole).tensor.shape == (1, 3, *tiny.shape)


def test_several_samplings_in_one_call_have_a_row_each(tmp_path):
    """FreeInit samples the same video again and again, from better noise."""
    tiny, path = tiny_pipelines.build("AnimateDiffPipeline"), tmp_path / "pred_x0.pth"
    tiny.pipe.enable_free_init(num_iters=2)
    with record(tiny.pipe, path, 4) as recording:
        with pytest.raises(
            InputError, match="1 row named, .* 1 video at once, in each of its 2 sam"
        ):
            with recording.row(0):
                tiny.pipe(**tiny.inputs([UNSAFE]))
        assert not path.exists()
        with recording.rows([0, 1, 2, 3]):
            tiny.pipe(**tiny.inputs([UNSAFE, UNSAFE]))
    found = open_x0_file(path)
    assert [found.info[row]["sampling"] for row in range(4)] == [0, 0, 1, 1]
    first, second = found.tensor[:2], found.tensor[2:]
    assert (first != second).any()
    tiny.pipe.disable_free_init()
    alone = tmp_path / "alone.pth"
    with record(tiny.pipe, alone, 2) as recording, recording.rows([0, 1]):
        tiny.pipe(**tiny.inputs([UNSAFE, UNSAFE]))
    assert torch.equal(open_x0_file(alone).tensor, first)  # FreeInit begins as without it


@pytest.mark.slow
def test_table_of_the_pipelines(tmp_path, capsys):
    """The benchmark writes its table into the page."""
    page, out = tmp_path / "page.md", tmp_path / "pipelines.csv"
    page.write_text(f"before\n{pipelines.BEGIN}\nold\n{pipelines.END}\nafter\n")
    assert pipelines.main(["--only", "LTXPipeline", "--out", str(out), "--page", str(page)]) == 0
    (row,) = csv.DictReader(out.read_text().splitlines())
    shown = row["pipeline"], row["scheduler"], row["as_it_should"]
    assert shown == ("LTXPipeline", "FlowMatchEulerDiscreteScheduler", "True")
    assert "old" not in page.read_text() and "8 of 8, after step 2 of 3" in capsys.readouterr().out
    pipelines.put_table(page, "new")
    assert page.read_text() == f"before\n{pipelines.BEGIN}\nnew\n{pipelines.END}\nafter\n"
    assert pipelines.main(["--only", "NoPipeline"]) == 2 and "NoPipeline" in capsys.readouterr().err


def test_pages_of_the_pipelines():
    """Every known class was tried and did well, every class of diffusers is on the page, and the
    number of known ones is told as it is."""
    page, table = ((ROOT / "docs" / name).read_text() for name in PAGES)
    table = table.split(pipelines.BEGIN)[1].split(pipelines.END)[0]
    rows = list(csv.DictReader((ROOT / "docs/results/pipelines.csv").read_text().splitlines()))
    tried = {row["pipeline"] for row in rows}
    assert tried == set(tiny_pipelines.ALL) == set(KNOWN)
    assert all(f"| `{row['pipeline']}` | `{row['scheduler']}` |" in table for row in rows)
    assert all(f"| `{name}` | {reason} |" in table for name, reason in REFUSED.items())
    assert all(row["as_it_should"] == "True" for row in rows)
    words = page.replace("|", ",").replace(" ", "").replace("\n", ",").split(",")
    assert not [name for name in KNOWN if name.removesuffix("Pipeline") not in words]
    classes = video_classes()
    count = f"{len(set(classes) & set(KNOWN))} of the {len(classes)} "
    for name in ("README.md", "docs/guard.md", "docs/pipelines.md"):
        told = re.findall(r"\d+ of the 73 ", (ROOT / name).read_text())
        assert told and set(told) == {count}
