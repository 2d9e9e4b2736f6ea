"""Tiny pipelines around a transformer, two of a family, with random weights."""

from functools import partial

from benchmarks.common.tiny_inputs import TOKENS, WIDTH, Tiny, guided, guided_images, images, wide


def cogvideox():
    from diffusers import CogVideoXPipeline

    pipe = CogVideoXPipeline(tokenizer=None, text_encoder=None, **cogvideox_parts(in_channels=4))
    return Tiny(
        pipe,
        (4, 3, 4, 8),
        wide(9, guidance_scale=6.0),
        guided,
        lambda frames: frames.transpose(1, 2),
    )


def cogvideox_image():
    from diffusers import CogVideoXImageToVideoPipeline

    pipe = CogVideoXImageToVideoPipeline(
        tokenizer=None, text_encoder=None, **cogvideox_parts(in_channels=8)
    )
    return Tiny(
        pipe,
        (4, 3, 4, 8),
        wide(9, guidance_scale=6.0),
        guided_images,
        lambda frames: frames.transpose(1, 2),
    )


def cogvideox_parts(in_channels):
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXTransformer3DModel,
    )

    return {
        "transformer": CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=in_channels,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=WIDTH,
            num_layers=2,
            sample_width=2,
            sample_height=2,
            sample_frames=9,
            patch_size=2,
            temporal_compression_ratio=4,
            max_text_seq_length=TOKENS,
        ),
        "vae": AutoencoderKLCogVideoX(
            block_out_channels=(8,) * 4,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
        ),
        "scheduler": CogVideoXDDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            clip_sample=False,
            rescale_betas_zero_snr=True,
            snr_shift_scale=3.0,
            set_alpha_to_one=True,
            timestep_spacing="trailing",
        ),
    }


LTX = dict(num_frames=17, height=64, width=96, guidance_scale=3.0)  # arguments of a call
LTX_LATENTS = (3, 2, 3)  # F, h, w


def ltx():
    from diffusers import LTXPipeline

    pipe = LTXPipeline(text_encoder=None, tokenizer=None, **ltx_parts())

    def clips(frames):
        return pipe._unpack_latents(frames, *LTX_LATENTS)

    return Tiny(pipe, (8, 3, 2, 3), LTX, partial(guided, mask=True), clips)


def ltx_image():
    """The scheduler steps all frames but the first, which is the image's."""
    from diffusers import LTXImageToVideoPipeline as Pipeline

    pipe = Pipeline(text_encoder=None, tokenizer=None, **ltx_parts())
    return Tiny(
        pipe,
        (8, 2, 2, 3),
        LTX,
        partial(guided_images, mask=True),
        lambda frames: pipe._unpack_latents(frames, *LTX_LATENTS)[:, :, 1:],
    )


def ltx_parts():
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXVideoTransformer3DModel,
    )

    return {
        "transformer": LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            num_layers=1,
            caption_channels=WIDTH,
        ),
        "vae": AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8,) * 4,
            decoder_block_out_channels=(8,) * 4,
            layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 5,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_shift=0.95,
            max_shift=2.05,
            shift_terminal=0.1,
            base_image_seq_len=1024,
            max_image_seq_len=4096,
        ),
    }


def wan():
    from diffusers import WanPipeline

    return Tiny(
        WanPipeline(tokenizer=None, text_encoder=None, **wan_parts(in_channels=16)),
        (16, 3, 4, 8),
        wide(9),
        guided,
    )


def wan_image():
    """One image for all videos of a call: with a generator for each, diffusers takes no more."""
    from diffusers import WanImageToVideoPipeline

    pipe = WanImageToVideoPipeline(tokenizer=None, text_encoder=None, **wan_parts(in_channels=36))
    return Tiny(
        pipe, (16, 3, 4, 8), wide(9), lambda wanted: {**guided(wanted), "image": images([(1, 0)])}
    )


def wan_parts(in_channels, transformer="WanTransformer3DModel", **settings):
    """transformer: one of the classes that derive from Wan's; settings: of it."""
    import diffusers

    return {
        "transformer": getattr(diffusers, transformer)(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=in_channels,
            out_channels=16,
            text_dim=WIDTH,
            freq_dim=16,
            ffn_dim=32,
            num_layers=1,
            rope_max_seq_len=32,
            **settings,
        ),
        "vae": diffusers.AutoencoderKLWan(
            base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1
        ),
        "scheduler": diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }
