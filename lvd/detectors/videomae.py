"""The VideoMAE networks that detectors are made of: their sizes and the shape of their input."""

import json
from copy import deepcopy
from functools import lru_cache

import torch
from einops import rearrange

from lvd.data.transforms import input_size
from lvd.detectors.base_model import load_base_model
from lvd.errors import InputError, words_of

BASE_MODEL = "MCG-NJU/videomae-base"
# size: hidden width, layers, heads, feed-forward ratio, frames per token (a power of two)
SIZES = {
    "base": None,
    "small": (384, 12, 6, 4, 2),
    "tiny": (192, 12, 3, 4, 2),
    "nano": (32, 2, 4, 2, 4),
}
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # VideoMAE's own input normalisation
CONFIG_KEYS = (
    "image_size",
    "patch_size",
    "num_channels",
    "num_frames",
    "tubelet_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "qv_bias",
    "use_mean_pooling",
    "hidden_dropout_prob",
)


def scratch_config(size, clip_shape, representation, dropout=0.0):
    """Return the config of an untrained network.

    Args:
        size: a key of SIZES; base: VideoMAE-base's own layers.
        clip_shape: (C, F, H, W) of the clips that it reads.
        representation: of the clips.
        dropout: of the hidden layers.

    Returns:
        A VideoMAEConfig with two classes.
    """
    from transformers import VideoMAEConfig

    if size == "base":
        return VideoMAEConfig(
            num_labels=2, hidden_dropout_prob=dropout, **_geometry(clip_shape, representation, 2)
        )
    hidden, layers, heads, ratio, tubelet = SIZES[size]
    # Unit-variance layers: VideoMAE's 0.02 suits width 768 and starves narrow ones of gradient.
    return VideoMAEConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_labels=2,
        intermediate_size=ratio * hidden,
        hidden_dropout_prob=dropout,
        initializer_range=hidden**-0.5,
        **_geometry(clip_shape, representation, tubelet),
    )


def pretrained_model(base_model, clip_shape, representation, dropout):
    """Load the network that fine-tuning starts from.

    For latents the patch projection is new and the rest is kept: VideoMAE's positions are a fixed
    table, so another number of tokens is no obstacle.

    Args:
        base_model: local folder or hub name.
        clip_shape: (C, F, H, W) of the clips.
        representation: of the clips.
        dropout: of the hidden layers.

    Raises:
        InputError: there is no such VideoMAE model.
    """
    geometry = {} if representation == "video" else _geometry(clip_shape, representation, 2)
    settings = {"num_labels": 2, "hidden_dropout_prob": dropout, **geometry}
    return load_base_model(base_model, {**settings, "ignore_mismatched_sizes": True})


def _geometry(clip_shape, representation, tubelet):
    """Return the config keys of input and patch sizes.

    A frame has 8 x 8 patches where the clip allows: patches of 2 x 2 latents at least, 16 x 16 px
    at most.
    """
    channels, frames, height, width = clip_shape
    if representation == "video":
        scale = min(1.0, 224 / max(height, width))
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    patch = min(16, max(2, max(height, width) // 8))
    while tubelet > 1 and frames % tubelet:
        tubelet //= 2
    return {
        "num_channels": channels,
        "num_frames": frames,
        "tubelet_size": tubelet,
        "patch_size": patch,
        "image_size": [patch * max(1, round(height / patch)), patch * max(1, round(width / patch))],
    }


def empty_model(config, path):
    """Return a VideoMAEForVideoClassification without weights, on the meta device.

    Args:
        config: keys of VideoMAEConfig.
        path: where they come from, for messages.
    """
    from huggingface_hub.errors import StrictDataclassError

    try:
        return deepcopy(_template(json.dumps(config)))
    except (TypeError, ValueError, AttributeError, StrictDataclassError) as error:
        raise InputError(f"{path}: not a usable VideoMAE config ({words_of(error)})") from error


@lru_cache(maxsize=4)
def _template(config):
    """The network of a config, which is JSON. VideoMAE-base's table of positions takes seconds."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    with torch.device("meta"):
        return VideoMAEForVideoClassification(VideoMAEConfig(num_labels=2, **json.loads(config)))


def frames_first(clips):
    """Return clips [N, C, F, H, W] as VideoMAE takes them, [N, F, C, H, W]."""
    return rearrange(clips, "n c f h w -> n f c h w")


def token_grid(config):
    """Return how many tokens a clip has: (over frames, over height, over width)."""
    height, width = input_size(config)
    return (
        config.num_frames // config.tubelet_size,
        height // config.patch_size,
        width // config.patch_size,
    )


def token_count(config):
    """Return how many tokens a clip has."""
    frames, height, width = token_grid(config)
    return frames * height * width
