"""What is measured while detectors train."""

import torch
import torch.nn.functional as F

from lvd.evaluation.metrics import batched_auroc
from lvd.training.loop import precision

POINTS = 10  # of a validation curve
VALIDATION_AT_ONCE = 32  # validation clips


class Watch:
    """What is measured while detectors train: losses and validation AUROC at up to POINTS epochs,
    of the weights of that moment; with select "best" also the weights themselves, where the
    validation loss is lowest.

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
        loss = (
            F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none")
            .view(targets.shape)
            .mean(1)
        )
        margin = scores[..., 1] - scores[..., 0]
        self.rows.append((epoch, losses.cpu(), loss, batched_auroc(margin, self.labels)))
        if self.settings["select"] == "best":
            self._keep(loss)

    def curve(self, k):
        """{"epoch": [...], "train_loss": [...], "val_loss": [...], "val_auroc": [...]} of detector
        k."""
        names = ("train_loss", "val_loss", "val_auroc")
        return {
            "epoch": [row[0] for row in self.rows],
            **{
                name: [round(float(row[i][k]), 6) for row in self.rows]
                for i, name in enumerate(names, 1)
            },
        }

    @torch.no_grad()
    def take_best(self):
        """Put the best weights into the network, if they are what is selected."""
        for weight, best in zip(
            self.network.stacked(), self.best or [], strict=self.best is not None
        ):
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
        parts = [part.expand(models, -1) for part in self.places.split(VALIDATION_AT_ONCE)]
        with precision(self.settings, device):
            return torch.cat([self.network.logits(self.inputs_of(part)).cpu() for part in parts], 1)
