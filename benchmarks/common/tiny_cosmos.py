"""Tiny pipelines of the Cosmos family, with random weights."""

from types import SimpleNamespace

import torch

from benchmarks.common.tiny_inputs import WIDTH, Tiny, guided, images, own, wide
from benchmarks.common.tiny_sana_motif import wan_vae

CHANNELS = 16
SHAPE = CHANNELS, 3, 4, 8  # C, F, h, w
FRAMES = 9


class HarmlessChecker(torch.nn.Module):
    """Stands in for the Cosmos Guardrail, without which these pipelines refuse to run."""

    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt):
        return True

    def check_video_safety(self, frames):
        return frames


def text_to_world():
    from diffusers import CosmosTextToWorldPipeline

    pipe = CosmosTextToWorldPipeline(**parts_of_1(in_channels=CHANNELS))
    return Tiny(pipe, SHAPE, wide(FRAMES), guided)


def video_to_world():
    """The first of the frames is the image's."""
    from diffusers import CosmosVideoToWorldPipeline

    pipe = CosmosVideoToWorldPipeline(**parts_of_1(in_channels=CHANNELS + 1))
    return Tiny(pipe, SHAPE, wide(FRAMES), prompts_and_image)


def video_to_world_2():
    from diffusers import Cosmos2VideoToWorldPipeline, FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    pipe = Cosmos2VideoToWorldPipeline(
        transformer=transformer(CHANNELS + 1), vae=wan_vae(), scheduler=scheduler, **others()
    )
    return Tiny(pipe, SHAPE, wide(FRAMES), prompts_and_image)


def predict_25():
    from diffusers import Cosmos2_5_PredictBasePipeline

    pipe = Cosmos2_5_PredictBasePipeline(
        transformer=transformer(CHANNELS + 1), vae=wan_vae(), scheduler=unipc(), **others()
    )
    return Tiny(pipe, SHAPE, wide(FRAMES), guided)


def transfer_25():
    """All in one chunk of frames; each video follows one of its own."""
    from diffusers import Cosmos2_5_TransferPipeline, CosmosControlNetModel

    wide_prompts = 32  # as wide as the control network
    seen = dict(img_context_dim_in=WIDTH, img_context_dim_out=wide_prompts)
    sizes = {**SIZES, "text_embed_dim": wide_prompts}
    controlnet = CosmosControlNetModel(
        n_controlnet_blocks=1,
        in_channels=CHANNELS + 2,  # the control's latents and two masks
        latent_channels=CHANNELS + 2,
        model_channels=wide_prompts,
        extra_pos_embed_type="learnable",
        **seen,
        **sizes,
    )
    pipe = Cosmos2_5_TransferPipeline(
        transformer=transformer(
            CHANNELS + 1, sizes, controlnet_block_every_n=1, img_context_num_tokens=2, **seen
        ),
        controlnet=controlnet,
        vae=wan_vae(),
        scheduler=unipc(),
        **others(),
    )

    def prompts(wanted):
        given = guided(wanted, width=wide_prompts)
        return {**given, "controls": [own(row, FRAMES, 3, 32, 64) for _, row in wanted]}

    return Tiny(pipe, SHAPE, {**wide(FRAMES), "num_frames_per_chunk": FRAMES}, prompts)


SIZES = dict(
    num_attention_heads=2,
    attention_head_dim=16,
    mlp_ratio=2,
    text_embed_dim=WIDTH,
    adaln_lora_dim=4,
    max_size=(4, 32, 32),
)


def transformer(in_channels, sizes=SIZES, **settings):
    from diffusers import CosmosTransformer3DModel

    stand_in_for_torchvision()
    return CosmosTransformer3DModel(
        in_channels=in_channels, out_channels=CHANNELS, num_layers=1, **sizes, **settings
    )


def parts_of_1(in_channels):
    from diffusers import AutoencoderKLCosmos, EDMEulerScheduler

    vae = AutoencoderKLCosmos(
        latent_channels=CHANNELS,
        encoder_block_out_channels=(8,) * 4,
        decode_block_out_channels=(8,) * 4,
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        spatial_compression_ratio=8,
        latents_mean=None,
        latents_std=None,
        temporal_compression_ratio=4,
    )
    scheduler = EDMEulerScheduler(
        sigma_min=0.002, sigma_max=80, sigma_data=0.5, final_sigmas_type="sigma_min"
    )
    return {"transformer": transformer(in_channels), "vae": vae, "scheduler": scheduler, **others()}


def stand_in_for_torchvision():
    """The transformers resize a mask with torchvision, which nothing else here needs."""
    from diffusers.models.controlnets import controlnet_cosmos
    from diffusers.models.transformers import transformer_cosmos

    def resize(mask, size, interpolation):
        return torch.nn.functional.interpolate(mask, size, mode="nearest")

    kinds = SimpleNamespace(NEAREST="nearest")
    transforms = SimpleNamespace(functional=SimpleNamespace(resize=resize), InterpolationMode=kinds)
    for module in (controlnet_cosmos, transformer_cosmos):
        if not hasattr(module, "transforms"):
            module.transforms = transforms


def others():
    return {"text_encoder": None, "tokenizer": None, "safety_checker": HarmlessChecker()}


def unipc():
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
    )


def prompts_and_image(wanted):
    return {**guided(wanted), "image": images(wanted).repeat(1, 1, 1, 2)}
