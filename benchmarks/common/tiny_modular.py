"""Tiny modular pipelines, which are put together of blocks, without their text encoders.

They return the part of their state that `output` names, and always decode.
"""

from dataclasses import replace

from benchmarks.common.tiny_hunyuan import hunyuan_15
from benchmarks.common.tiny_inputs import PIXELS, Tiny, guided
from benchmarks.common.tiny_transformers import wan_parts


def wan_modular():
    from diffusers.modular_pipelines import WanBlocks

    pipe = without(WanBlocks(), "text_encoder")
    pipe.update_components(**wan_parts(in_channels=16))
    fixed = dict(num_frames=9, height=PIXELS, width=2 * PIXELS, output="latents")

    def prompts(wanted):
        return {**guided(wanted), "output_type": "pt"}  # of what it decodes

    return Tiny(pipe, (16, 3, 4, 8), fixed, prompts, videos=lambda output: output)


def hunyuan_15_modular():
    from diffusers.modular_pipelines.hunyuan_video1_5.modular_blocks_hunyuan_video1_5 import (
        HunyuanVideo15AutoBlocks,
    )

    tiny = hunyuan_15()
    pipe = without(HunyuanVideo15AutoBlocks(), "text_encoder")
    names = "transformer", "vae", "scheduler", "guider"
    parts = {name: getattr(tiny.pipe, name) for name in names}
    pipe.update_components(**parts)
    fixed = {**tiny.fixed, "output": "latents"}

    def prompts(wanted):
        return {**tiny.prompts(wanted), "output_type": "pt"}

    return replace(tiny, pipe=pipe, fixed=fixed, prompts=prompts, videos=lambda output: output)


def without(blocks, *names):
    """The pipeline of these blocks without some of them."""
    for name in names:
        blocks.sub_blocks.pop(name)
    return blocks.init_pipeline()
