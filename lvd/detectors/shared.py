"""The shared detector: one network that is told the denoising step, with a logit per category.

It takes the place of steps x categories separate detectors. The step enters a VideoMAE encoder
twice: an embedding is added to every token, and another scales and shifts the pooled features. They
come from tables with a row for each step, or from the step's noise level (step_inputs).
Inputs are normalised with the step's own statistics, because those of predicted x0 change from step
to step. The file, shared.pth, holds all that is needed to read a clip.
"""

from dataclasses import dataclass, field

import torch
from torch import nn

from lvd.data.transforms import normalise, resize_clips
from lvd.detectors.detector import build_detector, check_threshold
from lvd.detectors.precision import own_precision
from lvd.detectors.probes import hidden_tokens, need_sight, probe_inputs, together
from lvd.detectors.schemas import SharedFile
from lvd.detectors.step_inputs import LevelNetwork
from lvd.detectors.videomae import BASE_MODEL, CONFIG_KEYS, empty_model, frames_first
from lvd.detectors.weights import load_weights, need_config_of_weights, need_plain_weights
from lvd.errors import InputError
from lvd.utils.files import load_torch, save_torch
from lvd.utils.schema import checked

FORMAT = "lvd shared detector 1"
# What a SharedDetector takes from its file as it is.
KNOWN = (
    "representation",
    "steps",
    "categories",
    "levels",
    "mean",
    "std",
    "thresholds",
    "calibrations",
    "about",
)


class SharedNet(nn.Module):
    """VideoMAE's encoder with embeddings of the step, and a logit for each category."""

    def __init__(self, model, steps, categories, levels=None):
        """
        Args:
            model: VideoMAEForVideoClassification, whose encoder and norm become this network's.
            steps, categories: how many.
            levels: [steps] noise levels, where the network is told the level; None: the step.
        """
        super().__init__()
        width = model.config.hidden_size
        self.config, self.videomae = model.config, model.videomae
        self.norm = model.fc_norm if model.fc_norm is not None else nn.LayerNorm(width)
        self.level_network = None
        if levels is None:
            self.step_embedding = nn.Embedding(steps, width)
            self.modulation = nn.Embedding(steps, 2 * width)  # as FiLM, Perez et al. 2018
        else:
            self.level_network = LevelNetwork(levels, width)
        self.classifier = nn.Linear(width, categories)

    def initialise(self, seed):
        """Begin with small random embeddings, no modulation, and even odds for every category."""
        if self.level_network is None:
            generator = torch.Generator().manual_seed(seed)
            nn.init.normal_(self.step_embedding.weight, std=0.02, generator=generator)
            nn.init.zeros_(self.modulation.weight)
        else:
            self.level_network.initialise(seed)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, inputs, at, hidden=None, levels=None):
        """Return logits [N, G].

        Args:
            inputs: normalised clips [N, C, F, H, W].
            at: [N] positions in the list of steps.
            hidden: bool [N, tokens], True for tokens that are not seen. Every clip has the same
                number of them.
            levels: [N] noise levels in place of those of `at`, for a network that is told them.
        """
        if self.level_network is None:
            added, modulation = self.step_embedding(at), self.modulation(at)
        else:
            added, modulation = self.level_network(at, levels)
        tokens = self.videomae.embeddings(frames_first(inputs), hidden)
        tokens = tokens + added[:, None]
        features = self.videomae.encoder(tokens).last_hidden_state
        if self.videomae.layernorm is not None:
            features = self.videomae.layernorm(features)
        scale, shift = modulation.chunk(2, -1)
        return self.classifier(self.norm(features.mean(1)) * (1 + scale) + shift)


@dataclass
class SharedDetector:
    """A SharedNet with everything needed to read a clip.

    Attributes:
        mean, std: [S, C] input normalisation.
        thresholds: [S][G] raw probabilities, chosen on validation clips.
        calibrations: [S][G] dicts that `lvd.detectors.calibration.to_dict` made.
        about: provenance (rows, eval_sha256, dataset, seed, settings, metrics, versions).
        levels: [S] noise levels of the steps, where the network is told them; None: it is told the
            step.
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
    levels: list | None = None

    def at(self, step):
        """Return the position of a step; InputError for one that the model does not know."""
        if step not in self.steps:
            raise InputError(
                f"step {step}: the shared detector was trained for steps {self.steps[0]} to "
                f"{self.steps[-1]}"
            )
        return self.steps.index(step)


def build_shared(
    size,
    clip_shape,
    representation,
    seed,
    steps,
    categories,
    dropout=0.0,
    base_model=BASE_MODEL,
    levels=None,
):
    """Return an untrained SharedDetector.

    Args:
        size, clip_shape, representation, seed, dropout, base_model: see `build_detector`.
        steps: numbers of the denoising steps.
        categories: names.
        levels: [S] noise levels of the steps, for a network that is told them; None: it is told the
            step.
    """
    model = build_detector(size, clip_shape, representation, seed, dropout, base_model).model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SharedNet(model, len(steps), len(categories), levels)
        net.initialise(seed)
    channels = clip_shape[0]
    return SharedDetector(
        net,
        representation,
        list(steps),
        list(categories),
        torch.zeros(len(steps), channels, dtype=torch.float32, device="cpu"),
        torch.ones(len(steps), channels, dtype=torch.float32, device="cpu"),
        levels=None if levels is None else list(levels),
    )


def predict_shared(detector, step, clips, batch_size=64, level=None):
    """Return the probability of unsafe by every category, float32 [N, G] on the CPU.

    Args:
        detector: SharedDetector.
        step: of all clips.
        clips: [N, C, F, H, W].
        batch_size: clips that are computed at once.
        level: noise level of all clips, where it is not the trained step's; None: that one. A
            network that is told the step does not take it into account.
    """
    device = next(detector.net.parameters()).device
    detector.net.eval()
    place = detector.at(step)
    scores = [torch.zeros(0, len(detector.categories), dtype=torch.float32, device="cpu")]
    with own_precision(detector.net) as dtype:
        for part in clips.split(batch_size):
            at = torch.full((len(part),), place, dtype=torch.long, device=device)
            resized = resize_clips(part.to(device), detector.net.config)
            inputs = normalise(resized, detector.mean, detector.std, at).to(dtype)
            levels = None if level is None else torch.full_like(at, level, dtype=dtype)
            scores.append(detector.net(inputs, at, levels=levels).float().sigmoid().cpu())
    return torch.cat(scores)


def save_shared(detector, path):
    """Write shared.pth, atomically."""
    save_torch(
        {
            "format": FORMAT,
            **network_content(detector),
            "thresholds": detector.thresholds,
            "calibrations": detector.calibrations,
            "about": detector.about,
        },
        path,
    )


def network_content(detector):
    """Return what a file holds of a SharedDetector's network: weights, config and inputs.

    levels are told where the network is told them.
    """
    state = {
        key: value.detach().to("cpu").clone() for key, value in detector.net.state_dict().items()
    }
    levels = {} if detector.levels is None else {"levels": detector.levels}
    return {
        "state_dict": state,
        "config": {k: getattr(detector.net.config, k) for k in CONFIG_KEYS},
        "representation": detector.representation,
        "steps": detector.steps,
        "categories": detector.categories,
        "mean": detector.mean,
        "std": detector.std,
        **levels,
    }


def load_shared(path, device="cpu"):
    """Return the SharedDetector of a file written by `save_shared`.

    Raises:
        InputError: the file is damaged, its weights do not fit its config or are not finite, or a
            category at a step gives all clips the same score.
    """
    return detector_of_content(load_shared_file(path), path, device)


def detector_of_content(content, path, device="cpu"):
    """Return the SharedDetector of the checked content of a file; see `load_shared`."""
    known = {key: content[key] for key in KNOWN if key in content}
    with torch.device("meta"):
        model = empty_model(content["config"], path)
        levels = known.get("levels")
        net = SharedNet(model, len(known["steps"]), len(known["categories"]), levels)
    load_weights(net, content["state_dict"], path)
    detector = SharedDetector(net.to(device), **known)
    _need_sight(detector, path)
    return detector


def _need_sight(detector, path):
    """Look at every category at every step."""
    net, device = detector.net, next(detector.net.parameters()).device
    positions = torch.arange(len(detector.steps), device=device)
    for at in positions.split(together(net.config)):
        places = at.tolist()
        statistics = detector.mean[places], detector.std[places]
        inputs = probe_inputs(net.config, detector.representation, *statistics, device)
        with own_precision(net) as dtype:
            hidden = hidden_tokens(net.config, 2 * len(at), device)
            found = net(inputs.flatten(0, 1).to(dtype), at.repeat_interleave(2), hidden)

        def name(k, g, places=places):
            return f"{path}: step {detector.steps[places[k]]}, {detector.categories[g][:80]}"

        need_sight(found.unflatten(0, (-1, 2)), name)


def load_shared_file(path, mmap=False):
    """Return the checked content of a shared.pth, {key of lvd.detectors.schemas.SharedFile: value}.

    Raises:
        InputError: another file, or one that is damaged.
    """
    content = load_torch(path, mmap=mmap)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: not a shared detector; train_mae.py --model shared makes one")
    checked(SharedFile, content, path)
    steps, categories = content["steps"], content["categories"]
    for key in ("thresholds", "calibrations"):
        widths = [len(row) for row in content[key]]
        if widths != [len(categories)] * len(steps):
            raise InputError(
                f"{path}: {key} do not fit its {len(steps)} steps and {len(categories)} categories"
            )
    for step, row in zip(steps, content["thresholds"], strict=True):
        for category, threshold in zip(categories, row, strict=True):
            check_threshold(threshold, f"{path}: step {step}, {category[:80]}")
    need_plain_weights(content["state_dict"], path)
    need_config_of_weights(content["config"], content["state_dict"], path)
    return content
