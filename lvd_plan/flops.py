"""Floating-point operations of the sampler and of detectors: exact, on tensors without data.

Counted are the matrix products and convolutions, two operations for each multiply-add, as torch's
FlopCounterMode counts them. All else (norms, activations, the optimiser) is left out: it moves more
bytes than it computes.
"""

import json
from dataclasses import dataclass
from functools import lru_cache

import torch

from lvd.data.transforms import input_size
from lvd.detectors.videomae import CONFIG_KEYS, empty_model, token_count

TERA = 1e12
TOKENS = 77  # of a prompt


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
    """Return the SamplerCounts of models with these configs, for latents (C, F, h, w)."""
    configs = (json.dumps(config) for config in (models.unet, models.vae, models.text))
    return _count_sampler(*configs, tuple(latents))


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

    Args:
        config: VideoMAEConfig.
        seen: tokens that are looked at; None: all of them.
    """
    return _detector_flops(config.to_json_string(use_diff=False), seen or token_count(config))


@lru_cache(maxsize=16)
def _detector_flops(config, seen):
    values = json.loads(config)
    model = empty_model({key: values[key] for key in CONFIG_KEYS}, "detector")
    shape = (model.config.num_frames, model.config.num_channels, *input_size(model.config))
    with torch.device("meta"):
        clip = torch.empty(1, *shape)

    def one_pass():
        # Tokens that are not seen are left out after the projection, as VideoMAE does it.
        tokens = model.videomae.embeddings.patch_embeddings(clip)[:, :seen]
        hidden = model.videomae.encoder(tokens).last_hidden_state
        return model.classifier(hidden.mean(1))

    return flops(one_pass), flops_with_backward(one_pass)
