"""Tiny pipelines around a UNet, with random weights."""

from benchmarks.common.tiny_inputs import PIXELS, WIDTH, Tiny, guided, images, pictures


def animatediff():
    from diffusers import AnimateDiffPipeline, DDIMScheduler, UNetMotionModel

    unet = UNetMotionModel(
        sample_size=8,
        motion_num_attention_heads=2,
        num_attention_heads=2,
        norm_num_groups=4,
        use_motion_mid_block=False,
        **blocks("Motion"),
    )
    pipe = AnimateDiffPipeline(
        vae=sd_vae(),
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        motion_adapter=None,
        scheduler=DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )
    return Tiny(
        pipe, (4, 3, 4, 8), dict(num_frames=3, height=16, width=32, guidance_scale=3.0), guided
    )


def modelscope():
    from diffusers import DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel

    unet = UNet3DConditionModel(
        sample_size=8, norm_num_groups=4, attention_head_dim=4, **blocks("3D")
    )
    pipe = TextToVideoSDPipeline(
        vae=sd_vae(),
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
        ),
    )
    return Tiny(
        pipe, (4, 3, 4, 8), dict(num_frames=3, height=16, width=32, guidance_scale=3.0), guided
    )


def svd():
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )

    unet = UNetSpatioTemporalConditionModel(
        sample_size=PIXELS // 4,
        in_channels=8,
        num_attention_heads=(2, 4),
        num_frames=4,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        **{**blocks("SpatioTemporal"), "block_out_channels": (32, 64)},
    )  # its norms have 32 groups
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32,) * 3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        sample_size=PIXELS,
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        interpolation_type="linear",
        use_karras_sigmas=True,
        timestep_type="continuous",
        timestep_spacing="leading",
        steps_offset=1,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    pipe = StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=clip_vision(),
        unet=unet,
        scheduler=scheduler,
        feature_extractor=image_processor(),
    )
    fixed = dict(num_frames=4, height=PIXELS, width=PIXELS, max_guidance_scale=2.0)
    return Tiny(
        pipe,
        (4, 4, PIXELS // 4, PIXELS // 4),
        fixed,
        lambda wanted: {"image": images(wanted)},
        lambda frames: frames.transpose(1, 2),
    )


def i2vgen():
    from diffusers import DDIMScheduler, I2VGenXLPipeline, I2VGenXLUNet

    unet = I2VGenXLUNet(
        sample_size=PIXELS // 4, norm_num_groups=4, attention_head_dim=4, **blocks("3D")
    )
    pipe = I2VGenXLPipeline(
        vae=sd_vae(),
        text_encoder=None,
        tokenizer=None,
        image_encoder=clip_vision(),
        feature_extractor=image_processor(),
        unet=unet,
        scheduler=DDIMScheduler(
            beta_schedule="squaredcos_cap_v2",
            rescale_betas_zero_snr=True,
            set_alpha_to_one=True,
            clip_sample=False,
            steps_offset=1,
            timestep_spacing="leading",
            prediction_type="v_prediction",
        ),
    )

    def prompts(wanted):
        return {**guided(wanted), "image": pictures(wanted)}

    fixed = dict(num_frames=3, height=PIXELS, width=PIXELS, guidance_scale=3.0)
    return Tiny(pipe, (4, 3, PIXELS // 4, PIXELS // 4), fixed, prompts)


def blocks(suffix):
    """Two levels of a UNet with attention to prompts, of the named kind of blocks."""
    return dict(
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        down_block_types=(f"CrossAttnDownBlock{suffix}", f"DownBlock{suffix}"),
        up_block_types=(f"UpBlock{suffix}", f"CrossAttnUpBlock{suffix}"),
    )


def sd_vae():
    """Stable Diffusion's kind of autoencoder, 4 pixels to a latent."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8,) * 3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        sample_size=PIXELS,
    )


def clip_vision():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            projection_dim=WIDTH,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=PIXELS,
            patch_size=8,
        )
    )


def image_processor():
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(crop_size=PIXELS, size=PIXELS)
