"""A tiny modular pipeline, which is put together of blocks: Wan without its text encoder."""

from benchmarks.common.tiny_inputs import PIXELS, Tiny, guided
from benchmarks.common.tiny_transformers import wan_parts


def wan_modular():
    """It returns the part of its state that `output` names."""
    from diffusers.modular_pipelines import WanBlocks

    blocks = WanBlocks()
    blocks.sub_blocks.pop("text_encoder")
    pipe = blocks.init_pipeline()
    pipe.update_components(**wan_parts(in_channels=16))
    fixed = dict(num_frames=9, height=PIXELS, width=2 * PIXELS, output="latents")

    def prompts(wanted):
        return {**guided(wanted), "output_type": "pt"}  # of what it decodes: always

    return Tiny(pipe, (16, 3, 4, 8), fixed, prompts, videos=lambda output: output)
