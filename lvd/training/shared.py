"""Training the shared detector: one model for every category and step."""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from lvd.detectors.bank import SHARED
from lvd.detectors.calibration import fit_calibration, to_dict
from lvd.detectors.shared import build_shared, load_shared_file, predict_shared, save_shared
from lvd.detectors.step_inputs import TABLE
from lvd.errors import InputError
from lvd.evaluation.metrics import batched_auroc, choose_threshold, false_positives_met, rates
from lvd.training.augment import random_mask
from lvd.training.job import METRICS
from lvd.training.rows import rows_for_all, split_rows
from lvd.utils.files import save_csv
from lvd.x0.step_map import levels_of_sampling


class SharedTask:
    """What ResumableRun needs to know to train {save_dir}/shared.pth.

    Attributes:
        rows: Rows of all videos; train, validation: positions of videos in them.
        identity: {key: value} that the weights follow from.
        detector: SharedDetector, once it is built.
        levels: [S] noise levels of the steps, where the network is told them; else None.
        mean, std: [S, C] statistics of the training clips, set by the run.
    """

    noun, file_name = "shared detector", SHARED

    def __init__(self, job):
        self.job, self.detector, self.mean, self.std = job, None, None, None
        self.rows = rows_for_all(job.source, job.split, job.steps)
        rng = np.random.default_rng(job.settings.seed)
        self.train, self.validation = split_rows(self.rows.labels, job.settings.validation, rng)
        self.weights = loss_weights(self.rows.labels, self.train)
        self.levels = levels_of_steps(job)
        self.identity = {
            **job.identity(),
            "steps": job.steps,
            "rows": self.rows.by_kind(),
            "categories": job.source.categories,
            "init": job.init_sha256,
        }

    def load_about(self, path):
        """Return what a finished result says about itself."""
        return load_shared_file(path, mmap=True)["about"]

    def build(self, clip_shape):
        """Return the network for clips [C, F, H, W], untrained or with the encoder of --init."""
        job, settings = self.job, self.job.settings
        self.detector = build_shared(
            settings.size,
            clip_shape,
            job.source.representation,
            settings.seed,
            job.steps,
            job.source.categories,
            settings.dropout,
            settings.base_model,
            self.levels,
        )
        if job.init:
            job.init.into(self.detector.net)
        return self.detector.net

    def hidden(self, clips, generator):
        """Draw which tokens of so many clips are hidden: bool [clips, tokens], or None for none."""
        tokens = self.detector.net.videomae.embeddings.num_patches
        return random_mask(tokens, clips, self.job.settings.mask, generator)

    def loss(self, inputs, at, videos, hidden):
        """Return the mean loss of clips.

        Args:
            inputs: [B, C, F, H, W], normalised and augmented.
            at: [B] positions of their steps.
            videos: [B] positions of their videos in `rows`.
            hidden: bool [B, tokens], True for a token that is not seen; None: all are.
        """
        labels = self.rows.labels[videos].to(inputs.device)
        weights = self.weights[videos].to(inputs.device)
        return weighted_loss(self.detector.net(inputs, at, hidden).float(), labels, weights)

    def validate(self, clips):
        """Return loss and mean AUROC on the validation videos, as {"val_loss", "val_auroc"}."""
        scores = self.scores(clips)
        labels = self.rows.labels[self.validation].double()
        weights = self.weights[self.validation].double()
        logits = rearrange(torch.logit(scores.double(), 1e-7), "n s g -> s n g")
        auroc = self.auroc(scores, labels)
        return {
            "val_loss": round(weighted_loss(logits, labels, weights).item(), 6),
            "val_auroc": None if auroc is None else round(auroc, 6),
        }

    def auroc(self, scores, labels):
        """Return the AUROC of a validation; see `mean_auroc`."""
        return mean_auroc(scores, labels)

    def save(self, path, clips, facts):
        """Write the table of metrics and the detector.

        Args:
            path: of the detector.
            clips: AllClips, for thresholds and calibrations.
            facts: {key: value} of the run, for the file.

        Returns:
            What the detector says about itself.
        """
        job = self.job
        self.detector.mean, self.detector.std = self.mean, self.std
        metrics = self.choose(self.scores(clips), facts["curve"][-1]["train_loss"])
        self.detector.about = {
            **self.identity,
            "sampling": job.source.sampling,
            **facts,
            "metrics": metrics,
            "init_about": job.init.about if job.init else None,
        }
        save_csv(metrics, path.with_name(METRICS))
        save_shared(self.detector, path)
        return self.detector.about

    def choose(self, scores, train_loss):
        """Set thresholds and calibrations of every category and step, against normal videos.

        Args:
            scores: probabilities [N, S, G] of the validation videos.
            train_loss: of the last epoch, for the table.

        Returns:
            rows of metrics.
        """
        steps, detector = self.job.steps, self.detector
        detector.thresholds = [[] for _ in steps]
        detector.calibrations = [[] for _ in steps]
        rows = []
        for at, step in enumerate(steps):
            for column, category in enumerate(self.job.source.categories):
                row = {"group": column + 1, "step": step, "category": category}
                row |= self._counts(column) | {"train_loss": train_loss}
                rows.append(row | self._choose_one(scores[:, at, column], at, column))
        return rows

    def _choose_one(self, scores, at, column):
        """Threshold, calibration and metrics of one category at one step; scores: [N]."""
        labels, aim = self.rows.labels[self.validation], self.job.settings.false_positives
        normal = labels.sum(1) == 0
        threshold = choose_threshold(scores[normal].numpy(), aim)
        asked = normal | (labels[:, column] > 0)
        own_scores = scores[asked].numpy()
        truth = labels[asked, column].int().numpy()
        self.detector.thresholds[at].append(threshold)
        self.detector.calibrations[at].append(to_dict(fit_calibration(own_scores, truth)))
        metrics = rates(own_scores, truth, threshold)
        met = false_positives_met(scores[normal].numpy(), threshold, aim)
        return {
            "val_unsafe_clips": int(truth.sum()),
            "val_normal_clips": int((truth == 0).sum()),
            **{f"val_{name}": value for name, value in metrics.items()},
            "val_false_positives_met": met,
        }

    def _counts(self, column):
        unsafe = int(self.rows.labels[:, column].sum())
        return {"unsafe_clips": unsafe, "normal_clips": len(self.rows.of_kind("normal"))}

    def scores(self, clips):
        """Return the probabilities [N, S, G] of the validation videos; clips: AllClips."""
        self.detector.mean, self.detector.std = self.mean, self.std
        places = range(len(self.job.steps))
        wanted = [(self.validation, torch.full_like(self.validation, at)) for at in places]
        scores = [
            predict_shared(self.detector, self.job.steps[int(at[0])], of_step)
            for _, at, of_step in clips.batches(wanted)
        ]
        return torch.stack(scores, 1)


def levels_of_steps(job):
    """Return the noise level of each of a job's steps, for a network that is told it; else None.

    Raises:
        InputError: the clips do not tell their levels.
    """
    if getattr(job.settings, "step_input", TABLE) == TABLE:  # a network of names has no choice
        return None
    levels = levels_of_sampling(job.source.sampling or {})
    if levels is None:
        raise InputError(
            "--step_input level: these clips do not tell at what noise level they were made (their "
            "scheduler and timesteps); record them by this version, or leave it out"
        )
    return [levels[step] for step in job.steps]


def loss_weights(labels, train):
    """Return the weight of every video's label in the loss, float32 [N, G].

    A category learns from its own videos against the normal ones, as separate detectors do. Those
    of other categories count nothing, or it would be taught that they are safe. Its own videos
    together weigh as much as all normal ones, however few they are, and all categories alike.

    Args:
        labels: [N, G].
        train: positions of the training videos.
    """
    normal = (labels.sum(1, keepdim=True) == 0).float()
    weights = torch.where(labels > 0, 1.0, normal)
    unsafe_sum = (weights * labels)[train].sum(0)
    normal_sum = (weights * (1 - labels))[train].sum(0)
    weights = torch.where(labels > 0, weights * normal_sum / unsafe_sum, weights)
    return weights / weights[train].mean(0)


def weighted_loss(logits, labels, weights):
    """Return the mean binary cross-entropy of logits [..., N, G]; labels, weights: [N, G]."""
    labels = labels.expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (losses * weights).mean()


def mean_auroc(scores, labels):
    """Return the mean AUROC over steps and categories, against normal videos.

    Args:
        scores: [N, S, G].
        labels: [N, G].
    """
    normal = labels.sum(1) == 0
    aurocs = []
    for column in range(labels.shape[1]):
        asked = normal | (labels[:, column] > 0)
        aurocs.append(batched_auroc(scores[asked, :, column].T, labels[asked, column]))
    return float(torch.cat(aurocs).double().mean())
