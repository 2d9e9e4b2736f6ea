"""Pre-training without labels on recorded x0 (VideoMAE, Tong et al. 2022).

Most patches of a clip are hidden, the same ones in all frames (tube masking), and the encoder
learns features from which a small decoder fills them in. Clips of all steps take part, held-out
videos never.
"""

import torch

from lvd.detectors.detector import build_detector
from lvd.detectors.pretrained import FORMAT, PRETRAINED, load_pretrained_file
from lvd.detectors.videomae import BASE_MODEL, CONFIG_KEYS, frames_first, token_grid
from lvd.training.augment import random_mask
from lvd.training.rows import rows_without_labels
from lvd.utils.files import save_torch


class PretrainTask:
    """What ResumableRun needs to know to train {save_dir}/pretrained.pth.

    Attributes:
        rows: Rows of all videos; train: their positions; there is no validation.
        identity: {key: value} that the weights follow from.
        net: VideoMAEForPreTraining, once it is built.
        mean, std: [S, C] statistics of the training clips, set by the run.
    """

    noun, file_name = "pretrained encoder", PRETRAINED

    def __init__(self, job):
        self.job, self.net, self.mean, self.std = job, None, None, None
        self.rows = rows_without_labels(job.source, job.split, job.steps)
        self.train = torch.arange(len(self.rows.videos))
        self.identity = _without_labels(
            {**job.identity(), "steps": job.steps, "rows": self.rows.by_kind()}
        )

    def load_about(self, path):
        """Return what a finished result says about itself, but for the label file."""
        return _without_labels(load_pretrained_file(path, mmap=True)["about"])

    def build(self, clip_shape):
        """Return the network for clips [C, F, H, W], untrained."""
        settings = self.job.settings
        self.net = build_pretraining(
            settings.size,
            clip_shape,
            self.job.source.representation,
            settings.seed,
            settings.dropout,
            settings.base_model,
        )
        return self.net

    def hidden(self, clips, generator):
        """Draw which tokens of so many clips are hidden: bool [clips, tokens]."""
        return tube_mask(self.net.config, clips, self.job.settings.mask, generator)

    def loss(self, inputs, at, videos, hidden):
        """Return the mean square error of the hidden patches.

        Args:
            inputs: [B, C, F, H, W], normalised and augmented.
            at, videos: steps and videos of the inputs; they do not matter here.
            hidden: of `hidden`.
        """
        return self.net(frames_first(inputs), hidden).loss

    def validate(self, clips):
        """Measure nothing: all videos are trained on."""
        return {}

    def save(self, path, clips, facts):
        """Write the encoder.

        Args:
            path: of the file.
            clips: AllClips; not needed here.
            facts: {key: value} of the run, for the file.

        Returns:
            What the file says about the encoder.
        """
        encoder = {
            key: value.detach().to("cpu").clone()
            for key, value in self.net.state_dict().items()
            if key.startswith("videomae.")
        }
        about = {**self.identity, **facts}
        save_torch(
            {
                "format": FORMAT,
                "state_dict": encoder,
                "config": {key: getattr(self.net.config, key) for key in CONFIG_KEYS},
                "representation": self.job.source.representation,
                "about": about,
            },
            path,
        )
        return about


def build_pretraining(size, clip_shape, representation, seed, dropout=0.0, base_model=BASE_MODEL):
    """Return a VideoMAEForPreTraining whose encoder is that of `build_detector`.

    Its decoder is half as wide and a third as deep. Arguments: see `build_detector`.
    """
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    start = build_detector(size, clip_shape, representation, seed, dropout, base_model).model
    heads = start.config.num_attention_heads
    width = max(32, start.config.hidden_size // 2 // heads * heads)
    config = VideoMAEConfig(
        **{key: getattr(start.config, key) for key in CONFIG_KEYS},
        decoder_hidden_size=width,
        initializer_range=start.config.initializer_range,
        decoder_num_attention_heads=heads,
        decoder_num_hidden_layers=max(1, start.config.num_hidden_layers // 3),
        decoder_intermediate_size=2 * width,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = VideoMAEForPreTraining(config)
    net.videomae.load_state_dict(start.videomae.state_dict())
    return net


def tube_mask(config, clips, share, generator):
    """Draw which tokens are hidden: the same places of the picture in all frames of a clip.

    Args:
        config: VideoMAEConfig.
        clips: how many.
        share: of the tokens that are hidden.
        generator: of the draw.

    Returns:
        bool [clips, tokens], True where a token is hidden.
    """
    frames, height, width = token_grid(config)
    return random_mask(height * width, clips, share, generator).repeat(1, frames)


def _without_labels(identity):
    """The identity without the hash of the label file, which does not matter: rows are compared."""
    dataset = dict(identity.get("dataset", {}))
    dataset.pop("label_sha256", None)
    return {**identity, "dataset": dataset}
