"""Floating-point operations of the sampler and of detectors: exact, on tensors without data.

Counted are the matrix products and convolutions, two operations for each multiply-add, as torch's
FlopCounterMode counts them. All else (norms, activations, the optimiser) is left out: it moves more
bytes than it computes.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from lvd.detectors.videomae import token_count
from lvd.utils.files import load_json

TERA = 1e12
TOKENS = 77  # of a prompt
KNOWN = Path(__file__).with_name("operations.json")  # what `count_sampler` has counted


def flops(call, *args, **kwargs):
    """Return the operations of one call, without gradients."""
    with torch.inference_mode():
        return _counted(lambda: call(*args, **kwargs))


def flops_with_backward(call, *args, **kwargs):
    """Return the operations of one call and of the gradients of its sum."""
    return _counted(lambda: call(*args, **kwargs).sum().backward())


def _counted(call):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def unet_on_meta(config):
    """Return MagicTime's UNet of a 2D UNet's config, without data."""
    from MagicTime.utils.weights.motion_unet import make_motion_unet

    with torch.device("meta"):
        return make_motion_unet(config).eval()


def vae_on_meta(config):
    """Return the VAE of a config, without data."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        return AutoencoderKL.from_config(config).eval()


def text_encoder_on_meta(config):
    """Return the text encoder of a config, without data."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        return CLIPTextModel(CLIPTextConfig(**config)).eval()


@dataclass(frozen=True)
class SamplerCounts:
    """Operations and weights of the sampler.

    Attributes:
        step: operations of a guided denoising step of a video; decode: of decoding it; text: of
            encoding a prompt.
        weights: number of all weights.
    """

    step: int
    decode: int
    text: int
    weights: int


def count_sampler(models, latents):
    """Return the SamplerCounts of models with these configs, for latents (C, F, h, w).

    Those of the configs that come with LVD are known; to count others takes some seconds.
    """
    key = key_of(models, latents)
    if known := load_json(KNOWN).get(key):
        return SamplerCounts(**known)
    configs = (json.dumps(config) for config in (models.unet, models.vae, models.text))
    return _count_sampler(*configs, tuple(latents))


def key_of(models, latents):
    """Return what operations.json calls models with these configs, with these latents."""
    told = json.dumps([models.unet, models.vae, models.text, list(latents)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


@lru_cache(maxsize=8)
def _count_sampler(unet, vae, text, latents):
    unet, vae = unet_on_meta(json.loads(unet)), vae_on_meta(json.loads(vae))
    text = text_encoder_on_meta(json.loads(text))
    return SamplerCounts(
        unet_flops(unet, latents),
        decode_flops(vae, latents),
        text_flops(text),
        sum(weight.numel() for model in (unet, vae, text) for weight in model.parameters()),
    )


def unet_flops(unet, latents):
    """Return the operations of one guided denoising step of one video: two passes.

    Args:
        unet: of `unet_on_meta`.
        latents: (C, F, h, w) of a video.
    """
    with torch.device("meta"):
        text = torch.empty(2 * latents[1], TOKENS, unet.config.cross_attention_dim)
        clips = torch.empty(2, *latents)
        return flops(unet, clips, torch.empty(()), encoder_hidden_states=text)


def decode_flops(vae, latents):
    """Return the operations of decoding one video of latents (C, F, h, w)."""
    channels, frames, height, width = latents
    with torch.device("meta"):
        return flops(vae.decode, torch.empty(frames, channels, height, width))


def text_flops(encoder):
    """Return the operations of encoding a prompt."""
    tokens = min(TOKENS, encoder.config.max_position_embeddings)
    with torch.device("meta"):
        return flops(encoder, torch.empty(1, tokens, dtype=torch.long))


def detector_flops(config, seen=None):
    """Return the operations of a detector on one clip: (one pass, one pass with its gradients).

    They follow from its sizes; torch counts the same, as a test makes sure of.

    Args:
        config: VideoMAEConfig.
        seen: tokens that are looked at; None: all of them.
    """
    tokens = token_count(config)
    seen, width = seen or tokens, config.hidden_size
    patch = config.num_channels * config.tubelet_size * config.patch_size**2
    projection, head = 2 * tokens * patch * width, 2 * width * 2  # of all tokens
    products = 2 * seen * (4 * width * width + 2 * width * config.intermediate_size)
    layer = products + 4 * seen * seen * width
    one_pass = projection + config.num_hidden_layers * layer + head
    return one_pass, 3 * one_pass - projection  # a product has two gradients; the clip needs none
