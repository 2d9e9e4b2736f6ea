"""The detector of one unsafe category at one denoising step.

It is a VideoMAE classifier over predicted x0 whose class 1 is unsafe. Size `base` is the paper's:
VideoMAE-base, fine-tuned. `small`, `tiny` and `nano` are built from scratch, with patches that suit
the clip. A detector file holds weights, model config, input representation and provenance; a bare
VideoMAE state dict, as the paper's code writes it, is read too.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lvd.data.transforms import normalise, resize_clips
from lvd.detectors.bare import from_bare
from lvd.detectors.calibration import ARGMAX, IDENTITY, Calibration, from_dict, to_dict
from lvd.detectors.precision import own_precision
from lvd.detectors.probes import hidden_tokens, need_sight, probe_inputs
from lvd.detectors.schemas import GridFile
from lvd.detectors.videomae import (
    BASE_MODEL,
    CONFIG_KEYS,
    IMAGENET,
    SIZES,
    empty_model,
    frames_first,
    pretrained_model,
    scratch_config,
)
from lvd.detectors.weights import load_weights, need_config_of_weights, need_plain_weights
from lvd.errors import ArgumentError, InputError, shorten
from lvd.utils.files import load_torch, save_torch
from lvd.utils.schema import StateDict, checked

FORMAT = "lvd detector 1"


@dataclass
class Detector:
    """A classifier with everything needed to read a clip.

    Attributes:
        model: VideoMAEForVideoClassification with two classes.
        representation: of the clips that it reads: "latent", "rgb" or "video".
        mean, std: input normalisation, one number for each channel.
        threshold: the operating point chosen on validation clips, a raw probability.
        about: provenance (category, group, step, eval_sha256, data, seed, settings, metrics,
            versions); {} for a bare state dict.
        calibration: what the raw probabilities of `predict` mean; IDENTITY: not known.
    """

    model: torch.nn.Module
    representation: str
    mean: list
    std: list
    threshold: float = ARGMAX
    about: dict = field(default_factory=dict)
    calibration: Calibration = IDENTITY


def build_detector(size, clip_shape, representation, seed, dropout=0.0, base_model=BASE_MODEL):
    """Build an untrained detector, or for size base one with pretrained weights.

    Args:
        size: a key of SIZES.
        clip_shape: (C, F, H, W) of the clips.
        representation: of the clips.
        seed: of the weights.
        dropout: of the hidden layers.
        base_model: local folder or hub name of the pretrained model, for size base only.

    Returns:
        A Detector; `set_normalisation` sets its statistics.
    """
    from transformers import VideoMAEForVideoClassification

    if size not in SIZES:
        raise ArgumentError("size", size, f": one of {', '.join(SIZES)} is needed")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if size == "base":
            model = pretrained_model(base_model, clip_shape, representation, dropout)
        else:
            model = VideoMAEForVideoClassification(
                scratch_config(size, clip_shape, representation, dropout)
            )
    if size == "base" and representation == "video":
        mean, std = IMAGENET
    else:
        mean = [0.0] * clip_shape[0]
        std = [1.0] * clip_shape[0]
    return Detector(model.eval(), representation, list(mean), list(std))


def set_normalisation(detector, clips):
    """Set mean and std of each channel from the detector's own training clips [N, C, F, H, W]."""
    detector.mean = clips.mean((0, 2, 3, 4)).tolist()
    detector.std = clips.std((0, 2, 3, 4)).clamp_min(1e-6).tolist()


def logits(detector, inputs):
    """Return logits [N, 2] of resized, normalised inputs [N, C, F', H', W']."""
    return detector.model(frames_first(inputs)).logits


def predict(detector, clips, batch_size=64):
    """Score clips.

    Args:
        detector: Detector.
        clips: [N, C, F, H, W], of any floating type and size.
        batch_size: clips that are computed at once.

    Returns:
        Raw probabilities of unsafe, float32 [N] on the CPU. `detector.calibration` turns them into
        calibrated ones.
    """
    device = next(detector.model.parameters()).device
    detector.model.eval()
    scores = [torch.zeros(0, dtype=torch.float32, device="cpu")]
    with own_precision(detector.model) as dtype:
        for part in clips.split(batch_size):
            resized = resize_clips(part.to(device), detector.model.config)
            inputs = normalise(resized, detector.mean, detector.std).to(dtype)
            scores.append(logits(detector, inputs).float().softmax(-1)[:, 1].cpu())
    return torch.cat(scores)


def save_detector(detector, path):
    """Write one detector file, whole or not at all."""
    state = detector.model.state_dict()
    content = {
        "format": FORMAT,
        "state_dict": {key: value.detach().to("cpu").clone() for key, value in state.items()},
        "config": {key: getattr(detector.model.config, key) for key in CONFIG_KEYS},
        "representation": detector.representation,
        "mean": detector.mean,
        "std": detector.std,
        "threshold": detector.threshold,
        "about": detector.about,
        "calibration": to_dict(detector.calibration),
    }
    save_torch(content, path)


def detector_path(folder, group, step):
    """Return where the detector of a category and step lies in a folder of them."""
    return Path(folder) / str(group) / f"{step}.pth"


def detector_paths(folder):
    """Return {(group, step): path} of the detectors {group}/{step}.pth of a folder."""
    paths = {}
    for path in sorted(Path(folder).glob("*/*.pth")):
        if re.fullmatch(r"[0-9]+/[0-9]+\.pth", f"{path.parent.name}/{path.name}"):
            paths[int(path.parent.name), int(path.stem)] = path
    return paths


def load_detector(path, device="cpu"):
    """Load the Detector of a file that `save_detector` wrote, or of a bare VideoMAE state dict.

    A bare one reads videos of 16 frames of 224 px with ImageNet's normalisation; nothing is known
    about its training.

    Raises:
        InputError: the file is damaged, its weights do not fit its config or are not finite, or
            the detector gives all clips the same score.
    """
    return detector_of(load_file(path), path, device)


def detector_of(content, path, device="cpu"):
    """Return the Detector of what `load_file` returned; path: of the file, for messages."""
    if "format" not in content:
        content = from_bare(content, path)
    model = empty_model(content["config"], path)
    load_weights(model, content["state_dict"], path)
    fields = ("representation", "mean", "std", "threshold", "about")
    detector = Detector(
        model.to(device),
        **{key: content[key] for key in fields},
        calibration=from_dict(content.get("calibration")),
    )
    _need_sight(detector, path)
    return detector


def _need_sight(detector, path):
    model = detector.model
    device = next(model.parameters()).device
    statistics = [detector.mean], [detector.std]
    (inputs,) = probe_inputs(model.config, detector.representation, *statistics, device)
    with own_precision(model) as dtype:
        hidden = hidden_tokens(model.config, 2, device)
        found = model(frames_first(inputs.to(dtype)), bool_masked_pos=hidden).logits
    need_sight((found[:, 1:] - found[:, :1])[None], lambda k, g: path)


def load_file(path, mmap=False):
    """Read the checked content of a detector file, or a bare state dict.

    Args:
        path: the file.
        mmap: whether the weights stay on the disk.

    Returns:
        {key of lvd.detectors.schemas.GridFile: value}, or {name: weight}.
    """
    content = load_torch(path, mmap=mmap)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        checked(GridFile, content, path)
        check_threshold(content["threshold"], path)
        need_plain_weights(content["state_dict"], path)
        need_config_of_weights(content["config"], content["state_dict"], path)
        return content
    if not _is_state_dict(content):
        raise InputError(f"{path}: neither a detector file nor a VideoMAE state dict")
    checked(StateDict, content, path)
    need_plain_weights(content, path)
    return content


def _is_state_dict(content):
    if not isinstance(content, dict) or not content or "format" in content:
        return False
    return all(isinstance(value, torch.Tensor) for value in content.values())


def check_threshold(threshold, where):
    """InputError for a threshold that no score can be compared with.

    The detector would pass everything, and nothing would say so.
    """
    if type(threshold) not in (int, float) or not 0 <= threshold <= 1:  # nan is neither
        raise InputError(
            f"{where}: threshold {shorten(threshold)}; a probability from 0 to 1 is needed, train "
            "it again"
        )
