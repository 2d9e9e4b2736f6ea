"""Tiny pipelines of the CogVideoX family beside CogVideoX itself, with random weights."""

from benchmarks.common.tiny_inputs import TOKENS, WIDTH, Tiny, guided, images, pictures, wide
from benchmarks.common.tiny_transformers import cogvideox_parts

SHAPE = 4, 3, 4, 8  # C, F, h, w
FRAMES = 9
CALL = wide(FRAMES, guidance_scale=6.0)  # arguments of a call


def fun_control():
    """As many frames as the video that it follows."""
    from diffusers import CogVideoXFunControlPipeline

    pipe = CogVideoXFunControlPipeline(
        tokenizer=None, text_encoder=None, **cogvideox_parts(in_channels=8)
    )

    def prompts(wanted):
        videos = [FRAMES * [picture] for picture in pictures(wanted)]
        return {**guided(wanted), "control_video": videos}

    fixed = {key: value for key, value in CALL.items() if key != "num_frames"}
    return Tiny(pipe, SHAPE, fixed, prompts, lambda frames: frames.transpose(1, 2))


def consisid():
    """Without the network that reads a face."""
    from diffusers import ConsisIDTransformer3DModel
    from diffusers.pipelines.consisid.pipeline_consisid import ConsisIDPipeline  # without OpenCV

    transformer = ConsisIDTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=WIDTH,
        num_layers=1,
        sample_width=8,
        sample_height=4,
        sample_frames=FRAMES,
        max_text_seq_length=TOKENS,
        use_rotary_positional_embeddings=True,
    )
    parts = {**cogvideox_parts(in_channels=8), "transformer": transformer}
    pipe = ConsisIDPipeline(tokenizer=None, text_encoder=None, **parts)

    def prompts(wanted):
        return {**guided(wanted), "image": images(wanted).repeat(1, 1, 1, 2)}

    return Tiny(pipe, SHAPE, CALL, prompts, lambda frames: frames.transpose(1, 2))
