"""How pipelines lay out their latents: known ones, given ones, and what is refused."""

import re

import pytest
import torch

from benchmarks.common.video_classes import video_classes
from lvd import record
from lvd.errors import InputError
from lvd.x0.layouts import BY_AXES, KNOWN, FramesInBatch, find_layout
from lvd.x0.refused import REFUSED
from tests.worlds.pipeline_world import tiny_of


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
    assert torch.equal(find_layout(OtherPipeline(), "BFHWC").unpack(x)[1, 5, 2], x[1, 2, :, :, 5])
    with pytest.raises(InputError, match="4 axes|5 axes"):
        find_layout(OtherPipeline(), "BCFHW").unpack(x[0])
    with pytest.raises(InputError, match="does not tell how many latent frames"):
        find_layout(OtherPipeline(), "(BF)CHW").unpack(x[0])
    frames = FramesInBatch(frames=2)
    assert find_layout(OtherPipeline(), frames) is frames and frames.unpack(
        x.flatten(0, 1)
    ).shape == (3, 4, 2, 5, 6)
    with pytest.raises(InputError, match="5 frames cannot be videos of 2 frames"):
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


def test_prepare_latents_is_put_back():
    tiny = tiny_of("LTXPipeline")
    own = tiny.pipe.prepare_latents
    tiny.pipe.prepare_latents = own  # someone else's, on the instance
    with pytest.raises(RuntimeError), find_layout(tiny.pipe).following(tiny.pipe):
        assert tiny.pipe.prepare_latents is not own
        raise RuntimeError
    assert vars(tiny.pipe).pop("prepare_latents") is own


def test_every_video_class_of_diffusers_is_known_or_refused_with_a_reason():
    classes = video_classes()
    told = [name for name in (*KNOWN, *REFUSED) if "Modular" not in name]  # put together of blocks
    assert sorted(told) == classes and len(classes) >= 73
    for name, reason in REFUSED.items():
        pipe = type(name, (), {})()
        with pytest.raises(InputError) as error:
            find_layout(pipe)
        message = str(error.value)
        assert reason in message and message.startswith(name) and len(message) < 300


class Own:
    """A pipeline that nobody knows, whose latents have one of the orders of axes."""

    vae_scale_factor_spatial, vae_scale_factor_temporal = 8, 4

    def __init__(self, axes):
        self.axes = axes

    def prepare_latents(self, batch_size, num_channels_latents, height, width, num_frames):
        sizes = dict(B=batch_size, C=num_channels_latents, H=height // 8, W=width // 8)
        sizes["F"] = (num_frames - 1) // 4 + 1
        return torch.zeros([sizes[axis] for axis in self.axes])


@pytest.mark.parametrize("given", [axes for axes in BY_AXES if "(" not in axes])
@pytest.mark.parametrize("true", [axes for axes in BY_AXES if "(" not in axes])
def test_given_axes_are_held_against_what_the_pipeline_prepares(given, true):
    pipe = Own(true)
    layout = find_layout(pipe, given)
    with layout.following(pipe):
        x = pipe.prepare_latents(2, 16, 32, 64, num_frames=9)
    if given == true:
        assert tuple(layout.unpack(x).shape) == (2, 16, 3, 4, 8)
        return
    with pytest.raises(InputError) as error:
        layout.unpack(x)
    sizes = "B 2, C 16, F 3, H 4, W 8"
    assert str(error.value) == (
        f"layout '{given}': Own steps through latents of shape {list(x.shape)}, and prepares them "
        f"for {sizes}, which is {true}"
    )
    with layout.following(pipe):  # as many channels as frames, of a square: nobody can tell
        layout.unpack(pipe.prepare_latents(2, 3, 24, 24, num_frames=9))


def test_frames_in_the_batch_that_somebody_gives():
    """They win over what the pipeline prepares, whatever axes that has."""
    pipe, layout = Own("BCFHW"), FramesInBatch(frames=3)
    with layout.following(pipe):
        pipe.prepare_latents(2, 16, 32, 64, num_frames=5)
    assert layout.unpack(torch.zeros(6, 16, 4, 8)).shape == (2, 16, 3, 4, 8)
    with pytest.raises(InputError, match="1 frame cannot be videos of 3 frames"):
        layout.unpack(torch.zeros(1, 16, 4, 8))


def test_chronoedit_may_not_leave_frames_away():
    pipe, layout = Own("BCFHW"), KNOWN["ChronoEditPipeline"]()
    with layout.following(pipe):
        x = pipe.prepare_latents(1, 16, 32, 64, num_frames=29)
    assert layout.unpack(x) is x
    with pytest.raises(InputError, match="8 latent frames .* 2 later .enable_temporal_reasoning"):
        layout.unpack(x[:, :, [0, -1]])
