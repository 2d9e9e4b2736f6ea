"""Tiny pipelines of the HunyuanVideo family, with random weights."""

import torch

from benchmarks.common.tiny_inputs import (
    PIXELS,
    TOKENS,
    WIDTH,
    Tiny,
    embeddings,
    images,
    pictures,
    wide,
)

SHAPE = 4, 3, 4, 8  # C, F, h, w
CHANNELS = SHAPE[0]
CALL = wide(9, guidance_scale=6.0)  # arguments of a call


def hunyuan():
    from diffusers import HunyuanVideoPipeline

    return Tiny(HunyuanVideoPipeline(**parts(in_channels=CHANNELS)), SHAPE, CALL, prompts)


def hunyuan_image(condition="token_replace"):
    """The scheduler steps all frames but the first, which is the image's. With the older condition,
    `latent_concat`, it steps them all, and the first is left away in the end."""
    from diffusers import HunyuanVideoImageToVideoPipeline

    is_old = condition == "latent_concat"
    pipe = HunyuanVideoImageToVideoPipeline(
        image_processor=None,
        **parts(
            in_channels=2 * CHANNELS + 1 if is_old else CHANNELS, image_condition_type=condition
        ),
    )
    return Tiny(
        pipe,
        SHAPE if is_old else (CHANNELS, 2, *SHAPE[2:]),
        {**CALL, "true_cfg_scale": 1.0},
        lambda wanted: {**prompts(wanted), "image": image_of_size(wanted)},
        lambda frames: frames if is_old else frames[:, :, 1:],
    )


def skyreels_image():
    from diffusers import HunyuanSkyreelsImageToVideoPipeline

    pipe = HunyuanSkyreelsImageToVideoPipeline(**parts(in_channels=2 * CHANNELS))
    return Tiny(
        pipe,
        SHAPE,
        {**CALL, "guidance_scale": 1.0},
        lambda wanted: {**prompts(wanted), "image": image_of_size(wanted)},
    )


def hunyuan_15():
    from diffusers import HunyuanVideo15Pipeline

    pipe = HunyuanVideo15Pipeline(**parts_of_15("t2v"))
    pipe.vision_num_semantic_tokens = TOKENS
    return Tiny(pipe, SHAPE, dict(height=16, width=32, num_frames=9), prompts_of_15)


def hunyuan_15_image():
    """One image for all videos of a call, which decides how large they are."""
    from diffusers import HunyuanVideo15ImageToVideoPipeline
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    encoder = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=PIXELS,
            patch_size=PIXELS // 2,
        )
    )
    pipe = HunyuanVideo15ImageToVideoPipeline(
        image_encoder=encoder,
        feature_extractor=SiglipImageProcessor(size=dict(height=PIXELS, width=PIXELS)),
        **parts_of_15("i2v"),
    )
    return Tiny(
        pipe,
        (CHANNELS, 3, 4, 4),
        dict(num_frames=9),
        lambda wanted: {**prompts_of_15(wanted), "image": pictures(wanted)[0]},
    )


def prompts(wanted):
    return {
        "prompt_embeds": embeddings(wanted),
        "pooled_prompt_embeds": embeddings(wanted, 1, 8)[:, 0],
        "prompt_attention_mask": torch.ones(len(wanted), TOKENS),
    }


def prompts_of_15(wanted):
    """Prompts of two encoders, and empty negative ones."""
    given = {}
    for end in ("", "_2"):
        mask = torch.ones(len(wanted), TOKENS)
        given |= {f"prompt_embeds{end}": embeddings(wanted), f"prompt_embeds_mask{end}": mask}
        none = torch.zeros(len(wanted), TOKENS, WIDTH)
        given |= {f"negative_prompt_embeds{end}": none, f"negative_prompt_embeds_mask{end}": mask}
    return given


def image_of_size(wanted):
    """[B, 3, H, W] of the size of the videos."""
    return images(wanted).repeat(1, 1, 1, 2)


def parts(in_channels, **transformer):
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoTransformer3DModel,
    )

    return {
        "text_encoder": None,
        "tokenizer": None,
        "transformer": HunyuanVideoTransformer3DModel(
            in_channels=in_channels,
            out_channels=CHANNELS,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=1,
            text_embed_dim=WIDTH,
            pooled_projection_dim=8,
            rope_axes_dim=(2, 4, 4),
            **transformer,
        ),
        "vae": AutoencoderKLHunyuanVideo(
            latent_channels=CHANNELS,
            block_out_channels=(8,) * 4,
            layers_per_block=1,
            norm_num_groups=4,
            mid_block_add_attention=True,
        ),
        "text_encoder_2": None,
        "tokenizer_2": None,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
    }


def parts_of_15(task):
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15Transformer3DModel,
    )
    from diffusers.guiders import ClassifierFreeGuidance

    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=CHANNELS,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    vae.enable_slicing()  # several videos at once are too many for it
    return {
        "transformer": HunyuanVideo15Transformer3DModel(
            in_channels=2 * CHANNELS + 1,
            out_channels=CHANNELS,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_refiner_layers=1,
            mlp_ratio=2.0,
            text_embed_dim=WIDTH,
            text_embed_2_dim=WIDTH,
            image_embed_dim=12,
            rope_axes_dim=(2, 2, 4),
            target_size=16,
            task_type=task,
        ),
        "vae": vae,
        "text_encoder": None,
        "tokenizer": None,
        "text_encoder_2": None,
        "tokenizer_2": None,
        "guider": ClassifierFreeGuidance(guidance_scale=100.0),  # else prompts hardly matter
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
    }
