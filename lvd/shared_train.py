"""Training the shared detector: one model for every category and step."""

import numpy as np
import torch
import torch.nn.functional as F

from lvd.bank import SHARED
from lvd.calibration import fit_calibration, to_dict
from lvd.epoch_run import SAVE_EVERY, EpochRun, random_mask
from lvd.files import save_csv
from lvd.settings import versions
from lvd.shared import build_shared, load_shared_file, normalise, predict_shared, save_shared
from lvd.shared_clips import rows_for_all, split_rows
from lvd.train import choose_threshold, false_positives_met, rates
from lvd.train_run import METRICS


class SharedRun(EpochRun):
    """Trains {save_dir}/shared.pth: see EpochRun.

    source: as of lvd.source; steps: the denoising steps to train for; init: Pretrained encoder to start from, or None.
    """

    noun, result, checkpoint = "shared detector", SHARED, "shared.training.pth"
    curve_names = "shared_curve.csv", "shared_curve.png"

    def __init__(self, source, split, settings, steps, eval_sha256, save_dir, device="cpu", init=None,
                 save_every=SAVE_EVERY):
        super().__init__(source, settings, steps, save_dir, device, save_every)
        self.init, self.detector = init, None
        self.rows = rows_for_all(source, split, self.steps)
        self.train, self.validation = split_rows(self.rows.labels, settings["validation"], np.random.default_rng(self.seed))
        self.weights = loss_weights(self.rows.labels, self.train)
        self.identity = {**self._common_identity(eval_sha256), "categories": source.categories,
                         "init": init.sha256 if init else None}
        self._resume(lambda path: load_shared_file(path, mmap=True))

    def _network(self, shape):
        settings = self.settings
        self.detector = build_shared(settings["size"], shape, self.source.representation, self.seed, self.steps,
                                     self.source.categories, settings["dropout"], settings["base_model"])
        if self.init:
            self.init.into(self.detector.net)
        return self.detector.net

    def _begin(self):
        super()._begin()
        self.detector.mean, self.detector.std = self.mean, self.std

    def _loss(self, videos, at, clips, generator):
        inputs = self._augmented(normalise(self.detector, clips, at), generator)
        hidden = random_mask(self.net.videomae.embeddings.num_patches, len(inputs), self.settings["mask"], generator)
        hidden = None if hidden is None else hidden.to(self.device)
        return weighted_loss(self.net(inputs, at, hidden).float(), self.rows.labels[videos].to(self.device),
                             self.weights[videos].to(self.device))

    def _look(self):
        """Loss and AUROC on the validation videos."""
        scores = self._validation_scores()
        labels, weights = self.rows.labels[self.validation].double(), self.weights[self.validation].double()
        logits = torch.logit(scores.double(), 1e-7).transpose(0, 1)  # [S, N, G]
        return {"val_loss": round(weighted_loss(logits, labels, weights).item(), 6),
                "val_auroc": round(_mean_auroc(scores, labels), 6)}

    def _result(self):
        metrics = self._choose(self._validation_scores())
        self.about = {**self.identity, "sampling": self.source.sampling, "seed": self.seed,
                      "data_sha256": self.clips.sha256, "metrics": metrics, "curve": self.curve,
                      "init_about": self.init.about if self.init else None, "seconds": self.seconds(),
                      "versions": versions()}
        self.detector.about = self.about
        save_csv(metrics, self.save_dir / METRICS)
        save_shared(self.detector, self.save_dir / SHARED)

    def _choose(self, scores):
        """Set thresholds and calibrations, and list metrics: of every category and step against normal videos."""
        labels, rows = self.rows.labels[self.validation], []
        clips = {"unsafe": self.rows.labels.sum(0).int().tolist(), "normal": len(self.rows.of("normal"))}
        normal = labels.sum(1) == 0
        self.detector.thresholds, self.detector.calibrations = [[] for _ in self.steps], [[] for _ in self.steps]
        for at, step in enumerate(self.steps):
            for column, category in enumerate(self.source.categories):
                safe, aim = scores[normal, at, column].numpy(), self.settings["false_positives"]
                threshold = choose_threshold(safe, aim)
                asked = normal | (labels[:, column] > 0)
                mine, truth = scores[asked, at, column].numpy(), labels[asked, column].int().numpy()
                self.detector.thresholds[at].append(threshold)
                self.detector.calibrations[at].append(to_dict(fit_calibration(mine, truth)))
                found = rates(mine, truth, threshold)
                rows.append({"group": column + 1, "step": step, "category": category,
                             "unsafe_clips": clips["unsafe"][column], "normal_clips": clips["normal"],
                             "train_loss": self.curve[-1]["train_loss"], **{f"val_{k}": v for k, v in found.items()},
                             "val_false_positives_met": false_positives_met(safe, threshold, aim)})
        return rows

    def _validation_scores(self):
        """Probabilities [N, S, G] of the validation videos."""
        wanted = [(self.validation, torch.full_like(self.validation, at)) for at in range(len(self.steps))]
        return torch.stack([predict_shared(self.detector, self.steps[int(at[0])], clips)
                            for _, at, clips in self.clips.batches(wanted)], 1)


def loss_weights(labels, train):
    """Weight [N, G] of every video's label in the loss. labels: [N, G]; train: positions of the training videos.

    A category learns from its own videos against the normal ones, as separate detectors do: those of other categories count
    nothing, or it would be taught that they are safe. Its own weigh as much together as all normal ones, however
    few they are, and all categories alike.
    """
    weights = torch.where(labels > 0, 1.0, (labels.sum(1, keepdim=True) == 0).float())
    ours, normals = (weights * labels)[train].sum(0), (weights * (1 - labels))[train].sum(0)
    weights = torch.where(labels > 0, weights * normals / ours, weights)
    return weights / weights[train].mean(0)


def weighted_loss(logits, labels, weights):
    """Mean binary cross-entropy of logits [..., N, G]."""
    return (F.binary_cross_entropy_with_logits(logits, labels.expand_as(logits), reduction="none") * weights).mean()


def _mean_auroc(scores, labels):
    """Mean over steps and categories of the AUROC of scores [N, S, G] against the normal videos."""
    from sklearn.metrics import roc_auc_score

    normal = labels.sum(1) == 0
    found = []
    for column in range(labels.shape[1]):
        asked = normal | (labels[:, column] > 0)
        found += [roc_auc_score(labels[asked, column], scores[asked, at, column]) for at in range(scores.shape[1])]
    return float(np.mean(found))
