"""Tiny pipelines of the AnimateDiff family beside AnimateDiff itself, with random weights."""

from benchmarks.common.tiny_inputs import WIDTH, Tiny, embeddings, guided, images, pictures
from benchmarks.common.tiny_unets import blocks, sd_vae

SHAPE = 4, 3, 4, 8  # C, F, h, w
CALL = dict(num_frames=3, height=16, width=32, guidance_scale=3.0)  # arguments of a call
LEVELS = dict(
    block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=WIDTH
)
HINT_CHANNELS = 8, 16, 16, 16  # three times half the size, to 4 x 8 latents of 16 x 32 pixels


def controlnet():
    from diffusers import AnimateDiffControlNetPipeline, ControlNetModel

    model = ControlNetModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        attention_head_dim=4,
        conditioning_embedding_out_channels=HINT_CHANNELS[:3],
        **LEVELS,
    )
    pipe = AnimateDiffControlNetPipeline(controlnet=model, **parts())

    def prompts(wanted):
        return {**guided(wanted), "conditioning_frames": frames_of(wanted)}

    return Tiny(pipe, SHAPE, CALL, prompts, most=1)


def sparse_controlnet():
    from diffusers import AnimateDiffSparseControlNetPipeline, SparseControlNetModel

    model = SparseControlNetModel(
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        attention_head_dim=4,
        motion_num_attention_heads=2,
        conditioning_channels=3,
        conditioning_embedding_out_channels=HINT_CHANNELS[:3],
        use_simplified_condition_embedding=False,
        **LEVELS,
    )
    pipe = AnimateDiffSparseControlNetPipeline(controlnet=model, **parts())
    fixed = {**CALL, "controlnet_frame_indices": [0, 2]}

    def prompts(wanted):
        return {**guided(wanted), "conditioning_frames": frames_of(wanted)[:2]}

    return Tiny(pipe, SHAPE, fixed, prompts)


def perturbed_attention():
    from diffusers import AnimateDiffPAGPipeline

    pipe = AnimateDiffPAGPipeline(pag_applied_layers=["down_blocks.*attn1"], **parts())
    return Tiny(pipe, SHAPE, {**CALL, "pag_scale": 1.0}, guided)


def sdxl():
    from diffusers import AnimateDiffSDXLPipeline

    width = 8  # of a prompt's pooled embedding and of an embedded size
    unet = dict(
        addition_embed_type="text_time",
        addition_time_embed_dim=width,
        projection_class_embeddings_input_dim=width + 6 * width,
        use_linear_projection=True,
    )
    pipe = AnimateDiffSDXLPipeline(text_encoder_2=None, tokenizer_2=None, **parts(**unet))

    def prompts(wanted):
        pooled = embeddings(wanted, 1, width)[:, 0]
        none = pooled.new_zeros(pooled.shape)
        return {
            **guided(wanted),
            "pooled_prompt_embeds": pooled,
            "negative_pooled_prompt_embeds": none,
        }

    return Tiny(pipe, SHAPE, CALL, prompts)


def pia():
    """Personalised image animation: the image and a mask beside the latents."""
    from diffusers import PIAPipeline

    pipe = PIAPipeline(**parts(in_channels=9))
    return Tiny(pipe, SHAPE, CALL, lambda wanted: {**guided(wanted), "image": images(wanted)})


def parts(**unet):
    from diffusers import DDIMScheduler, UNetMotionModel

    return {
        "unet": UNetMotionModel(
            sample_size=8,
            motion_num_attention_heads=2,
            num_attention_heads=2,
            norm_num_groups=4,
            use_motion_mid_block=False,
            **blocks("Motion"),
            **unet,
        ),
        "vae": sd_vae(),
        "text_encoder": None,
        "tokenizer": None,
        "motion_adapter": None,
        "scheduler": DDIMScheduler(beta_schedule="linear", clip_sample=False),
    }


def frames_of(wanted):
    """Three frames, bright or dark as the first of the wanted videos."""
    (kind, row), *_ = wanted
    return pictures([(kind, 10 * row + frame) for frame in range(CALL["num_frames"])])
