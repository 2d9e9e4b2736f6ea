"""Self-supervised pre-training (VideoMAE, Tong et al., 2022) on recorded x0: which clips are unsafe is not asked.

Most patches of a clip are hidden, the same ones in all frames (tube masking), and the encoder learns what lets a small
decoder fill them in. Clips of all steps take part, held-out videos never.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from lvd.detector import CONFIG_KEYS, build_detector
from lvd.epoch_run import SAVE_EVERY, EpochRun, random_mask
from lvd.errors import InputError
from lvd.files import load_torch, save_torch, sha256
from lvd.settings import versions
from lvd.shared_clips import Rows
from lvd.source import need_same_recordings, need_same_rgb

FORMAT = "lvd pretrained encoder 1"
PRETRAINED = "pretrained.pth"
FILE_KEYS = {"format", "state_dict", "config", "representation", "about"}
NOT_GEOMETRY = ("hidden_dropout_prob",)


class PretrainRun(EpochRun):
    """Trains {save_dir}/pretrained.pth on the clips of all steps that are not held out: see EpochRun."""

    noun, result, checkpoint = "pretrained encoder", PRETRAINED, "pretrained.training.pth"
    curve_names = "pretrained_curve.csv", "pretrained_curve.png"

    def __init__(self, source, split, settings, steps, eval_sha256, save_dir, device="cpu", save_every=SAVE_EVERY):
        super().__init__(source, settings, steps, save_dir, device, save_every)
        self.rows = _rows(source, split, self.steps)
        self.train = torch.arange(len(self.rows.videos))
        self.identity = _without_labels(self._common_identity(eval_sha256))
        self._resume(lambda path: load_pretrained_file(path, mmap=True))

    def _network(self, shape):
        settings = self.settings
        return build_pretraining(settings["size"], shape, self.source.representation, self.seed, settings["dropout"],
                                 settings["base_model"])

    def _loss(self, videos, at, clips, generator):
        mean, std = (v.to(self.device)[at].view(len(at), -1, 1, 1, 1) for v in (self.mean, self.std))
        inputs = self._augmented((clips.float() - mean) / std, generator)
        hidden = tube_mask(self.net.config, len(inputs), self.settings["mask"], generator)
        return self.net(inputs.transpose(1, 2), hidden.to(self.device)).loss

    def _look(self):
        return {}

    def _need_same(self, before, path):
        super()._need_same(_without_labels(before), path)

    def _result(self):
        encoder = {key: value.detach().to("cpu").clone() for key, value in self.net.state_dict().items()
                   if key.startswith("videomae.")}
        about = {**self.identity, "seed": self.seed, "data_sha256": self.clips.sha256, "curve": self.curve,
                 "seconds": self.seconds(), "versions": versions()}
        save_torch({"format": FORMAT, "state_dict": encoder, "config": {k: getattr(self.net.config, k) for k in CONFIG_KEYS},
                    "representation": self.source.representation, "about": about}, self.save_dir / PRETRAINED)


def build_pretraining(size, clip_shape, representation, seed, dropout=0.0, base_model=None):
    """VideoMAEForPreTraining whose encoder is that of `build_detector`, with a decoder half as wide and a third as deep."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    start = build_detector(size, clip_shape, representation, seed, dropout, *([base_model] if base_model else [])).model
    heads = start.config.num_attention_heads
    width = max(32, start.config.hidden_size // 2 // heads * heads)
    config = VideoMAEConfig(**{key: getattr(start.config, key) for key in CONFIG_KEYS}, decoder_hidden_size=width,
                            initializer_range=start.config.initializer_range, decoder_num_attention_heads=heads,
                            decoder_num_hidden_layers=max(1, start.config.num_hidden_layers // 3),
                            decoder_intermediate_size=2 * width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = VideoMAEForPreTraining(config)
    net.videomae.load_state_dict(start.videomae.state_dict())
    return net


def tube_mask(config, clips, share, generator):
    """Boolean [N, tokens], True where a token is hidden: the same places of the picture in all frames of a clip."""
    size = config.image_size if isinstance(config.image_size, (list, tuple)) else (config.image_size,) * 2
    places = (size[0] // config.patch_size) * (size[1] // config.patch_size)
    return random_mask(places, clips, share, generator).repeat(1, config.num_frames // config.tubelet_size)


@dataclass
class Pretrained:
    """An encoder of pretrain_mae.py that a detector may start from. sha256: of the file."""

    path: Path
    config: dict
    representation: str
    about: dict
    sha256: str

    def check(self, representation, eval_sha256, split, made_by):
        """InputError when it reads other clips, or may have seen what is held out. made_by: of the clips' source."""
        if self.representation != representation:
            raise InputError(f"--init {self.path}: pretrained on {self.representation} clips, these are {representation}")
        known = self.about["eval_sha256"]
        if known != eval_sha256:
            raise InputError(f"--init {self.path}: pretrained with another eval.pth ({known[:12]}..., now {eval_sha256[:12]}"
                             f"...), so it may have seen held-out clips; run pretrain_mae.py with this one")
        before = self.about.get("dataset", {})
        need_same_recordings(f"--init {self.path}", before, made_by, "run pretrain_mae.py on these")
        need_same_rgb(f"--init {self.path}", before, made_by)
        for kind in ("unsafe", "normal"):
            if seen := sorted(set(self.about["rows"][kind]) & set(getattr(split, kind))):
                raise InputError(f"--init {self.path}: pretrained on held-out {kind} row {seen[0]}")

    def into(self, *models):
        """Give its weights to the encoders of VideoMAE classifiers or SharedNets, alike; InputError for another shape."""
        for key in CONFIG_KEYS:
            both = getattr(models[0].config, key), self.config[key]
            here, there = (list(value) if isinstance(value, tuple) else value for value in both)
            if key not in NOT_GEOMETRY and here != there:
                raise InputError(f"--init {self.path}: pretrained with {key} {there}, the detector has {here}; pretrain the "
                                 f"same --size on clips of the same shape")
        state = load_pretrained_file(self.path)["state_dict"]  # only now: a run's processes get this object, not the weights
        for model in models:
            model.videomae.load_state_dict({key.removeprefix("videomae."): value for key, value in state.items()})


def load_pretrained(path):
    """Pretrained of a file written by pretrain_mae.py."""
    found = load_pretrained_file(path, mmap=True)
    return Pretrained(Path(path), found["config"], found["representation"], found["about"], sha256(path))


def load_pretrained_file(path, mmap=False):
    """The checked dict of a pretrained.pth."""
    found = load_torch(path, mmap=mmap)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path}: not a pretrained encoder; pretrain_mae.py makes one")
    if missing := FILE_KEYS - set(found):
        raise InputError(f"{path}: pretrained encoder without '{sorted(missing)[0]}'")
    return found


def _without_labels(identity):
    """Which label file there was does not matter: the rows are compared."""
    dataset = {key: value for key, value in identity.get("dataset", {}).items() if key != "label_sha256"}
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
