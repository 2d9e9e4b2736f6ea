"""Tiny pipelines of LTX-Video with conditions and of LTX-2, with random weights. LTX-2 makes sound
too."""

from functools import partial

import torch

from benchmarks.common.tiny_inputs import (
    TOKENS,
    WIDTH,
    Tiny,
    guided,
    guided_images,
    images,
    own,
    pictures,
)
from benchmarks.common.tiny_transformers import LTX, ltx_parts

SIZE = dict(num_frames=5, height=32, width=64)  # of a video of LTX-2
LATENTS = (4, 3, 4, 8)  # C, F, h, w
# One pass of the model a step: the four kinds of guidance are the pipeline's own affair.
PLAIN = dict(
    stg_scale=0.0,
    modality_scale=1.0,
    guidance_rescale=0.0,
    audio_guidance_scale=1.0,
    audio_stg_scale=0.0,
    audio_modality_scale=1.0,
    audio_guidance_rescale=0.0,
    spatio_temporal_guidance_blocks=None,
    use_cross_timestep=False,
    guidance_scale=3.0,
)


def ltx_condition():
    """A first and a last image; the last one's tokens are added before the video's own."""
    from diffusers import LTXConditionPipeline
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    pipe = LTXConditionPipeline(text_encoder=None, tokenizer=None, **ltx_parts())
    pipe.scheduler.register_to_config(use_dynamic_shifting=False, shift_terminal=None)

    def prompts(wanted):
        last = images([(-kind, row) for kind, row in wanted])
        conditions = [LTXVideoCondition(images(wanted)), LTXVideoCondition(last, frame_index=16)]
        return {**guided(wanted, mask=True), "conditions": conditions}

    return Tiny(pipe, (8, 3, 2, 3), LTX, prompts)


def ltx2():
    from diffusers import LTX2Pipeline

    return text_to_video(LTX2Pipeline(**ltx2_parts()))


def ltx2_image():
    """The scheduler steps all frames but the first, which is the image's."""
    from diffusers import LTX2ImageToVideoPipeline

    channels, frames, height, width = LATENTS
    return Tiny(
        LTX2ImageToVideoPipeline(**ltx2_parts()),
        (channels, frames - 1, height, width),
        {**SIZE, **PLAIN, "image_crf": 0},
        partial(guided_images, mask=True),
        lambda latents: latents[:, :, 1:],
    )


def ltx2_condition():
    """A first and a last image; the last one's tokens are added behind the video's own."""
    from diffusers import LTX2ConditionPipeline
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    first, last = pictures([(1, 0), (-1, 1)])
    conditions = [LTX2VideoCondition(frames=first, crf=0), LTX2VideoCondition(last, -1, crf=0)]
    return text_to_video(LTX2ConditionPipeline(**ltx2_parts()), conditions=conditions)


def ltx2_in_context():
    """A reference video, whose tokens are added behind the video's own."""
    from diffusers import LTX2InContextPipeline
    from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition

    reference = LTX2ReferenceCondition(pictures([(1, row) for row in range(5)]))
    pipe = LTX2InContextPipeline(**ltx2_parts())
    return text_to_video(pipe, reference_conditions=[reference])


def ltx2_hdr():
    """Without sound in what it returns, though it steps some."""
    from diffusers import LTX2HDRPipeline
    from diffusers.pipelines.ltx2.pipeline_ltx2_hdr_lora import LTX2HDRReferenceCondition

    reference = LTX2HDRReferenceCondition(pictures([(1, row) for row in range(5)]))
    tiny = text_to_video(LTX2HDRPipeline(**ltx2_parts()), reference_conditions=[reference])
    for name in [name for name in tiny.fixed if name.startswith("audio")]:
        del tiny.fixed[name]
    return tiny


def ltx2_dfr():
    """It adds generated keyframes behind the video's own tokens. No guidance, sigmas for steps."""
    from diffusers import LTX2DFRPipeline

    parts = ltx2_parts(use_keyframes_abs_pos_embedding=True)
    tiny = text_to_video(LTX2DFRPipeline(**parts))
    fixed = {**SIZE, "num_frames": 9, "use_cross_timestep": False}

    def prompts(wanted):
        given = guided(wanted, mask=True)
        return {name: value for name, value in given.items() if not name.startswith("negative")}

    channels, _, height, width = LATENTS
    return Tiny(tiny.pipe, (channels, 5, height, width), fixed, prompts, steps=sigmas_of)


def ltx2_temporal_refine():
    """Twice as many frames, in two tiles of five latent frames: three segments make them equal.
    A video's kind is told by the one that is refined, to which half as much noise is added."""
    from diffusers import LTX2DFRTemporalRefinePipeline, LTXEulerAncestralRFScheduler
    from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel

    parts = ltx2_parts(use_keyframes_abs_pos_embedding=True)
    upsampler = LTX2LatentUpsamplerModel(
        in_channels=4,
        mid_channels=32,
        num_blocks_per_stage=1,
        spatial_upsample=False,
        temporal_upsample=True,
    )
    parts["scheduler"] = LTXEulerAncestralRFScheduler(eta=0.5)
    pipe = LTX2DFRTemporalRefinePipeline(temporal_latent_upsampler=upsampler, **parts)
    channels, _, height, width = LATENTS

    def prompts(wanted):
        given = guided(wanted, mask=True)
        given = {name: value for name, value in given.items() if "negative" not in name}
        both = own(1000, channels, 7, height, width)
        video = torch.stack([kind * both + 0.1 * own(row, *both.shape) for kind, row in wanted])
        sound = 0.1 * torch.stack([own(row, 2, 8, 2) for _, row in wanted])
        before = {"latents": video[:, :, :4], "keyframes_latents": video[:, :, 4:]}
        return {**given, **before, "audio_latents": sound}

    fixed = {**SIZE, "num_frames": 7, "keyframe_positions": [2, 4, 6], "use_cross_timestep": False}
    steps = partial(sigmas_of, first=0.5)
    return Tiny(pipe, (channels, 5, height, width), fixed, prompts, steps=steps)


def sigmas_of(number, first=1.0):
    return {"sigmas": [first * (1 - step / number) for step in range(number)]}


def of_temporal_refine(pipe, returned, number):
    """The first tile; of the second one, the beginning is left away."""
    return None if number else returned[:, :, :5]


def text_to_video(pipe, **fixed):
    fixed = {**SIZE, **PLAIN, **fixed}
    return Tiny(pipe, LATENTS, fixed, partial(guided, mask=True))


def ltx2_decoders():
    """What makes pictures and sound of latents: {name: part}."""
    from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    return {
        "vae": AutoencoderKLLTX2Video(
            latent_channels=4,
            block_out_channels=(8,),
            decoder_block_out_channels=(8,),
            layers_per_block=(1,),
            decoder_layers_per_block=(1, 1),
            spatio_temporal_scaling=(True,),
            decoder_spatio_temporal_scaling=(True,),
            decoder_inject_noise=(False, False),
            downsample_type=("spatiotemporal",),
            upsample_type=("spatiotemporal",),
            upsample_residual=(False,),
            upsample_factor=(1,),
            patch_size=4,
            decoder_causal=False,
            spatial_compression_ratio=8,
            temporal_compression_ratio=2,
        ),
        "audio_vae": AutoencoderKLLTX2Audio(
            base_channels=4,
            ch_mult=(1,),
            num_res_blocks=1,
            resolution=32,
            latent_channels=2,
            mel_bins=8,
        ),
        "vocoder": LTX2Vocoder(
            in_channels=16,
            hidden_channels=32,
            upsample_kernel_sizes=[4, 4],
            upsample_factors=[2, 2],
            resnet_kernel_sizes=[3],
            resnet_dilations=[[1, 3, 5]],
            output_sampling_rate=16000,
        ),
    }


def ltx2_parts(**changes):
    from diffusers import FlowMatchEulerDiscreteScheduler, LTX2VideoTransformer3DModel
    from diffusers.pipelines.ltx2 import LTX2TextConnectors

    heads = dict(
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=WIDTH // 2,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=WIDTH // 2,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
    )
    return {
        "transformer": LTX2VideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            audio_in_channels=4,
            audio_out_channels=4,
            audio_num_attention_heads=2,
            audio_attention_head_dim=4,
            audio_cross_attention_dim=8,
            num_layers=1,
            caption_channels=WIDTH,
            rope_double_precision=False,
            rope_type="split",
            vae_scale_factors=(2, 8, 8),
            **changes,
        ),
        "connectors": LTX2TextConnectors(
            caption_channels=WIDTH,
            text_proj_in_factor=1,
            connector_rope_base_seq_len=8 * TOKENS,
            rope_double_precision=False,
            rope_type="split",
            **heads,
        ),
        **ltx2_decoders(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder": None,
        "tokenizer": None,
    }
