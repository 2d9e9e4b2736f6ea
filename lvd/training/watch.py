"""What is measured while the grid's detectors train."""

import torch
import torch.nn.functional as F

from lvd.evaluation.metrics import batched_auroc
from lvd.training.loop import precision

POINTS = 10  # of a validation curve, at most
VALIDATION_AT_ONCE = 32  # validation clips


class Watch:
    """Losses and validation AUROC of K detectors at up to POINTS epochs.

    With the setting select "best" it also keeps each detector's weights of the lowest validation
    loss. What is measured are the weights of that moment, not their average.
    """

    def __init__(self, network, inputs_of, places, labels, settings):
        """
        Args:
            network: StackedDetectors or SingleDetector.
            inputs_of: see `train_network`.
            places: [V] of the validation clips in the data.
            labels: [V] of these clips, 1 for unsafe.
            settings: GridSettings.
        """
        self.network, self.inputs_of, self.places = network, inputs_of, places
        self.labels, self.settings = labels, settings
        self.every = -(-settings.epoch // POINTS)
        self.rows = []  # (epoch, train loss [K], validation loss [K], AUROC [K])
        self.lowest, self.best = None, None

    def __call__(self, epoch, losses):
        """Measure, if it is time; epoch: how many are done; losses: [K], the mean of the last."""
        if epoch % self.every and epoch != self.settings.epoch:
            return
        logits = self._logits(len(losses))
        loss = mean_losses(logits, self.labels.expand(len(logits), -1))
        margin = logits[..., 1] - logits[..., 0]
        self.rows.append((epoch, losses.cpu(), loss, batched_auroc(margin, self.labels)))
        if self.settings.select == "best":
            self._keep(loss)

    def curve(self, k):
        """Return the curve of detector k: {"epoch", "train_loss", "val_loss", "val_auroc"}."""
        curve = {"epoch": [row[0] for row in self.rows]}
        for place, name in enumerate(("train_loss", "val_loss", "val_auroc"), 1):
            curve[name] = [round(float(row[place][k]), 6) for row in self.rows]
        return curve

    @torch.no_grad()
    def take_best(self):
        """Put the best weights into the network, if they are what is selected."""
        if self.best is not None:
            for weight, best in zip(self.network.stacked(), self.best, strict=True):
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
            improved = better.to(best.device)
            best[improved] = weight[improved]

    @torch.no_grad()
    def _logits(self, models):
        """float32 [K, V, 2] on the CPU."""
        device = next(self.network.module.parameters()).device
        parts = [part.expand(models, -1) for part in self.places.split(VALIDATION_AT_ONCE)]
        with precision(self.settings, device):
            return torch.cat([self.network.logits(self.inputs_of(part)).cpu() for part in parts], 1)


def mean_losses(logits, labels, smoothing=0.0):
    """Return the mean cross entropy of each detector, [K].

    Args:
        logits: [K, B, 2].
        labels: [K, B].
        smoothing: label smoothing.
    """
    losses = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing, reduction="none"
    )
    return losses.view(labels.shape).mean(1)
