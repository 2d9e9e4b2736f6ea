"""Self-supervised pre-training (VideoMAE, Tong et al., 2022) on recorded x0: which clips are unsafe
is not asked.

Most patches of a clip are hidden, the same ones in all frames (tube masking), and the encoder
learns what lets a small decoder fill them in. Clips of all steps take part, held-out videos never.
"""

import torch

from lvd.data.transforms import input_size, normalise
from lvd.detectors.detector import build_detector
from lvd.detectors.pretrained import FORMAT, PRETRAINED, load_pretrained_file
from lvd.detectors.videomae import CONFIG_KEYS
from lvd.errors import InputError
from lvd.training.augment import random_mask
from lvd.training.resumable import SAVE_EVERY, ResumableRun
from lvd.training.shared import Rows
from lvd.utils.config import versions
from lvd.utils.files import save_torch


class PretrainRun(ResumableRun):
    """Trains {save_dir}/pretrained.pth on the clips of all steps that are not held out: see
    ResumableRun."""

    noun, result, checkpoint = "pretrained encoder", PRETRAINED, "pretrained.training.pth"
    curve_names = "pretrained_curve.csv", "pretrained_curve.png"

    def __init__(
        self,
        source,
        split,
        settings,
        steps,
        eval_sha256,
        save_dir,
        device="cpu",
        save_every=SAVE_EVERY,
    ):
        super().__init__(source, settings, steps, save_dir, device, save_every)
        self.rows = _rows(source, split, self.steps)
        self.train = torch.arange(len(self.rows.videos))
        self.identity = _without_labels(self._common_identity(eval_sha256))
        self._resume(lambda path: load_pretrained_file(path, mmap=True))

    def _network(self, shape):
        settings = self.settings
        return build_pretraining(
            settings["size"],
            shape,
            self.source.representation,
            self.seed,
            settings["dropout"],
            settings["base_model"],
        )

    def _loss(self, videos, at, clips, generator):
        inputs = self._augmented(normalise(clips, self.mean, self.std, at), generator)
        hidden = tube_mask(self.net.config, len(inputs), self.settings["mask"], generator)
        return self.net(inputs.transpose(1, 2), hidden.to(self.device)).loss

    def _look(self):
        return {}

    def _need_same(self, before, path):
        super()._need_same(_without_labels(before), path)

    def _result(self):
        encoder = {
            key: value.detach().to("cpu").clone()
            for key, value in self.net.state_dict().items()
            if key.startswith("videomae.")
        }
        about = {
            **self.identity,
            "seed": self.seed,
            "data_sha256": self.clips.sha256,
            "curve": self.curve,
            "seconds": self.seconds(),
            "versions": versions(),
        }
        save_torch(
            {
                "format": FORMAT,
                "state_dict": encoder,
                "config": {k: getattr(self.net.config, k) for k in CONFIG_KEYS},
                "representation": self.source.representation,
                "about": about,
            },
            self.save_dir / PRETRAINED,
        )


def build_pretraining(size, clip_shape, representation, seed, dropout=0.0, base_model=None):
    """VideoMAEForPreTraining whose encoder is that of `build_detector`, with a decoder half as wide
    and a third as deep."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    start = build_detector(
        size, clip_shape, representation, seed, dropout, *([base_model] if base_model else [])
    ).model
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
    """Boolean [N, tokens], True where a token is hidden: the same places of the picture in all
    frames of a clip."""
    height, width = input_size(config)
    places = (height // config.patch_size) * (width // config.patch_size)
    return random_mask(places, clips, share, generator).repeat(
        1, config.num_frames // config.tubelet_size
    )


def _without_labels(identity):
    """Which label file there was does not matter: the rows are compared."""
    dataset = {
        key: value for key, value in identity.get("dataset", {}).items() if key != "label_sha256"
    }
    return {**identity, "dataset": dataset}


def _rows(source, split, steps):
    """Rows of all videos that are not held out, in whatever label column or none."""
    videos = []
    for kind in ("unsafe", "normal"):
        held = set(getattr(split, kind))
        videos += [(kind, row) for row in source.rows(kind, steps[0]) if row not in held]
    if not videos:
        raise InputError(f"{source.place('unsafe', steps[0])}: no clips that are not held out")
    return Rows(videos, torch.zeros(len(videos), 0))
