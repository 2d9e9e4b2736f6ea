"""Tiny pipelines around a transformer, one of a family, with random weights."""

from benchmarks.common.tiny_inputs import TOKENS, WIDTH, Tiny, guided, wide
from benchmarks.common.tiny_unets import sd_vae


def mochi():
    from diffusers import (
        AutoencoderKLMochi,
        FlowMatchEulerDiscreteScheduler,
        MochiPipeline,
        MochiTransformer3DModel,
    )

    transformer = MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=WIDTH,
        time_embed_dim=4,
        max_sequence_length=TOKENS,
    )
    vae = AutoencoderKLMochi(
        latent_channels=12,
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
    )
    pipe = MochiPipeline(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    )
    return Tiny(pipe, (12, 3, 4, 8), wide(13), lambda wanted: guided(wanted, mask=True))


def latte():
    from diffusers import DDIMScheduler, LattePipeline, LatteTransformer3DModel

    transformer = LatteTransformer3DModel(
        sample_size=4,
        video_length=3,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        caption_channels=WIDTH,
        cross_attention_dim=16,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    )
    pipe = LattePipeline(
        tokenizer=None,
        text_encoder=None,
        vae=sd_vae(),
        transformer=transformer,
        scheduler=DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )
    return Tiny(
        pipe,
        (4, 3, 4, 4),
        dict(
            video_length=3,
            height=16,
            width=16,
            guidance_scale=3.0,
            negative_prompt=None,
            clean_caption=False,
        ),
        guided,
    )
