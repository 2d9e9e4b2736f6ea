"""The video pipelines of diffusers with tiny random components: nothing is downloaded, a run takes
a fraction of a second.

Prompts are embeddings (no tokenizer, no text encoder), images are made here. A video's `kind` is 1
or -1: its prompt lies to that side of a direction, its image is bright or dark, so that a detector
can tell the two apart.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import diffusers
import torch

WIDTH, TOKENS = 16, 4  # width and number of the tokens of a prompt
PIXELS = 32  # of images and, where the pipeline allows it, of videos


@dataclass(frozen=True)
class Tiny:
    """A pipeline and what to call it with: pipe(**tiny.inputs([kind, ...], seeds)).

    shape: (C, F, h, w) of one video's latents; fixed: arguments of every call; prompts: [(kind,
    row), ...] → arguments; clips: what the pipeline returns with output_type latent → [B, C, F, h,
    w].
    """

    pipe: object
    shape: tuple
    fixed: dict
    prompts: Callable
    clips: Callable = lambda frames: frames

    def inputs(self, kinds, seeds=(0,), first=0, steps=3, **changes):
        """Arguments of a call that makes len(kinds) videos. seeds: of the noise of each (one: the
        same for all); prompts of a kind differ a little from row to row, which count from `first`.
        """
        seeds = [*seeds] * (len(kinds) if len(seeds) == 1 else 1)
        wanted = list(zip(kinds, range(first, first + len(kinds)), strict=True))
        given = dict(
            num_inference_steps=steps,
            output_type="latent",
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        )
        return {**self.fixed, **given, **self.prompts(wanted), **changes}


def build(name, scheduler=None, seed=0):
    """The Tiny of a pipeline class, by its name, with its usual scheduler or another of SCHEDULERS;
    weights by the seed."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated pipelines are in use all the same
        torch.manual_seed(seed)
        tiny = FAMILIES[name]()
    for part in tiny.pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    if scheduler:
        settings = SCHEDULERS[name][scheduler]
        tiny.pipe.scheduler = getattr(diffusers, scheduler).from_config(
            tiny.pipe.scheduler.config, **settings
        )
    tiny.pipe.set_progress_bar_config(disable=True)
    return tiny


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


def ltx():
    from diffusers import LTXPipeline

    pipe = LTXPipeline(text_encoder=None, tokenizer=None, **ltx_parts())
    fixed = dict(num_frames=17, height=64, width=96, guidance_scale=3.0)
    return Tiny(
        pipe,
        (8, 3, 2, 3),
        fixed,
        lambda wanted: guided(wanted, mask=True),
        lambda frames: pipe._unpack_latents(frames, 3, 2, 3),
    )


def ltx_image():
    """The scheduler steps all frames but the first, which is the image's."""
    from diffusers import LTXImageToVideoPipeline

    pipe = LTXImageToVideoPipeline(text_encoder=None, tokenizer=None, **ltx_parts())
    fixed = dict(num_frames=17, height=64, width=96, guidance_scale=3.0)
    return Tiny(
        pipe,
        (8, 2, 2, 3),
        fixed,
        lambda wanted: guided_images(wanted, mask=True),
        lambda frames: pipe._unpack_latents(frames, 3, 2, 3)[:, :, 1:],
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


def wan_parts(in_channels):
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel

    return {
        "transformer": WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=in_channels,
            out_channels=16,
            text_dim=WIDTH,
            freq_dim=16,
            ffn_dim=32,
            num_layers=1,
            rope_max_seq_len=32,
        ),
        "vae": AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }


def hunyuan():
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )

    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        text_embed_dim=WIDTH,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=True,
    )
    pipe = HunyuanVideoPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        vae=vae,
        text_encoder_2=None,
        tokenizer_2=None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )

    def prompts(wanted):
        return {
            "prompt_embeds": embeddings(wanted),
            "pooled_prompt_embeds": embeddings(wanted, 1, 8)[:, 0],
            "prompt_attention_mask": torch.ones(len(wanted), TOKENS),
        }

    return Tiny(pipe, (4, 3, 4, 8), wide(9, guidance_scale=6.0), prompts)


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


FAMILIES = {
    "AnimateDiffPipeline": animatediff,
    "TextToVideoSDPipeline": modelscope,
    "StableVideoDiffusionPipeline": svd,
    "I2VGenXLPipeline": i2vgen,
    "CogVideoXPipeline": cogvideox,
    "CogVideoXImageToVideoPipeline": cogvideox_image,
    "LTXPipeline": ltx,
    "LTXImageToVideoPipeline": ltx_image,
    "WanPipeline": wan,
    "WanImageToVideoPipeline": wan_image,
    "HunyuanVideoPipeline": hunyuan,
    "MochiPipeline": mochi,
    "LattePipeline": latte,
}
FLOW = dict(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
# Other schedulers that people use with a pipeline, and their settings.
SCHEDULERS = {
    "AnimateDiffPipeline": {
        "DDPMScheduler": {},
        "PNDMScheduler": {"skip_prk_steps": True},
        "EulerDiscreteScheduler": {},
        "EulerAncestralDiscreteScheduler": {},
        "DPMSolverMultistepScheduler": {},
        "LCMScheduler": {},
    },
    "TextToVideoSDPipeline": {"DPMSolverMultistepScheduler": {}, "UniPCMultistepScheduler": {}},
    "CogVideoXPipeline": {"CogVideoXDPMScheduler": {}},
    "WanPipeline": {
        "FlowMatchEulerDiscreteScheduler": {"shift": 3.0},
        "DPMSolverMultistepScheduler": FLOW,
    },
}


def embeddings(wanted, tokens=TOKENS, width=WIDTH):
    """[B, tokens, width]: each kind times one direction, and a little of the row's own."""
    direction = 6 * own(1000, tokens, width)
    return torch.stack([kind * direction + 0.1 * own(row, tokens, width) for kind, row in wanted])


def guided(wanted, mask=False):
    """Prompts and empty negative ones, as most pipelines take them; mask: with the attention masks
    of both."""
    found = {
        "prompt_embeds": embeddings(wanted),
        "negative_prompt_embeds": torch.zeros(len(wanted), TOKENS, WIDTH),
    }
    if mask:
        ones = torch.ones(len(wanted), TOKENS, dtype=torch.bool)
        found |= {"prompt_attention_mask": ones, "negative_prompt_attention_mask": ones}
    return found


def guided_images(wanted, mask=False):
    """Prompts and the image that each video begins with."""
    return {**guided(wanted, mask), "image": images(wanted)}


def wide(frames, guidance_scale=3.0):
    """Arguments of a call: videos twice as wide as high, so that no two axes of the latents are
    alike."""
    return dict(num_frames=frames, height=PIXELS, width=2 * PIXELS, guidance_scale=guidance_scale)


def images(wanted):
    """[B, 3, H, W] in [0, 1]: bright or dark, with a little noise of the row's own."""
    found = [0.5 + 0.4 * kind + 0.05 * own(row, 3, PIXELS, PIXELS) for kind, row in wanted]
    return torch.stack(found).clamp(0, 1)


def pictures(wanted):
    """The same as a list of PIL images."""
    from PIL import Image

    return [
        Image.fromarray((255 * image).byte().permute(1, 2, 0).numpy()) for image in images(wanted)
    ]


def own(row, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(row))


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
