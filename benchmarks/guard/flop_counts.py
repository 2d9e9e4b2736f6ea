"""Floating-point operations of MagicTime and of the detectors at full size: exact, on tensors
without data."""

import torch

from benchmarks.common.full_size import LATENTS, PIXELS, STEPS
from lvd.detectors.videomae import SIZES, scratch_config
from lvd.utils.progress import progress
from lvd_plan.flops import TERA, decode_flops, flops, unet_flops, unet_on_meta, vae_on_meta
from lvd_plan.models import UNET, VAE

MEGA = 1e6
CATEGORIES = 5
CLIPS = {  # what a detector is given, [C, F, H, W]
    "video": PIXELS,
    "latent": LATENTS,
    "rgb": (3, *LATENTS[1:]),
}


def count(model, operations):
    """Figures of one pass through a model."""
    weights = sum(weight.numel() for weight in model.parameters())
    return {"TFLOP": operations / TERA, "million parameters": weights / MEGA}


def count_sampler():
    """{piece: figures} of a guided denoising step and of decoding a video."""
    unet, vae = unet_on_meta(UNET), vae_on_meta(VAE)
    return {
        "guided UNet step": count(unet, unet_flops(unet, LATENTS)),
        "VAE decode of 16 frames": count(vae, decode_flops(vae, LATENTS)),
    }


def count_detectors():
    """{(representation, size, kind): figures} of one pass over one clip.

    kind "own": the detector of one category at one step; "shared": the one network for all
    categories and steps.
    """
    from transformers import VideoMAEForVideoClassification

    from lvd.detectors.shared import SharedNet

    counts = {}
    for representation, shape in progress(CLIPS.items(), "representations"):
        for size in SIZES:
            with torch.device("meta"):
                config = scratch_config(size, shape, representation)
                own = VideoMAEForVideoClassification(config).eval()
                shared = SharedNet(own, STEPS, CATEGORIES)
                clip = torch.empty(1, config.num_channels, config.num_frames, *config.image_size)
                step = torch.zeros(1, dtype=torch.long)
                own_operations = flops(own, clip.transpose(1, 2))
                shared_operations = flops(shared, clip, step)
            counts[representation, size, "own"] = count(own, own_operations)
            counts[representation, size, "shared"] = count(shared, shared_operations)
    return counts


def reading(representation, pieces):
    """TFLOP to make a step's latents into what the detectors read."""
    if representation == "video":
        return pieces["VAE decode of 16 frames"]["TFLOP"]
    if representation == "latent":
        return 0.0
    channels, frames, height, width = LATENTS
    return 2 * 3 * channels * frames * height * width / TERA  # one matrix, [3, C]


class Costs:
    """TFLOP of whole and of stopped videos.

    Args:
        pieces: of `count_sampler`.
        detectors: of `count_detectors`.
    """

    def __init__(self, pieces, detectors):
        self.pieces, self.detectors = pieces, detectors
        self.unet = pieces["guided UNet step"]["TFLOP"]
        self.full = STEPS * self.unet + pieces["VAE decode of 16 frames"]["TFLOP"]

    def detector(self, representation, size, networks):
        """Figures of one network; networks: 1 shared one, or one per category."""
        kind = "shared" if networks == 1 else "own"
        return self.detectors[representation, size, kind]

    def guard(self, representation, size, networks):
        """TFLOP that guarding one step adds."""
        one = self.detector(representation, size, networks)["TFLOP"]
        return reading(representation, self.pieces) + networks * one

    def stopped(self, steps, guard):
        """Of a video that is stopped after `steps` guarded ones, and never decoded."""
        return steps * (self.unet + guard)

    def passed(self, steps, guard):
        """Of a whole video whose first `steps` were guarded."""
        return self.full + steps * guard
