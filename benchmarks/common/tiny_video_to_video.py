"""Tiny pipelines that make a video of another one: they begin in the middle of the schedule.

A video's kind is told by the video that it is made of, bright or dark.
"""

from dataclasses import replace
from inspect import signature

import torch
from PIL import Image

from benchmarks.common.tiny_inputs import PIXELS, Tiny, guided, own, wide
from benchmarks.common.tiny_transformers import cogvideox, wan
from benchmarks.common.tiny_unets import animatediff, modelscope

STRENGTH = 0.7  # of 3 steps the last 2 are taken


def animatediff_video():
    from diffusers import AnimateDiffVideoToVideoPipeline

    return of_video(AnimateDiffVideoToVideoPipeline, animatediff(), frames=3, height=16, width=32)


def animatediff_video_controlnet():
    """Alone: diffusers compares the number of images of the control with that of the videos."""
    from diffusers import AnimateDiffVideoToVideoControlNetPipeline, ControlNetModel

    controlnet = ControlNetModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        conditioning_embedding_out_channels=(8, 8, 8),
        attention_head_dim=4,
    )
    (frames,) = videos([(1, 0)], 3, 16, 32)
    tiny = of_video(
        AnimateDiffVideoToVideoControlNetPipeline,
        animatediff(),
        frames=3,
        height=16,
        width=32,
        controlnet=controlnet,
        conditioning_frames=frames,
    )

    def prompts(wanted):
        given = tiny.prompts(wanted)
        return {**given, "video": given["video"][0]}

    return replace(tiny, prompts=prompts, most=1)


def modelscope_video():
    """Alone: diffusers adds noise of several videos with too few timesteps."""
    from diffusers import VideoToVideoSDPipeline

    tiny = of_video(VideoToVideoSDPipeline, modelscope(), frames=3, height=16, width=32)
    del tiny.fixed["height"], tiny.fixed["width"]  # those of the video

    def prompts(wanted):  # of a list of generators it would encode one frame for each
        return {**tiny.prompts(wanted), "generator": torch.Generator().manual_seed(0)}

    return replace(tiny, prompts=prompts, most=1)


def cogvideox_video():
    from diffusers import CogVideoXVideoToVideoPipeline

    return of_video(CogVideoXVideoToVideoPipeline, cogvideox(), frames=9)


def wan_video():
    from diffusers import WanVideoToVideoPipeline

    return of_video(WanVideoToVideoPipeline, wan(), frames=9)


def of_video(pipeline, tiny, frames, height=PIXELS, width=2 * PIXELS, controlnet=None, **fixed):
    """The Tiny of a pipeline, with the components of the one that makes videos of text."""
    parts = {**tiny.pipe.components, "controlnet": controlnet}
    parts = {name: parts[name] for name in signature(pipeline).parameters if name in parts}
    given = {**wide(frames), "strength": STRENGTH, **fixed, "height": height, "width": width}
    del given["num_frames"]

    def prompts(wanted):
        return {**guided(wanted), "video": videos(wanted, frames, height, width)}

    return Tiny(pipeline(**parts), tiny.shape, given, prompts, tiny.clips)


def videos(wanted, frames, height, width):
    """[B lists of F PIL images], bright or dark, with a little noise of the row's own."""
    found = []
    for kind, row in wanted:
        pixels = (0.5 + 0.4 * kind + 0.05 * own(row, frames, height, width, 3)).clamp(0, 1)
        found.append([Image.fromarray(frame.numpy()) for frame in (255 * pixels).byte()])
    return found
