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
from lvd.errors import InputError
from lvd.utils.files import load_torch, save_torch

FORMAT = "lvd detector 1"
FILE_KEYS = {
    "format",
    "state_dict",
    "config",
    "representation",
    "mean",
    "std",
    "threshold",
    "about",
}  # and "calibration"


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
        raise InputError(f"--size {size}: one of {', '.join(SIZES)} is needed")
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


@torch.inference_mode()
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
    scores = []
    for part in clips.split(batch_size):
        resized = resize_clips(part.to(device), detector.model.config)
        inputs = normalise(resized, detector.mean, detector.std)
        scores.append(logits(detector, inputs).float().softmax(-1)[:, 1].cpu())
    return torch.cat(scores) if scores else torch.zeros(0)


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
        InputError: the file is damaged, or its weights do not fit its config.
    """
    content = load_file(path)
    if "format" not in content:
        content = from_bare(content, path)
    fields = ("representation", "mean", "std", "threshold", "about")
    detector = Detector(
        empty_model(content["config"], path),
        **{key: content[key] for key in fields},
        calibration=from_dict(content.get("calibration"), path),
    )
    try:
        detector.model.load_state_dict(content["state_dict"], assign=True)
    except RuntimeError as error:
        lines = str(error).strip().split("\n")
        reason = lines[min(1, len(lines) - 1)].strip()[:160]
        raise InputError(f"{path}: weights do not fit the detector ({reason})") from error
    # in float32, as its input is, whatever the file holds
    detector.model.to(device, torch.float32).eval().requires_grad_(False)
    return detector


def load_file(path, mmap=False):
    """Read the checked content of a detector file, or a bare state dict.

    Args:
        path: the file.
        mmap: whether the weights stay on the disk.
    """
    content = load_torch(path, mmap=mmap)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        if missing := FILE_KEYS - set(content):
            raise InputError(f"{path}: detector file without '{sorted(missing)[0]}'")
        check_threshold(content["threshold"], path)
        for key in ("state_dict", "config", "about"):
            if not isinstance(content[key], dict):
                raise InputError(f"{path}: {key} is no mapping; train this detector again")
        for key in ("mean", "std"):
            if not _are_numbers(content[key]):
                raise InputError(f"{path}: {key} {content[key]!r}: a list of numbers is needed")
        return content
    if not _is_state_dict(content):
        raise InputError(f"{path}: neither a detector file nor a VideoMAE state dict")
    return content


def _are_numbers(values):
    return isinstance(values, (list, tuple)) and all(type(v) in (int, float) for v in values)


def _is_state_dict(content):
    if not isinstance(content, dict) or not content:
        return False
    return all(isinstance(value, torch.Tensor) for value in content.values())


def check_threshold(threshold, where):
    """InputError for a threshold that no score can be compared with.

    The detector would pass everything, and nothing would say so.
    """
    if type(threshold) not in (int, float) or not 0 <= threshold <= 1:  # nan is neither
        raise InputError(
            f"{where}: threshold {threshold!r}; a probability from 0 to 1 is needed, train it again"
        )
