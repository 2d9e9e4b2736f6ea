"""Detectors with random weights whose thresholds say unsafe of every clip, or of none."""

import copy
from functools import lru_cache

import torch

from lvd.detectors.calibration import IDENTITY, to_dict
from lvd.detectors.detector import Detector, build_detector, save_detector
from lvd.detectors.shared import build_shared, save_shared
from lvd.detectors.videomae import scratch_config

UNSAFE, SAFE = 0.0, 1.0  # thresholds: every score reaches 0, none reaches 1
CATEGORIES, LAMBDA = 5, 0.6


def write_grid(folder, latents, steps, threshold, size="nano", categories=CATEGORIES):
    """Write {group}/{step}.pth, random detectors of latents (C, F, h, w). Returns the folder."""
    for group in range(1, categories + 1):
        for step in range(steps):
            detector = build_detector(size, latents, "latent", 100 * group + step)
            detector.threshold = threshold
            path = folder / str(group) / f"{step}.pth"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_detector(detector, path)
    return folder


def write_shared(folder, latents, steps, threshold, size):
    """Write a random shared.pth of latents (C, F, h, w). Returns the folder."""
    folder.mkdir(parents=True)
    detector = random_shared(size, latents, "latent", steps)
    detector.thresholds = [[threshold] * CATEGORIES] * steps
    detector.calibrations = [[to_dict(IDENTITY)] * CATEGORIES] * steps
    save_shared(detector, folder / "shared.pth")
    return folder


def random_shared(size, shape, representation, steps):
    """A SharedDetector whose scores differ from clip to clip, untrained."""
    names = [f"category {k}" for k in range(CATEGORIES)]
    detector = build_shared(size, shape, representation, 0, range(steps), names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # logits of about 1: a probability that rounds to 1 would reach every threshold
        torch.nn.init.normal_(
            detector.net.classifier.weight, std=detector.net.norm.weight.numel() ** -0.5
        )
    return detector


def random_detectors(size, shape, representation, count, base):
    """[Detector] of a size with random weights, the same in all: nothing is downloaded."""
    if size == "base":
        first = _base_detector(shape, representation, tuple(base.items()))
    else:
        first = build_detector(size, shape, representation, 0)
    return [copy.deepcopy(first) for _ in range(count)]


@lru_cache(maxsize=4)
def _base_detector(shape, representation, changes):
    """A Detector of VideoMAE-base's size. Its table of positions takes seconds.

    Args:
        shape: (C, F, H, W) of the clips.
        representation: of the clips.
        changes: ((keyword of VideoMAEConfig, value), ...) that make it smaller.
    """
    from transformers import VideoMAEForVideoClassification

    config = scratch_config("base", shape, representation)
    for key, value in changes:
        setattr(config, key, value)
    model = VideoMAEForVideoClassification(config).eval()
    return Detector(model, representation, [0.0] * shape[0], [1.0] * shape[0])
