"""MagicTime and AnimateDiff with random weights, made on the GPU in seconds."""

from dataclasses import dataclass

import torch

from benchmarks.common import full_size
from lvd.utils.config import ROOT
from lvd_plan.flops import TOKENS
from lvd_plan.models import UNET, VAE
from lvd_plan.random_models import filled

TOKENIZER = ROOT / "MagicTime" / "ckpts" / "Tiny" / "Base_Model" / "stable-diffusion-v1-5"
SCHEDULER = dict(  # of the sampling YAMLs
    beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1, clip_sample=False
)


@dataclass(frozen=True)
class Sizes:
    """How large everything is: `FULL`, or `SMOKE` for a try on a CPU.

    Attributes:
        unet, vae, text: configs; latents: (C, F, h, w) of a video; factor: pixels per latent.
        steps: denoising steps of a video; timed: steps, or repeats, that are timed.
        detectors: sizes of detectors, small ones first; base: keywords of VideoMAE-base.
        clips: (videos of the base detector's training, of the small ones', batch of the shared).
        pixels: side of a frame that VideoMAE-base reads.
        is_smoke: whether all this is SMOKE.
    """

    unet: dict
    vae: dict
    text: dict
    latents: tuple
    steps: int
    timed: int
    detectors: tuple
    base: dict
    clips: tuple
    pixels: int
    factor: int = 8
    is_smoke: bool = False

    @property
    def video(self):
        """Keywords of the videos' size in pixels."""
        _, frames, height, width = self.latents
        return {"height": height * self.factor, "width": width * self.factor, "frames": frames}


FULL = Sizes(
    unet=UNET,
    vae=VAE,
    text=dict(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    ),
    latents=full_size.LATENTS,
    steps=full_size.STEPS,
    timed=6,
    detectors=("nano", "tiny", "small"),
    base={},
    clips=(32, 64, 256),
    pixels=224,
)
SMOKE = Sizes(
    unet=dict(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    ),
    vae={**VAE, "block_out_channels": (4, 4, 8, 8), "layers_per_block": 1} | {"norm_num_groups": 4},
    text=dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2),
    latents=(4, 2, 8, 8),
    steps=3,
    timed=2,
    detectors=("nano",),
    base=dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64),
    clips=(8, 8, 8),
    pixels=32,
    is_smoke=True,
)


def make_magictime(sizes, device, dtype):
    """MagicTime.utils.weights.load.MagicTime with random weights on a device."""
    from diffusers import AutoencoderKL, DDIMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    from MagicTime.utils.weights.base import load_tokenizer
    from MagicTime.utils.weights.load import MagicTime
    from MagicTime.utils.weights.motion_unet import make_motion_unet

    torch.manual_seed(0)
    unet = filled(lambda: make_motion_unet(sizes.unet), device, dtype)
    vae = filled(lambda: AutoencoderKL(**sizes.vae), device, dtype)
    config = CLIPTextConfig(vocab_size=49408, max_position_embeddings=TOKENS, **sizes.text)
    with torch.device(device):
        encoder = CLIPTextModel(config)
    encoder = encoder.to(dtype).requires_grad_(False).eval()
    scheduler = DDIMScheduler(**SCHEDULER)
    return MagicTime(load_tokenizer(TOKENIZER), encoder, vae, unet, scheduler)


def make_pipeline(model):
    """diffusers' AnimateDiffPipeline of a MagicTime's UNet and VAE."""
    from diffusers import AnimateDiffPipeline, DDIMScheduler

    pipe = AnimateDiffPipeline(
        vae=model.vae,
        text_encoder=None,
        tokenizer=None,
        unet=model.unet,
        motion_adapter=None,
        scheduler=DDIMScheduler(**SCHEDULER),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe, sizes, steps, seed=0, **changes):
    """Latents [1, C, F, h, w] of one video of a pipeline of `make_pipeline`, from random prompts.

    changes: other arguments of the call.
    """
    device, dtype = pipe._execution_device, pipe.unet.dtype  # weights may wait elsewhere
    generator = torch.Generator(device).manual_seed(seed)
    shape = (2, 1, TOKENS, pipe.unet.config.cross_attention_dim)
    words = torch.randn(shape, generator=generator, device=device).to(dtype)
    size = sizes.video
    arguments = dict(
        prompt_embeds=words[0],
        negative_prompt_embeds=words[1],
        num_frames=size["frames"],
        height=size["height"],
        width=size["width"],
        guidance_scale=full_size.GUIDANCE_SCALE,
        num_inference_steps=steps,
        output_type="latent",
        generator=generator,
    )
    return pipe(**{**arguments, **changes}).frames


def sample_magictime(model, sizes, steps, on_step, attention="auto"):
    """Latents of one video by MagicTime's own sampler, with an attention kernel of its YAMLs."""
    from types import SimpleNamespace

    from MagicTime.utils import hardware
    from MagicTime.utils.pipeline import sample

    size = sizes.video
    with hardware.kernels(SimpleNamespace(attention=attention)):
        return sample(
            model,
            ["a red circle moves up"],
            [""],
            [2024],
            size["frames"],
            size["height"],
            size["width"],
            steps,
            full_size.GUIDANCE_SCALE,
            on_step=on_step,
        )
