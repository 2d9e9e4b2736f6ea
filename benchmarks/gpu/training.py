"""Training on random clips of the full size, in clips a second: one step after another."""

import time

import torch

from benchmarks.common.timing import wait
from benchmarks.gpu.detectors import CATEGORIES, random_detectors, random_shared
from lvd.data.transforms import normalise
from lvd.detectors.stacked import SingleDetector, StackedDetectors
from lvd.training.augment import random_mask
from lvd.training.grid import train_network
from lvd.training.loop import Training, precision
from lvd.training.recipes import RECIPES, GridSettings, SharedSettings
from lvd.training.shared import weighted_loss

STACKS = (("nano", 50), ("tiny", 10), ("small", 5))  # size, detectors trained together


def part(bench):
    sizes = bench.sizes
    for name in ("bf16", "float32"):
        bench.measure(f"VideoMAE-base, video clips, {name}", lambda: base(bench, name))  # noqa: B023
        for size, count in STACKS:
            if size in sizes.detectors:
                stack = 3 if sizes.is_smoke else count
                bench.measure(
                    f"{stack} {size} detectors stacked, latents, {name}",
                    lambda: stacked(bench, size, stack, name),  # noqa: B023
                )
        size = sizes.detectors[-1]
        bench.measure(f"shared {size}, latents, {name}", lambda: shared(bench, size, name))  # noqa: B023


def base(bench, name):
    """Fine-tuning as the paper's recipe does it, on clips of 16 frames of 224 x 224 pixels."""
    sizes = bench.sizes
    shape = 3, sizes.latents[1], sizes.pixels, sizes.pixels
    (detector,) = random_detectors("base", shape, "video", 1, sizes.base)
    network = SingleDetector(detector.model, bench.device)
    settings = GridSettings(size="base", recipe="released", batch_size=8, epoch=1, precision=name)
    return trained(bench, network, (1, sizes.clips[0], *shape), settings)


def stacked(bench, size, count, name):
    """Small detectors of latents as the recipe "scratch" trains them."""
    shape = bench.sizes.latents
    detectors = random_detectors(size, shape, "latent", count, {})
    network = StackedDetectors([detector.model for detector in detectors], bench.device)
    recipe = {**RECIPES["scratch"], "epoch": 1}
    settings = GridSettings(size=size, recipe="scratch", precision=name, **recipe)
    return trained(bench, network, (count, bench.sizes.clips[1], *shape), settings)


def trained(bench, network, data_shape, settings):
    """{name: figure} of epochs of a network on random clips [K, N, C, F, H, W] on the device."""
    device = bench.device
    networks, clips, channels = data_shape[:3]
    data = torch.randn(data_shape, device=device, dtype=torch.float16)
    mean, std = torch.zeros(channels, device=device), torch.ones(channels, device=device)
    of_network = torch.arange(networks, device=device)[:, None]
    labels = torch.arange(clips) % 2
    places = torch.arange(clips)

    def inputs_of(rows):
        return normalise(data[of_network, rows.to(device)], mean, std)

    def epoch():
        return train_network(network, inputs_of, labels, places, settings, range(networks))

    epoch()  # warms up
    wait(device)
    began, epochs = time.perf_counter(), 1 if bench.sizes.is_smoke else 4
    for _ in range(epochs):
        losses = epoch()
    wait(device)
    seconds = time.perf_counter() - began
    return {
        "clips a second": epochs * clips * networks / seconds,
        "batch": f"{networks} x {settings.batch_size}",
        "finite": bool(torch.isfinite(losses).all()),
        **bench.peak_gib(),
    }


def shared(bench, size, name):
    """The shared detector's batches."""
    sizes, device = bench.sizes, bench.device
    batch = sizes.clips[2]
    detector = random_shared(size, sizes.latents, "latent", sizes.steps)
    net = detector.net.to(device)
    settings = SharedSettings(size=size, batch_size=batch, precision=name, epoch=1)
    training = Training(net, settings, per_epoch=4 + sizes.timed)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, *sizes.latents, device=device)
    at = torch.randint(sizes.steps, (batch,), generator=generator).to(device)
    labels = torch.zeros(batch, CATEGORIES, device=device)
    tokens = net.videomae.embeddings.num_patches
    seconds = []
    for _ in range(2 + sizes.timed):
        wait(device)
        began = time.perf_counter()
        hidden = random_mask(tokens, batch, settings.mask, generator).to(device)
        with precision(settings, device):
            logits = net(inputs, at, hidden)
            loss = weighted_loss(logits.float(), labels, torch.ones_like(labels))
        training.step([loss])
        wait(device)
        seconds.append(time.perf_counter() - began)
    mean = sum(seconds[2:]) / len(seconds[2:])
    finite = bool(torch.isfinite(loss))
    return {"clips a second": batch / mean, "batch": batch, "finite": finite, **bench.peak_gib()}
