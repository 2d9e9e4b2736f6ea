"""The training loop of detectors, one or many at once: what is drawn, what is optimised, what is kept.

All that is random comes from the detector's own generator, so a detector is the same (but for the order of additions) whether
it is trained alone or beside others.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from lvd.ensemble import input_size, token_count

POINTS = 10  # of a validation curve
AT_ONCE = 32  # validation clips


@dataclass
class Batch:
    """What one optimiser step of one detector, or of K with a leading dimension, looks at.

    rows: [B] which clips; mirrored: [B] bool; noise: of the shape of the clips; kept: [B, t] tokens that are seen.
    """

    rows: torch.Tensor
    mirrored: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    kept: torch.Tensor | None = None

    @staticmethod
    def stack(batches, device):
        """The batches of K detectors as one; `rows` stay on the CPU, where the data are."""
        found = {}
        for name in Batch.__dataclass_fields__:
            parts = [getattr(batch, name) for batch in batches]
            found[name] = None if parts[0] is None else torch.stack(parts).to("cpu" if name == "rows" else device)
        return Batch(**found)


class Draws:
    """The batches of one detector, epoch after epoch, from its own generator.

    labels: [N] of the clips that it is trained on; rows: [N] their places in the data; config: the model's.
    """

    def __init__(self, labels, rows, config, settings, seed):
        self.rows, self.settings, self.tokens = rows, settings, token_count(config)
        self.shape = (config.num_channels, config.num_frames, *input_size(config))
        self.generator = torch.Generator().manual_seed(seed)
        self.orders = epoch_order(labels, self.generator)

    def epoch(self):
        """Yield the Batch of each optimiser step of one epoch."""
        for order in next(self.orders).split(self.settings["batch_size"]):
            count = len(order)
            mirrored, noise = draw_augmentation((count, *self.shape), self.settings, self.generator)
            kept = None
            if self.settings["mask"]:
                seen = max(1, round((1 - self.settings["mask"]) * self.tokens))
                order_of_tokens = torch.rand(count, self.tokens, generator=self.generator).argsort(1)
                kept = order_of_tokens[:, :seen].sort(1)[0]
            yield Batch(self.rows[order], mirrored, noise, kept)


def epoch_order(labels, generator):
    """Endless epochs: indices of all unsafe clips and as many normal ones, shuffled.

    Epochs take the normal clips in turn, so that all are seen when there are more of them than unsafe ones.
    """
    unsafe, normal = torch.where(labels == 1)[0], torch.where(labels == 0)[0]
    waiting = normal[:0]
    while True:
        while len(waiting) < len(unsafe):
            waiting = torch.cat([waiting, normal[torch.randperm(len(normal), generator=generator)]])
        epoch = torch.cat([unsafe, waiting[:len(unsafe)]])
        waiting = waiting[len(unsafe):]
        yield epoch[torch.randperm(len(epoch), generator=generator)]


class Library:
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
        """float32 [1, B, 2] of normalised inputs [1, B, C, F, H, W]; kept: [1, B, t] tokens that are seen."""
        self.model.train(torch.is_grad_enabled())
        hidden = None
        if kept is not None:
            hidden = torch.ones(inputs.shape[1], token_count(self.config), dtype=torch.bool, device=inputs.device)
            hidden = hidden.scatter(1, kept[0], False)
        return self.model(inputs[0].transpose(1, 2), bool_masked_pos=hidden).logits.float()[None]

    def store(self):
        """The weights are the model's already."""


class Watch:
    """What is measured while detectors train: losses and validation AUROC at up to POINTS epochs, of the weights of that
    moment; with select "best" also the weights themselves, where the validation loss is lowest.

    inputs_of: as of `fit`; places: [V] of the validation clips in the data; labels: [V].
    """

    def __init__(self, network, inputs_of, places, labels, settings):
        self.network, self.inputs_of, self.places = network, inputs_of, places
        self.labels, self.settings = labels, settings
        self.every = -(-settings["epoch"] // POINTS)
        self.rows = []  # (epoch, train loss [K], validation loss [K], AUROC [K])
        self.lowest, self.best = None, None

    def __call__(self, epoch, losses):
        """epoch: how many are done; losses: [K], the mean of the last one."""
        if epoch % self.every and epoch != self.settings["epoch"]:
            return
        scores = self._logits(len(losses))
        targets = self.labels.expand(len(scores), -1)
        loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape).mean(1)
        margin = scores[..., 1] - scores[..., 0]
        self.rows.append((epoch, losses.cpu(), loss, auroc(margin, self.labels)))
        if self.settings["select"] == "best":
            self._keep(loss)

    def curve(self, k):
        """{"epoch": [...], "train_loss": [...], "val_loss": [...], "val_auroc": [...]} of detector k."""
        names = ("train_loss", "val_loss", "val_auroc")
        return {"epoch": [row[0] for row in self.rows],
                **{name: [round(float(row[i][k]), 6) for row in self.rows] for i, name in enumerate(names, 1)}}

    @torch.no_grad()
    def take_best(self):
        """Put the best weights into the network, if they are what is selected."""
        for weight, best in zip(self.network.stacked(), self.best or [], strict=self.best is not None):
            weight.copy_(best)

    @torch.no_grad()
    def _keep(self, loss):
        weights = self.network.stacked()
        if self.best is None:
            self.lowest, self.best = loss, [weight.clone() for weight in weights]
            return
        better = loss < self.lowest
        self.lowest = torch.where(better, loss, self.lowest)
        for best, weight in zip(self.best, weights, strict=True):
            best[better.to(best.device)] = weight[better.to(best.device)]

    @torch.no_grad()
    def _logits(self, models):
        device = self.network.parameters()[0].device
        parts = [part.expand(models, -1) for part in self.places.split(AT_ONCE)]
        with precision(self.settings, device):
            return torch.cat([self.network.logits(self.inputs_of(part)).cpu() for part in parts], 1)


def fit(network, inputs_of, labels, train, settings, seeds, watch=None):
    """Train the K detectors of a `network` (Ensemble or Library): AdamW with warmup and linear decay on the clips `train`,
    then the running average of the last weights, or those of the best epoch.

    inputs_of: places in the data [K, B] → normalised clips, float32 [K, B, C, F, H, W] on the network's device; labels:
    [N]; train: places in N; seeds: K; watch: called as watch(epochs done, mean losses [K]) after each.
    Returns the last epoch's mean losses, [K] on the CPU.
    """
    parameters, device = network.parameters(), network.parameters()[0].device
    draws = [Draws(labels[train], train, network.config, settings, seed) for seed in seeds]
    optimizer = torch.optim.AdamW(parameters, lr=settings["lr"], weight_decay=settings["weight_decay"], fused=True)
    steps = settings["epoch"] * -(-2 * int(labels[train].sum()) // settings["batch_size"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: decay(t, steps, settings["warmup"] * steps))
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
            torch._foreach_lerp_(self.mean, [tensor.detach() for tensor in self.tensors], 1 / self.count)

    @torch.no_grad()
    def take(self):
        """Put the mean into the tensors, if there is one."""
        for tensor, mean in zip(self.tensors, self.mean or [], strict=self.mean is not None):
            tensor.copy_(mean)


def decay(step, steps, warmup):
    """Learning rate factor: linear warmup, then linear decay to 0."""
    return min(1.0, (step + 1) / warmup if warmup >= 1 else 1.0) * max(0.0, (steps - step) / steps)


def draw_augmentation(shape, settings, generator):
    """(mirrored: bool [B], noise: [B, C, F, H, W]) for clips of that shape; None for what the settings do without."""
    mirrored = torch.rand(shape[0], generator=generator) < 0.5 if settings["flip"] else None
    noise = torch.randn(shape, generator=generator) if settings["noise"] else None
    return mirrored, noise


def augment(inputs, mirrored, noise, settings):
    """Mirror left-right and add noise, in units of the channels' standard deviation: inputs [..., C, F, H, W].

    Both hold for latents: the autoencoder is a convolution, close to mirror-symmetric. Frames keep their order.
    """
    if mirrored is not None:
        inputs = torch.where(mirrored.to(inputs.device)[..., None, None, None, None], inputs.flip(-1), inputs)
    if noise is not None:
        inputs = inputs + settings["noise"] * noise.to(inputs.device)
    return inputs


def _losses(logits, labels, settings):
    """Mean cross entropy of each detector, [K], of logits [K, B, 2] and labels [K, B]."""
    found = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=settings["smoothing"], reduction="none")
    return found.view(labels.shape).mean(1)


def auroc(scores, labels):
    """[K] of scores [K, N] and labels [N]: the share of (unsafe, normal) pairs in the right order, ties counted half."""
    unsafe, normal = scores[:, labels == 1, None], scores[:, None, labels == 0]
    return ((unsafe > normal).float() + 0.5 * (unsafe == normal)).mean((1, 2))


def precision(settings, device):
    """Context of the passes through a network."""
    return torch.autocast(device.type, torch.bfloat16) if settings["precision"] == "bf16" else nullcontext()
