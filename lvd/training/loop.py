"""The training loop of detectors, one or many at once: what is drawn, what is optimised, what is
kept.

All that is random comes from the detector's own generator, so a detector is the same (but for the
order of additions) whether it is trained alone or beside others.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F

from lvd.detectors.videomae import token_count
from lvd.training.augment import Batch, Draws, augment


class SingleDetector:
    """One detector by transformers' own model, with what `Ensemble` has: the way of VideoMAE-base.

    Its dropout, if it has any, draws from torch's global generator.
    """

    def __init__(self, model, device):
        self.model, self.config = model.to(device), model.config

    def parameters(self):
        return list(self.model.parameters())

    def stacked(self):
        return [weight.detach()[None] for weight in self.model.parameters()]

    def logits(self, inputs, kept=None):
        """float32 [1, B, 2] of normalised inputs [1, B, C, F, H, W]; kept: [1, B, t] tokens that
        are seen."""
        self.model.train(torch.is_grad_enabled())
        hidden = None
        if kept is not None:
            hidden = torch.ones(
                inputs.shape[1], token_count(self.config), dtype=torch.bool, device=inputs.device
            )
            hidden = hidden.scatter(1, kept[0], False)
        return self.model(inputs[0].transpose(1, 2), bool_masked_pos=hidden).logits.float()[None]

    def store(self):
        """The weights are the model's already."""


def fit(network, inputs_of, labels, train, settings, seeds, watch=None):
    """Train the K detectors of a `network` (Ensemble or SingleDetector): AdamW with warmup and
    linear decay on the clips `train`, then the running average of the last weights, or those of the
    best epoch.

    inputs_of: places in the data [K, B] → normalised clips, float32 [K, B, C, F, H, W] on the
    network's device; labels: [N]; train: places in N; seeds: K; watch: called as watch(epochs done,
    mean losses [K]) after each. Returns the last epoch's mean losses, [K] on the CPU.
    """
    parameters, device = network.parameters(), network.parameters()[0].device
    draws = [Draws(labels[train], train, network.config, settings, seed) for seed in seeds]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings["lr"], weight_decay=settings["weight_decay"], fused=True
    )
    steps = settings["epoch"] * -(-2 * int(labels[train].sum()) // settings["batch_size"])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: decay(t, steps, settings["warmup"] * steps)
    )
    average, step = Average(parameters), 0
    for epoch in range(1, settings["epoch"] + 1):
        losses = []
        for batches in zip(*(drawn.epoch() for drawn in draws), strict=True):
            batch = Batch.stack(batches, device)
            inputs = augment(inputs_of(batch.rows), batch.mirrored, batch.noise, settings)
            with precision(settings, device):
                logits = network.logits(inputs, batch.kept)
            loss = _losses(logits, labels[batch.rows].to(device), settings)
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            optimizer.step()
            schedule.step()
            step += 1
            if settings["average"] and step > steps * (1 - settings["average"]):
                average.add()
            losses.append(loss.detach())
        losses = torch.stack(losses).mean(0)
        if watch:
            watch(epoch, losses)
    average.take()
    if watch:
        watch.take_best()
    return losses.cpu()


class Average:
    """The running mean of some tensors."""

    def __init__(self, tensors):
        self.tensors, self.mean, self.count = tensors, None, 0

    @torch.no_grad()
    def add(self):
        self.count += 1
        if self.mean is None:
            self.mean = [tensor.detach().clone() for tensor in self.tensors]
        else:
            torch._foreach_lerp_(
                self.mean, [tensor.detach() for tensor in self.tensors], 1 / self.count
            )

    @torch.no_grad()
    def take(self):
        """Put the mean into the tensors, if there is one."""
        for tensor, mean in zip(self.tensors, self.mean or [], strict=self.mean is not None):
            tensor.copy_(mean)


def decay(step, steps, warmup):
    """Learning rate factor: linear warmup, then linear decay to 0."""
    return min(1.0, (step + 1) / warmup if warmup >= 1 else 1.0) * max(0.0, (steps - step) / steps)


def _losses(logits, labels, settings):
    """Mean cross entropy of each detector, [K], of logits [K, B, 2] and labels [K, B]."""
    found = F.cross_entropy(
        logits.flatten(0, 1),
        labels.flatten(),
        label_smoothing=settings["smoothing"],
        reduction="none",
    )
    return found.view(labels.shape).mean(1)


def precision(settings, device):
    """Context of the passes through a network."""
    return (
        torch.autocast(device.type, torch.bfloat16)
        if settings["precision"] == "bf16"
        else nullcontext()
    )
