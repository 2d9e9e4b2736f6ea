"""Whether a detector sees anything: two clips that have nothing in common must score differently.

A statistic of 1e30, or weights of zero, give all clips one score. Such a detector would pass for
one that finds nothing unsafe.
"""

import math

import torch

from lvd.data.transforms import input_size, normalise
from lvd.detectors.videomae import token_count
from lvd.errors import InputError

# The range of clips: pixels, previews, and latents, whose standard deviation is about 1.
RANGES = {"video": (0.0, 1.0), "rgb": (-1.0, 1.0), "latent": (-4.0, 4.0)}
TOKENS = 8  # of each clip that the network is shown, so that a large network takes no time
ROUNDING = 1e-6  # the order of additions moves log-odds by as much
TOGETHER = 1 << 26  # bytes of clips that are computed at once


def probe_inputs(config, representation, mean, std, device):
    """Return the two probes as networks read them.

    One is the lowest value everywhere. The other rises from the lowest to the highest.

    Args:
        config: VideoMAEConfig.
        representation: of the clips.
        mean, std: [K][C] statistics of K detectors.
        device: of the result.

    Returns:
        float32 [K, 2, C, F, H, W], normalised.
    """
    low, high = RANGES[representation]
    shape = (config.num_channels, config.num_frames, *input_size(config))
    rise = torch.linspace(low, high, math.prod(shape), dtype=torch.float32, device=device)
    clips = torch.stack([torch.full_like(rise, low), rise]).view(2, *shape)
    mean = torch.as_tensor(mean, dtype=torch.float32, device=device)
    std = torch.as_tensor(std, dtype=torch.float32, device=device)
    return normalise(clips, mean[:, None], std[:, None])


def hidden_tokens(config, clips, device):
    """Return which tokens of probes are not shown: bool [clips, tokens]; None if all are shown."""
    tokens = token_count(config)
    if tokens <= TOKENS:
        return None
    hidden = torch.ones(clips, tokens, dtype=torch.bool, device=device)
    hidden[:, torch.arange(TOKENS, device=device) * tokens // TOKENS] = False
    return hidden


def together(config):
    """Return for how many detectors the probes are computed at once."""
    numbers = 2 * config.num_channels * config.num_frames * math.prod(input_size(config))
    return max(1, TOGETHER // (4 * numbers))


def need_sight(log_odds, name_of):
    """Refuse detectors that answer both probes alike, or with no number.

    Args:
        log_odds: [K, 2, G]: K detectors of G categories, each of both probes. It is these that are
            compared, because the probabilities of a sure detector are both 1.
        name_of: function of (k, g) → what a message calls this detector.

    Raises:
        InputError: naming the first such detector.
    """
    change = (log_odds[:, 1] - log_odds[:, 0]).abs()
    size = log_odds.abs().amax(1).clamp_min(1)
    sees = change > ROUNDING * size  # False for NaN and for two infinities
    if sees.all():
        return
    k, g = (~sees).nonzero()[0].tolist()
    raise InputError(
        f"{name_of(k, g)}: gives two clips that have nothing in common the same score, so it sees "
        "nothing; one that was trained on such clips is needed"
    )
