"""The detector of one unsafe category at one denoising step: a VideoMAE classifier over predicted
x0.

Class 1 is unsafe. Sizes: `base` is the paper's, VideoMAE-base fine-tuned; `small`, `tiny` and
`nano` are built from scratch and fitted to the clip. A detector file holds weights, model config,
input representation and provenance; a bare VideoMAE state dict, as the paper's code writes it, is
read too.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lvd.data.transforms import normalise, resize_clips
from lvd.detectors.calibration import IDENTITY, Calibration, from_dict, to_dict
from lvd.detectors.videomae import (
    BASE_MODEL,
    CONFIG_KEYS,
    IMAGENET,
    SIZES,
    empty_model,
    pretrained_model,
    scratch_config,
)
from lvd.errors import InputError
from lvd.utils.files import load_torch, save_torch

FORMAT = "lvd detector 1"
ARGMAX = 0.5  # the released operating point: the class of the larger logit
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

    mean, std: input normalisation, one number per channel. threshold: the validation-chosen
    operating point, a raw probability. calibration: what `predict`'s raw probabilities mean;
    IDENTITY when that is not known. about: provenance (category, group, step, eval_sha256, data,
    seed, settings, metrics, versions); {} for a bare state dict.
    """

    model: torch.nn.Module
    representation: str
    mean: list
    std: list
    threshold: float = ARGMAX
    about: dict = field(default_factory=dict)
    calibration: Calibration = IDENTITY


def build_detector(size, clip_shape, representation, seed, dropout=0.0, base_model=BASE_MODEL):
    """An untrained (base: pretrained) Detector for clips of `clip_shape` [C, F, H, W].

    base_model: local folder or hub name, for size base only. Statistics are for `fit_normalisation`
    to set.
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
    channels = clip_shape[0]
    mean, std = (
        IMAGENET
        if size == "base" and representation == "video"
        else ([0.0] * channels, [1.0] * channels)
    )
    return Detector(model.eval(), representation, list(mean), list(std))


def fit_normalisation(detector, clips):
    """Set mean and std per channel from the detector's own training clips [N, C, F, H, W]."""
    detector.mean = clips.mean((0, 2, 3, 4)).tolist()
    detector.std = clips.std((0, 2, 3, 4)).clamp_min(1e-6).tolist()


def logits(detector, inputs):
    """Logits [N, 2] of fitted, normalised inputs [N, C, F', H', W']; VideoMAE wants frames before
    channels."""
    return detector.model(inputs.transpose(1, 2)).logits


@torch.inference_mode()
def predict(detector, clips, batch_size=64):
    """Raw probability of unsafe, float32 [N] on the CPU, of clips [N, C, F, H, W]; calibrated:
    detector.calibration(it)."""
    device = next(detector.model.parameters()).device
    detector.model.eval()
    scores = []
    for part in clips.split(batch_size):
        resized = resize_clips(part.to(device), detector.model.config)
        inputs = normalise(resized, detector.mean, detector.std)
        scores.append(logits(detector, inputs).float().softmax(-1)[:, 1].cpu())
    return torch.cat(scores) if scores else torch.zeros(0)


def save_detector(detector, path):
    """Write one detector file, atomically."""
    config = {key: getattr(detector.model.config, key) for key in CONFIG_KEYS}
    state = {
        key: value.detach().to("cpu").clone() for key, value in detector.model.state_dict().items()
    }
    save_torch(
        {
            "format": FORMAT,
            "state_dict": state,
            "config": config,
            "representation": detector.representation,
            "mean": detector.mean,
            "std": detector.std,
            "threshold": detector.threshold,
            "about": detector.about,
            "calibration": to_dict(detector.calibration),
        },
        path,
    )


def detector_path(folder, group, step):
    """Where the detector of a category and step lies in a folder of them."""
    return Path(folder) / str(group) / f"{step}.pth"


def detector_paths(folder):
    """{(group, step): path} of the detectors {group}/{step}.pth of a folder."""
    return {
        (int(path.parent.name), int(path.stem)): path
        for path in sorted(Path(folder).glob("*/*.pth"))
        if re.fullmatch(r"[0-9]+/[0-9]+\.pth", f"{path.parent.name}/{path.name}")
    }


def load_detector(path, device="cpu"):
    """Detector of a file written by `save_detector`, or of a bare VideoMAE state dict (then: video,
    ImageNet normalisation, 16 frames of 224 px, nothing known about its training)."""
    found = load_file(path)
    if "format" not in found:
        found = _from_bare(found, path)
    known = {key: found[key] for key in ("representation", "mean", "std", "threshold", "about")}
    detector = Detector(
        empty_model(found["config"], path),
        **known,
        calibration=from_dict(found.get("calibration"), path),
    )
    try:
        detector.model.load_state_dict(found["state_dict"], assign=True)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[1 if "\n" in str(error) else 0].strip()[:160]
        raise InputError(f"{path}: weights do not fit the detector ({reason})") from error
    detector.model.to(device).eval().requires_grad_(False)
    return detector


def load_file(path, mmap=False):
    """The checked dict of a detector file; with mmap the weights stay on the disk."""
    found = load_torch(path, mmap=mmap)
    if isinstance(found, dict) and found.get("format") == FORMAT:
        if missing := FILE_KEYS - set(found):
            raise InputError(f"{path}: detector file without '{sorted(missing)[0]}'")
        check_threshold(found["threshold"], path)
        return found
    if (
        isinstance(found, dict)
        and found
        and all(isinstance(v, torch.Tensor) for v in found.values())
    ):
        return found
    raise InputError(f"{path}: neither a detector file nor a VideoMAE state dict")


def check_threshold(threshold, where):
    """InputError for one that no score can be held against: the detector would pass everything, and
    nothing would say so."""
    if type(threshold) not in (int, float) or not 0 <= threshold <= 1:  # nan is neither
        raise InputError(
            f"{where}: threshold {threshold!r}; a probability from 0 to 1 is needed, train it again"
        )


def _from_bare(state, path):
    """What a bare state dict implies; older transformers kept query and value biases under other
    names."""
    state = {re.sub(r"^module\.", "", key): value for key, value in state.items()}
    state = {
        re.sub(
            r"attention\.attention\.([qv])_bias$",
            lambda m: "attention.attention." + ("query.bias" if m[1] == "q" else "value.bias"),
            key,
        ): value
        for key, value in state.items()
    }
    patch = state.get("videomae.embeddings.patch_embeddings.projection.weight")
    if patch is None or patch.dim() != 5 or "classifier.weight" not in state:
        raise InputError(
            f"{path}: not a VideoMAE classifier (no "
            "videomae.embeddings.patch_embeddings.projection.weight)"
        )
    classes = state["classifier.weight"].shape[0]
    if classes != 2 or patch.shape[1] != 3:
        raise InputError(
            f"{path}: a bare detector needs 2 classes and 3 channels, found {classes} and "
            f"{patch.shape[1]}"
        )
    hidden = patch.shape[0]
    layers = {
        int(m[1]) for key in state if (m := re.match(r"videomae\.encoder\.layer\.(\d+)\.", key))
    }
    first = state.get("videomae.encoder.layer.0.intermediate.dense.weight")
    if first is None or hidden % 64:
        raise InputError(
            f"{path}: not a VideoMAE classifier (no feed-forward layer, or a width that is no "
            "multiple of 64)"
        )
    config = {
        "image_size": 224,
        "patch_size": patch.shape[3],
        "num_channels": 3,
        "num_frames": 16,
        "tubelet_size": patch.shape[2],
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": hidden // 64,
        "intermediate_size": first.shape[0],
        "use_mean_pooling": "fc_norm.weight" in state,
        "qv_bias": "videomae.encoder.layer.0.attention.attention.query.bias" in state,
    }
    return {
        "state_dict": state,
        "config": config,
        "representation": "video",
        "mean": IMAGENET[0],
        "std": IMAGENET[1],
        "threshold": ARGMAX,
        "about": {},
    }
