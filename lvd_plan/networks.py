"""The detectors' networks: what they read, and how many weights they have."""

from pathlib import Path

from lvd.data.transforms import input_size
from lvd.detectors.videomae import CONFIG_KEYS, scratch_config, token_count
from lvd.utils.files import load_json

GEOMETRY = ("image_size", "patch_size", "num_channels", "num_frames", "tubelet_size")


def clip_shape(inputs):
    """Return (C, F, H, W) of a clip, as the config's representation has it."""
    channels, frames, height, width = inputs.latents
    settings = inputs.sampling.settings
    return {
        "latent": (channels, frames, height, width),
        "rgb": (3, frames, height, width),
        "video": (3, settings.L, settings.H, settings.W),
    }[inputs.data.representation]


def network_config(inputs, settings):
    """Return the VideoMAEConfig of a training's networks.

    Args:
        inputs: Inputs.
        settings: of the training.
    """
    from transformers import VideoMAEConfig

    representation = inputs.data.representation
    config = scratch_config(settings.size, clip_shape(inputs), representation)
    if settings.size != "base":
        return config
    folder = Path(settings.base_model)
    known = load_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    kept = {key: known[key] for key in CONFIG_KEYS if key in known}
    if representation == "video":  # as it was pretrained: VideoMAE-base reads 224 x 224 pixels
        return VideoMAEConfig(**{**kept, "num_labels": 2})
    geometry = {key: getattr(config, key) for key in GEOMETRY}
    return VideoMAEConfig(**{**kept, **geometry, "num_labels": 2})


def tensor_count(config):
    """Return the number of tensors that the weights of a detector lie in."""
    return 6 + config.num_hidden_layers * (16 if config.qv_bias else 14)


def weight_count(config):
    """Return the number of weights of a detector of one category and step."""
    return _encoder(config) + 2 * config.hidden_size + 2 * (config.hidden_size + 1)


def shared_weight_count(config, steps, categories):
    """Return the number of weights of a network for all steps and categories."""
    width = config.hidden_size
    return _encoder(config) + 2 * width + 3 * steps * width + categories * (width + 1)


def _encoder(config):
    """Weights of the patch projection and the layers; positions are a fixed table."""
    width, inner = config.hidden_size, config.intermediate_size
    patch = config.num_channels * config.tubelet_size * config.patch_size**2
    biases = 2 * width if config.qv_bias else 0  # of queries and values
    attention = 4 * width * width + width + biases
    layer = attention + 2 * width * inner + inner + width + 4 * width
    return (patch + 1) * width + config.num_hidden_layers * layer


def input_values(config):
    """Return the numbers of a clip at the size that a network reads."""
    height, width = input_size(config)
    return config.num_channels * config.num_frames * height * width


def seen_tokens(config, settings):
    """Return how many tokens of a clip a training looks at."""
    return max(1, round((1 - settings.mask) * token_count(config)))


def layers(config):
    """Return how many layers a GPU is told to compute in a pass; the rest counts as one."""
    return config.num_hidden_layers + 1
