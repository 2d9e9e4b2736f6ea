"""The training loop of every network here: the grid's detectors, the shared one, pre-training."""

from contextlib import contextmanager

import torch
from torch.optim.swa_utils import AveragedModel


def train(training, batches_of, losses_of, after_epoch):
    """Train until all epochs are done, from wherever the training stands.

    Args:
        training: Training.
        batches_of: function of (epoch from 0, mini-batches of it that are done already) that
            yields the others.
        losses_of: function of a mini-batch that yields its losses part after part: the loss of each
            network in training, [K] or a scalar, with gradients. Their sum is the mini-batch's.
        after_epoch: function of (epochs done, losses of the last epoch's mini-batches).

    Yields:
        the losses of each mini-batch, without gradients, after its optimiser step.
    """
    while training.done < training.total:
        epoch, first = divmod(training.done, training.per_epoch)
        for batch in batches_of(epoch, first):
            losses = training.step(losses_of(batch))
            if training.done % training.per_epoch == 0:
                after_epoch(epoch + 1, training.losses)
                training.losses = []
            yield losses


class Training:
    """Weights in training: AdamW with warmup and linear decay, and the mean of the last weights.

    Attributes:
        done: optimiser steps so far; total: of the whole training.
        losses: of the mini-batches of the unfinished epoch.
    """

    def __init__(self, module, settings, per_epoch, mean=None):
        """
        Args:
            module: torch.nn.Module with the weights, on its device.
            settings: TrainSettings.
            per_epoch: mini-batches of an epoch.
            mean: as AveragedModel's `multi_avg_fn`; None: its default, which differs in rounding.
        """
        self.module, self.settings, self.per_epoch = module, settings, per_epoch
        self.device = next(module.parameters()).device
        self.total = settings.epoch * per_epoch
        self.done = 0
        self.losses = []
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.averaged = AveragedModel(module, multi_avg_fn=mean) if settings.average else None

    def step(self, parts):
        """Make one optimiser step.

        Args:
            parts: iterable of losses, of a part of the mini-batch each. A part's gradients are
                taken, and added to those before it, when the next part is asked for: so the memory
                is that of one part.

        Returns:
            the sum of the parts, without gradients.
        """
        settings = self.settings
        factor = decay(self.done, self.total, settings.warmup * self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        total = None
        for losses in parts:
            losses.sum().backward()
            total = losses.detach() if total is None else total + losses.detach()
        self.optimizer.step()
        self.done += 1
        self.losses.append(total)
        if self.averaged and self.done > self.total * (1 - settings.average):
            self.averaged.update_parameters(self.module)
        return total

    @torch.no_grad()
    def take_average(self):
        """Put the mean of the last weights into the module, if there is one."""
        if self.averaged and self.averaged.n_averaged:
            for weight, mean in zip(
                self.module.parameters(), self.averaged.module.parameters(), strict=True
            ):
                weight.copy_(mean)

    @contextmanager
    def with_average(self):
        """Let the module have the mean of the last weights within the block."""
        last = [weight.detach().clone() for weight in self.module.parameters()]
        self.take_average()
        yield
        with torch.no_grad():
            for weight, before in zip(self.module.parameters(), last, strict=True):
                weight.copy_(before)

    def state(self):
        """Return {key: value}, from which `load` goes on."""
        return {
            "done": self.done,
            "losses": [float(loss) for loss in self.losses],
            "net": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
        }

    def load(self, state):
        """Go on from what `state` returned."""
        self.done, self.losses = state["done"], state["losses"]
        self.module.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])


def decay(step, steps, warmup):
    """Return the factor of the learning rate: linear warmup, then linear decay to 0.

    Args:
        step: optimiser steps that are done.
        steps: optimiser steps of the whole training.
        warmup: optimiser steps in which the factor rises.
    """
    rising = min(1.0, (step + 1) / warmup) if warmup >= 1 else 1.0
    return rising * max(0.0, (steps - step) / steps)


def precision(settings, device):
    """Return the autocast context of the passes through a network."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
