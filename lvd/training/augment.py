"""What is drawn at random for a mini-batch: order of clips, mirroring, noise, hidden tokens."""

from dataclasses import dataclass, fields

import torch

from lvd.data.transforms import input_size
from lvd.detectors.videomae import token_count


@dataclass
class Batch:
    """What one optimiser step of one detector sees, or of K with a leading dimension.

    Attributes:
        rows: [B] which clips.
        mirrored: bool [B], None: no clip.
        noise: of the clips' shape [B, C, F, H, W], None: none.
        kept: [B, t] numbers of the tokens that are seen, None: all.
    """

    rows: torch.Tensor
    mirrored: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    kept: torch.Tensor | None = None

    @staticmethod
    def stack(batches, device):
        """Return the batches of K detectors as one; `rows` stay on the CPU, where the data are."""
        stacked = Batch(torch.stack([batch.rows for batch in batches]))
        for name in [field.name for field in fields(Batch)][1:]:
            parts = [getattr(batch, name) for batch in batches]
            if parts[0] is not None:
                setattr(stacked, name, torch.stack(parts).to(device))
        return stacked


class Draws:
    """The batches of one detector, epoch after epoch, from its own generator."""

    def __init__(self, labels, rows, config, settings, seed):
        """
        Args:
            labels: [N] of the clips that the detector is trained on, 1 for unsafe.
            rows: [N] their places in the data.
            config: the model's VideoMAEConfig.
            settings: GridSettings.
            seed: of all that is drawn.
        """
        self.rows, self.settings, self.tokens = rows, settings, token_count(config)
        self.shape = config.num_channels, config.num_frames, *input_size(config)
        self.generator = torch.Generator().manual_seed(seed)
        self.orders = epoch_order(labels, self.generator)

    def epoch(self):
        """Yield the Batch of each optimiser step of one epoch."""
        for order in next(self.orders).split(self.settings.batch_size):
            shape = len(order), *self.shape
            mirrored, noise = draw_augmentation(shape, self.settings, self.generator)
            kept = self._kept(len(order)) if self.settings.mask else None
            yield Batch(self.rows[order], mirrored, noise, kept)

    def _kept(self, clips):
        """Tokens that are seen, [clips, t] in rising order."""
        seen = max(1, round((1 - self.settings.mask) * self.tokens))
        ranks = torch.rand(clips, self.tokens, generator=self.generator).argsort(1)
        return ranks[:, :seen].sort(1)[0]


def epoch_order(labels, generator):
    """Yield endless epochs: places of all unsafe clips and as many normal ones, shuffled.

    Epochs take the normal clips in turn, so that all are seen when there are more of them than
    unsafe ones. labels: [N], 1 for unsafe.
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
    """Draw what `augment` does to some clips.

    Args:
        shape: of the clips, [B, C, F, H, W].
        settings: TrainSettings.
        generator: torch.Generator.

    Returns:
        (mirrored: bool [B], noise: [B, C, F, H, W]); None for what the settings do without.
    """
    mirrored = torch.rand(shape[0], generator=generator) < 0.5 if settings.flip else None
    noise = torch.randn(shape, generator=generator) if settings.noise else None
    return mirrored, noise


def augment(inputs, mirrored, noise, settings):
    """Mirror clips left-right and add noise.

    Both hold for latents: the autoencoder is a convolution, close to mirror-symmetric. Frames keep
    their order.

    Args:
        inputs: [..., C, F, H, W], in units of the channels' standard deviation.
        mirrored, noise: of `draw_augmentation`.
        settings: TrainSettings.
    """
    if mirrored is not None:
        mirrored = mirrored.to(inputs.device)[..., None, None, None, None]
        inputs = torch.where(mirrored, inputs.flip(-1), inputs)
    if noise is not None:
        inputs = inputs + settings.noise * noise.to(inputs.device)
    return inputs


def random_mask(tokens, clips, share, generator):
    """Draw which tokens are hidden. At least one is hidden, and at least one is seen.

    Args:
        tokens: of a clip.
        clips: how many.
        share: of each clip's tokens that is hidden.
        generator: torch.Generator.

    Returns:
        bool [clips, tokens], True for a hidden token; None for a share of 0.
    """
    if not share:
        return None
    hidden = min(tokens - 1, max(1, round(share * tokens)))
    return torch.rand(clips, tokens, generator=generator).argsort(1) < hidden
