"""What reading x0 at one step costs at full size, by detectors with random weights."""

import statistics

import torch

from benchmarks.common import full_size
from benchmarks.common.timing import Clock

CATEGORIES = 5
DETECTORS = (  # that read latents: (size, how many networks read a step)
    ("small", CATEGORIES),
    ("tiny", CATEGORIES),
    ("nano", CATEGORIES),
    ("small", 1),
    ("tiny", 1),
)


def random_step(size, networks, latent_shape, device):
    """What a guard of random detectors does at a step.

    Args:
        size: of the networks.
        networks: one for each category, or 1, the shared one.
        latent_shape: (C, F, h, w).
        device: torch.device.

    Returns:
        (function of x0 [1, C, F, h, w], MiB of the weights).
    """
    from lvd.detectors.detector import build_detector
    from lvd.detectors.shared import build_shared, predict_shared
    from lvd.detectors.step_detectors import StepDetectors

    if networks == 1:
        steps, names = list(range(full_size.STEPS)), [str(k) for k in range(CATEGORIES)]
        shared = build_shared(size, latent_shape, "latent", 0, steps, names)
        shared.net.to(device).eval().requires_grad_(False)
        return lambda x0: predict_shared(shared, 0, x0), weights_mib(shared.net)
    detectors = [build_detector(size, latent_shape, "latent", seed) for seed in range(networks)]
    for detector in detectors:
        detector.model.to(device).eval().requires_grad_(False)
    return StepDetectors(detectors).score, sum(
        weights_mib(detector.model) for detector in detectors
    )


def weights_mib(model):
    """MiB of a network's weights."""
    return sum(weight.numel() * weight.element_size() for weight in model.parameters()) / 2**20


@torch.inference_mode()
def full_rows(device, step_seconds, latent_shape, repeats):
    """[(case, figures)] of reading one x0, in percent of a denoising step's seconds."""
    x0 = torch.randn(1, *latent_shape, device=device).half()
    rows = []
    for size, networks in DETECTORS:
        score, mib = random_step(size, networks, latent_shape, device)
        score(x0)  # warms up
        seconds = []
        for _ in range(repeats):
            with Clock(device) as clock:
                score(x0)
            seconds.append(clock.seconds)
        median = statistics.median(seconds)
        figures = {
            "ms": median * 1e3,
            "percent": median / step_seconds * 100,
            "MiB of a step's weights": mib,
        }
        how_many = "shared" if networks == 1 else f"x {networks}"
        rows.append((f"latents, {size} {how_many}", figures))
    return rows
