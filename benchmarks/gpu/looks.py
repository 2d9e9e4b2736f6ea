"""What one look of the detectors at one x0 takes, in milliseconds."""

import torch

from benchmarks.gpu.bench import milliseconds, timed
from benchmarks.gpu.detectors import CATEGORIES, random_detectors, random_shared
from benchmarks.gpu.model import filled
from lvd.data.rgb import LatentToRGB
from lvd.data.transforms import ClipSpec, prepare_clips


def part(bench):
    sizes = bench.sizes
    frames = sizes.latents[1]
    shapes = {"latent": sizes.latents, "rgb": (3, *sizes.latents[1:])}
    for representation, shape in shapes.items():
        for size in (*sizes.detectors, "base"):
            for count in (1, CATEGORIES):
                look(bench, representation, shape, size, count)
        for size in sizes.detectors:
            look(bench, representation, shape, size, "shared")
    pixels = (3, frames, sizes.pixels, sizes.pixels)
    for size, count in (("base", 1), ("base", CATEGORIES), (sizes.detectors[-1], "shared")):
        look(bench, "video", pixels, size, count)


def look(bench, representation, shape, size, count):
    """Measure a look by `count` detectors, or by a shared one."""
    what = "shared" if count == "shared" else f"x {count}"
    bench.measure(
        f"{representation}, {size} {what}",
        lambda: look_at(bench, representation, shape, size, count),
    )


def look_at(bench, representation, shape, size, count):
    """{name: figure} of reading x0 of one video: making its clip, scoring it, both."""
    device, sizes = bench.device, bench.sizes
    score, config = scorer(bench, representation, shape, size, count)
    spec = ClipSpec(representation, decoder(bench, representation), config)
    x0 = torch.randn(1, *sizes.latents, device=device, dtype=torch.float16)
    clip = prepare_clips(x0, spec)
    making = timed(device, lambda: prepare_clips(x0, spec), sizes.timed)
    scoring = timed(device, lambda: score(clip), sizes.timed)
    both = milliseconds([a + b for a, b in zip(making, scoring)])
    return {
        **both,
        "of it the clip": milliseconds(making)["ms"],
        "the scores": milliseconds(scoring)["ms"],
        **bench.peak_gib(),
    }


def scorer(bench, representation, shape, size, count):
    """(function of clips that returns scores, the VideoMAEConfig of what reads them)"""
    from lvd.detectors.shared import predict_shared
    from lvd.detectors.step_detectors import StepDetectors

    if count == "shared":
        shared = random_shared(size, shape, representation, bench.sizes.steps)
        shared.net.to(bench.device).eval().requires_grad_(False)
        return lambda clips: predict_shared(shared, 0, clips), shared.net.config
    detectors = random_detectors(size, shape, representation, count, bench.sizes.base)
    for detector in detectors:
        detector.model.to(bench.device).eval().requires_grad_(False)
    return StepDetectors(detectors).score, detectors[0].model.config


def decoder(bench, representation):
    """What turns latents into what the detectors read."""
    from diffusers import AutoencoderKL

    from MagicTime.utils.pipeline import decode

    if representation == "latent":
        return None
    if representation == "rgb":
        return LatentToRGB()
    dtype = torch.float32 if bench.sizes.is_smoke else torch.float16
    vae = filled(lambda: AutoencoderKL(**bench.sizes.vae), bench.device, dtype)
    return lambda latents: decode(vae, latents)
