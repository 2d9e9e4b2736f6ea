"""Tiny pipelines of SANA-Video and Motif-Video, with random weights."""

from functools import partial

from benchmarks.common.tiny_inputs import WIDTH, Tiny, guided, images, pictures, wide

SHAPE = 16, 3, 4, 8  # C, F, h, w
CHANNELS = SHAPE[0]
FRAMES = 9
SANA_CALL = dict(
    frames=FRAMES,
    height=32,
    width=64,
    guidance_scale=3.0,
    use_resolution_binning=False,
    negative_prompt=None,
)


def sana():
    from diffusers import SanaVideoPipeline

    return Tiny(SanaVideoPipeline(**sana_parts()), SHAPE, SANA_CALL, partial(guided, mask=True))


def sana_image():
    """The scheduler steps all frames but the first, which is the image's: one for all videos."""
    from diffusers import SanaImageToVideoPipeline

    def prompts(wanted):
        return {**guided(wanted, mask=True), "image": images(wanted[:1])}

    return Tiny(
        SanaImageToVideoPipeline(**sana_parts()),
        (CHANNELS, 2, *SHAPE[2:]),
        SANA_CALL,
        prompts,
        lambda frames: frames[:, :, 1:],
    )


def motif():
    from diffusers import MotifVideoPipeline

    pipe = MotifVideoPipeline(**motif_parts())
    return Tiny(pipe, SHAPE, motif_call(), partial(guided, mask=True))


def motif_image():
    from diffusers import MotifVideoImage2VideoPipeline

    pipe = MotifVideoImage2VideoPipeline(**motif_parts())

    def prompts(wanted):
        return {**guided(wanted, mask=True), "image": pictures(wanted)[0]}

    fixed = {**motif_call(), "prompt": None}
    return Tiny(pipe, SHAPE, fixed, prompts, most=1)


def motif_call():
    """Arguments of a call; how strongly it is guided is the guider's."""
    return {key: value for key, value in wide(FRAMES).items() if key != "guidance_scale"}


def wan_vae():
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=3, z_dim=CHANNELS, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def sana_parts():
    from diffusers import DPMSolverMultistepScheduler, SanaVideoTransformer3DModel

    return {
        "tokenizer": None,
        "text_encoder": None,
        "vae": wan_vae(),
        "transformer": SanaVideoTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=1,
            num_cross_attention_heads=2,
            cross_attention_head_dim=12,
            cross_attention_dim=24,
            caption_channels=WIDTH,
            sample_size=8,
            rope_max_seq_len=32,
        ),
        "scheduler": DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0
        ),
    }


def motif_parts():
    from diffusers import FlowMatchEulerDiscreteScheduler, MotifVideoTransformer3DModel
    from diffusers.guiders import ClassifierFreeGuidance

    return {
        "tokenizer": None,
        "text_encoder": None,
        "vae": wan_vae(),
        "transformer": MotifVideoTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_single_layers=1,
            text_embed_dim=WIDTH,
            rope_axes_dim=(2, 2, 4),
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "guider": ClassifierFreeGuidance(guidance_scale=100.0),  # else prompts hardly matter
        "feature_extractor": None,
    }
