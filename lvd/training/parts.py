"""A mini-batch in parts, so that the gradients of a large network fit a GPU of 24 GB.

The gradients of the parts are added before the optimiser step. No layer here mixes the clips of a
mini-batch, so the result is that of the whole one, up to rounding (and, with dropout, other draws).
"""

from lvd.detectors.videomae import token_count
from lvd.training.recipes import PretrainSettings

# Values that the layers may compute for a part, taken as in `values_of_clip`. In float32 with
# gradients, two thirds of them are alive at once: 16 GB, beside 2 GB for VideoMAE-base's weights.
VALUES_AT_ONCE = 6_000_000_000


def parts_of(config, settings, clips):
    """Return the slices of a mini-batch: [slice(0, 32), slice(32, 64), ...], all about as long.

    The small sizes fit whole, and are never split: their results are those of earlier versions.

    Args:
        config: the network's VideoMAEConfig.
        settings: TrainSettings.
        clips: of the mini-batch.
    """
    count = -(-clips // clips_at_once(config, settings))
    size = -(-clips // count)
    return [slice(first, first + size) for first in range(0, clips, size)]


def clips_at_once(config, settings):
    """Return how many clips of a mini-batch a network takes at once, from 1 to the batch size."""
    if settings.size != "base":
        return settings.batch_size
    room = VALUES_AT_ONCE // values_of_clip(config, settings)
    return min(settings.batch_size, max(1, room))


def values_of_clip(config, settings):
    """Return about how many values the layers compute for one clip, a backward pass's needs."""
    tokens = token_count(config)
    seen = max(1, round((1 - settings.mask) * tokens))
    layer = 12 * config.hidden_size + 3 * config.intermediate_size
    values = config.num_hidden_layers * seen * layer
    if isinstance(settings, PretrainSettings):  # its decoder fills in the hidden tokens
        layer = 12 * config.decoder_hidden_size + 3 * config.decoder_intermediate_size
        values += config.decoder_num_hidden_layers * tokens * layer
    return values
