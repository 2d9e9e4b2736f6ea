"""One detector for the whole grid: a VideoMAE encoder that is told the denoising step, with a logit
for every category.

It takes the place of steps x categories separate detectors. The step enters twice: an embedding is
added to every token, and another scales and shifts the pooled features. Inputs are normalised with
the step's own statistics, for those of predicted x0 change along the way. The file, shared.pth,
holds all that is needed to read a clip.
"""

from dataclasses import dataclass, field

import torch
from torch import nn

from lvd.data.transforms import normalise, resize_clips
from lvd.detectors.calibration import from_dict
from lvd.detectors.detector import build_detector, check_threshold
from lvd.detectors.videomae import CONFIG_KEYS, empty_model
from lvd.errors import InputError
from lvd.utils.files import load_torch, save_torch

FORMAT = "lvd shared detector 1"
FILE_KEYS = {
    "format",
    "state_dict",
    "config",
    "representation",
    "steps",
    "categories",
    "mean",
    "std",
    "thresholds",
    "calibrations",
    "about",
}


class SharedNet(nn.Module):
    """Encoder and heads. model: VideoMAEForVideoClassification, whose encoder and norm become this
    network's."""

    def __init__(self, model, steps, categories):
        super().__init__()
        width = model.config.hidden_size
        self.config, self.videomae = model.config, model.videomae
        self.norm = model.fc_norm if model.fc_norm is not None else nn.LayerNorm(width)
        self.step_embedding = nn.Embedding(steps, width)
        self.modulation = nn.Embedding(
            steps, 2 * width
        )  # scale and shift, as FiLM (Perez et al., 2018)
        self.classifier = nn.Linear(width, categories)

    def forward(self, inputs, at, hidden=None):
        """Logits [N, G]. inputs: normalised clips [N, C, F, H, W]; at: positions [N] in the list of
        steps; hidden: bool [N, tokens], those that are not looked at, as many of every clip."""
        tokens = (
            self.videomae.embeddings(inputs.transpose(1, 2), hidden)
            + self.step_embedding(at)[:, None]
        )
        hidden = self.videomae.encoder(tokens).last_hidden_state
        if self.videomae.layernorm is not None:
            hidden = self.videomae.layernorm(hidden)
        scale, shift = self.modulation(at).chunk(2, -1)
        return self.classifier(self.norm(hidden.mean(1)) * (1 + scale) + shift)


@dataclass
class SharedDetector:
    """A SharedNet with everything needed to read a clip.

    mean, std: [S, C] input normalisation; thresholds: [S][G] raw probabilities, chosen on
    validation clips; calibrations: [S][G], as `lvd.detectors.calibration.to_dict`; about:
    provenance (rows, eval_sha256, dataset, seed, settings, metrics, versions).
    """

    net: SharedNet
    representation: str
    steps: list
    categories: list
    mean: torch.Tensor
    std: torch.Tensor
    thresholds: list = field(default_factory=list)
    calibrations: list = field(default_factory=list)
    about: dict = field(default_factory=dict)

    def at(self, step):
        """Position of a denoising step; InputError for one that the model does not know."""
        if step not in self.steps:
            raise InputError(
                f"step {step}: the shared detector was trained for steps {self.steps[0]} to "
                f"{self.steps[-1]}"
            )
        return self.steps.index(step)

    def threshold(self, group, step):
        return self.thresholds[self.at(step)][group - 1]

    def calibration(self, group, step):
        return from_dict(self.calibrations[self.at(step)][group - 1], "shared detector")


def build_shared(
    size, clip_shape, representation, seed, steps, categories, dropout=0.0, base_model=None
):
    """An untrained SharedDetector of a size of `build_detector` for clips [C, F, H, W]; a step
    changes nothing yet."""
    model = build_detector(
        size, clip_shape, representation, seed, dropout, *([base_model] if base_model else [])
    ).model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SharedNet(model, len(steps), len(categories))
    nn.init.normal_(
        net.step_embedding.weight, std=0.02, generator=torch.Generator().manual_seed(seed)
    )
    nn.init.zeros_(net.modulation.weight)
    nn.init.zeros_(net.classifier.weight)
    nn.init.zeros_(net.classifier.bias)
    channels = clip_shape[0]
    return SharedDetector(
        net,
        representation,
        list(steps),
        list(categories),
        torch.zeros(len(steps), channels),
        torch.ones(len(steps), channels),
    )


@torch.inference_mode()
def predict_shared(detector, step, clips, batch_size=64):
    """Probability of unsafe by every category, float32 [N, G] on the CPU, of clips [N, C, F, H, W]
    of one step."""
    device = next(detector.net.parameters()).device
    detector.net.eval()
    found = []
    for part in clips.split(batch_size):
        at = torch.full((len(part),), detector.at(step), device=device)
        resized = resize_clips(part.to(device), detector.net.config)
        inputs = normalise(resized, detector.mean, detector.std, at)
        found.append(detector.net(inputs, at).float().sigmoid().cpu())
    return torch.cat(found) if found else torch.zeros(0, len(detector.categories))


def save_shared(detector, path):
    """Write shared.pth, atomically."""
    state = {
        key: value.detach().to("cpu").clone() for key, value in detector.net.state_dict().items()
    }
    save_torch(
        {
            "format": FORMAT,
            "state_dict": state,
            "config": {k: getattr(detector.net.config, k) for k in CONFIG_KEYS},
            "representation": detector.representation,
            "steps": detector.steps,
            "categories": detector.categories,
            "mean": detector.mean,
            "std": detector.std,
            "thresholds": detector.thresholds,
            "calibrations": detector.calibrations,
            "about": detector.about,
        },
        path,
    )


def load_shared(path, device="cpu"):
    """SharedDetector of a file written by `save_shared`."""
    found = load_shared_file(path)
    known = {key: found[key] for key in FILE_KEYS - {"format", "state_dict", "config"}}
    with torch.device("meta"):
        net = SharedNet(
            empty_model(found["config"], path), len(known["steps"]), len(known["categories"])
        )
    try:
        net.load_state_dict(found["state_dict"], assign=True)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1].strip()[:160]
        raise InputError(f"{path}: weights do not fit the shared detector ({reason})") from error
    net.to(device).eval().requires_grad_(False)
    return SharedDetector(net, **known)


def load_shared_file(path, mmap=False):
    """The checked dict of a shared.pth."""
    found = load_torch(path, mmap=mmap)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path}: not a shared detector; train_mae.py --model shared makes one")
    if missing := FILE_KEYS - set(found):
        raise InputError(f"{path}: shared detector without '{sorted(missing)[0]}'")
    shape = len(found["steps"]), len(found["categories"])
    for key in ("thresholds", "calibrations"):
        if len(found[key]) != shape[0] or any(len(row) != shape[1] for row in found[key]):
            raise InputError(
                f"{path}: {key} do not fit its {shape[0]} steps and {shape[1]} categories"
            )
    for step, row in zip(found["steps"], found["thresholds"], strict=True):
        for category, threshold in zip(found["categories"], row, strict=True):
            check_threshold(threshold, f"{path}: step {step}, {category}")
    return found
