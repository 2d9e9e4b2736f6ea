"""What is drawn at random for a mini-batch: the order of the clips, mirroring, noise and hidden
tokens."""

from dataclasses import dataclass

import torch

from lvd.data.transforms import input_size
from lvd.detectors.videomae import token_count


@dataclass
class Batch:
    """What one optimiser step of one detector, or of K with a leading dimension, looks at.

    rows: [B] which clips; mirrored: [B] bool; noise: of the shape of the clips; kept: [B, t] tokens
    that are seen.
    """

    rows: torch.Tensor
    mirrored: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    kept: torch.Tensor | None = None

    @staticmethod
    def stack(batches, device):
        """The batches of K detectors as one; `rows` stay on the CPU, where the data are."""
        found = {}
        for name in Batch.__dataclass_fields__:
            parts = [getattr(batch, name) for batch in batches]
            found[name] = (
                None
                if parts[0] is None
                else torch.stack(parts).to("cpu" if name == "rows" else device)
            )
        return Batch(**found)


class Draws:
    """The batches of one detector, epoch after epoch, from its own generator.

    labels: [N] of the clips that it is trained on; rows: [N] their places in the data; config: the
    model's.
    """

    def __init__(self, labels, rows, config, settings, seed):
        self.rows, self.settings, self.tokens = rows, settings, token_count(config)
        self.shape = (config.num_channels, config.num_frames, *input_size(config))
        self.generator = torch.Generator().manual_seed(seed)
        self.orders = epoch_order(labels, self.generator)

    def epoch(self):
        """Yield the Batch of each optimiser step of one epoch."""
        for order in next(self.orders).split(self.settings["batch_size"]):
            count = len(order)
            mirrored, noise = draw_augmentation((count, *self.shape), self.settings, self.generator)
            kept = None
            if self.settings["mask"]:
                seen = max(1, round((1 - self.settings["mask"]) * self.tokens))
                order_of_tokens = torch.rand(count, self.tokens, generator=self.generator).argsort(
                    1
                )
                kept = order_of_tokens[:, :seen].sort(1)[0]
            yield Batch(self.rows[order], mirrored, noise, kept)


def epoch_order(labels, generator):
    """Endless epochs: indices of all unsafe clips and as many normal ones, shuffled.

    Epochs take the normal clips in turn, so that all are seen when there are more of them than
    unsafe ones.
    """
    unsafe, normal = torch.where(labels == 1)[0], torch.where(labels == 0)[0]
    waiting = normal[:0]
    while True:
        while len(waiting) < len(unsafe):
            waiting = torch.cat([waiting, normal[torch.randperm(len(normal), generator=generator)]])
        epoch = torch.cat([unsafe, waiting[: len(unsafe)]])
        waiting = waiting[len(unsafe) :]
        yield epoch[torch.randperm(len(epoch), generator=generator)]


def draw_augmentation(shape, settings, generator):
    """(mirrored: bool [B], noise: [B, C, F, H, W]) for clips of that shape; None for what the
    settings do without."""
    mirrored = torch.rand(shape[0], generator=generator) < 0.5 if settings["flip"] else None
    noise = torch.randn(shape, generator=generator) if settings["noise"] else None
    return mirrored, noise


def augment(inputs, mirrored, noise, settings):
    """Mirror left-right and add noise, in units of the channels' standard deviation: inputs [...,
    C, F, H, W].

    Both hold for latents: the autoencoder is a convolution, close to mirror-symmetric. Frames keep
    their order.
    """
    if mirrored is not None:
        inputs = torch.where(
            mirrored.to(inputs.device)[..., None, None, None, None], inputs.flip(-1), inputs
        )
    if noise is not None:
        inputs = inputs + settings["noise"] * noise.to(inputs.device)
    return inputs


def random_mask(tokens, clips, share, generator):
    """Boolean [clips, tokens]: True for `share` of each clip's tokens, at least one, never all.
    None for a share of 0."""
    if not share:
        return None
    hidden = min(tokens - 1, max(1, round(share * tokens)))
    return torch.rand(clips, tokens, generator=generator).argsort(1) < hidden
