"""How pipelines lay out their latents: known ones, given ones, and what is refused."""

import re

import pytest
import torch

from lvd import record
from lvd.errors import InputError
from lvd.x0.layouts import KNOWN, FramesInBatch, find_layout
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


def test_prepare_latents_is_put_back():
    tiny = tiny_of("LTXPipeline")
    own = tiny.pipe.prepare_latents
    tiny.pipe.prepare_latents = own  # someone else's, on the instance
    with pytest.raises(RuntimeError), find_layout(tiny.pipe).following(tiny.pipe):
        assert tiny.pipe.prepare_latents is not own
        raise RuntimeError
    assert vars(tiny.pipe).pop("prepare_latents") is own
