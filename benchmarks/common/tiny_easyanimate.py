"""Tiny pipelines of EasyAnimate and Allegro, with random weights."""

from functools import partial

import torch

from benchmarks.common.tiny_inputs import WIDTH, Tiny, guided, images, wide

SHAPE = 4, 3, 4, 8  # C, F, h, w
CHANNELS = SHAPE[0]
FRAMES = 9


def allegro():
    from diffusers import (
        AllegroPipeline,
        AllegroTransformer3DModel,
        AutoencoderKLAllegro,
        EulerAncestralDiscreteScheduler,
    )

    transformer = AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=1,
        cross_attention_dim=24,
        sample_height=4,
        sample_width=8,
        sample_frames=3,
        caption_channels=WIDTH,
    )
    vae = AutoencoderKLAllegro(
        block_out_channels=(8,) * 4, latent_channels=CHANNELS, layers_per_block=1, norm_num_groups=2
    )
    vae.enable_tiling()  # it does not decode otherwise, and no more than one video at once
    vae.enable_slicing()
    vae.kernel, vae.stride = (8, 32, 32), (4, 16, 16)
    pipe = AllegroPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae,
        transformer=transformer,
        scheduler=EulerAncestralDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        ),
    )
    fixed = {**wide(FRAMES), "negative_prompt": None}
    return Tiny(pipe, SHAPE, fixed, partial(guided, mask=True))


def easyanimate():
    from diffusers import EasyAnimatePipeline

    pipe = EasyAnimatePipeline(**easyanimate_parts(in_channels=CHANNELS))
    call = wide(FRAMES, guidance_scale=20.0)  # else prompts hardly matter
    return Tiny(pipe, SHAPE, call, partial(guided, mask=True))


def easyanimate_inpaint():
    """The video that is painted into lies beside the latents, with its mask."""
    from diffusers import EasyAnimateInpaintPipeline

    pipe = EasyAnimateInpaintPipeline(**easyanimate_parts(in_channels=3 * CHANNELS))

    def prompts(wanted):
        video = frames_of(wanted)
        mask = torch.zeros_like(video[:, :1])
        mask[..., video.shape[-1] // 2 :] = 255
        return {**guided(wanted, mask=True), "video": video, "mask_video": mask}

    call = wide(FRAMES, guidance_scale=20.0)  # else prompts hardly matter
    return Tiny(pipe, SHAPE, {**call, "strength": 1.0}, prompts)


def frames_of(wanted):
    """[B, 3, F, H, W] in [0, 1]: each image for the whole of a video."""
    return images(wanted).unsqueeze(2).repeat(1, 1, FRAMES, 1, 2)


def easyanimate_parts(in_channels):
    from diffusers import (
        AutoencoderKLMagvit,
        EasyAnimateTransformer3DModel,
        FlowMatchEulerDiscreteScheduler,
    )

    return {
        "vae": AutoencoderKLMagvit(
            latent_channels=CHANNELS,
            block_out_channels=[8] * 4,
            layers_per_block=1,
            norm_num_groups=2,
            spatial_group_norm=False,
        ),
        "text_encoder": None,
        "tokenizer": None,
        "transformer": EasyAnimateTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=in_channels,
            out_channels=CHANNELS,
            patch_size=2,
            sample_width=8,
            sample_height=4,
            num_layers=1,
            mmdit_layers=1,
            time_embed_dim=8,
            text_embed_dim=WIDTH,
            resize_inpaint_mask_directly=False,
            add_noise_in_inpaint_model=False,  # which takes no list of generators
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }
