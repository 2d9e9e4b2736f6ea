"""Training the shared detector: one model for every category and step."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lvd.data.transforms import normalise
from lvd.detectors.bank import SHARED
from lvd.detectors.calibration import fit_calibration, to_dict
from lvd.detectors.shared import build_shared, load_shared_file, predict_shared, save_shared
from lvd.errors import InputError
from lvd.evaluation.metrics import auroc, choose_threshold, false_positives_met, rates
from lvd.training.augment import random_mask
from lvd.training.grid import MIN_CLIPS
from lvd.training.grid_run import METRICS
from lvd.training.resumable import SAVE_EVERY, ResumableRun
from lvd.utils.config import versions
from lvd.utils.files import save_csv

TRIES = 200  # draws of the validation videos, should small categories overlap


class SharedRun(ResumableRun):
    """Trains {save_dir}/shared.pth: see ResumableRun.

    source: as of lvd.data.sources; steps: the denoising steps to train for; init: Pretrained
    encoder to start from, or None.
    """

    noun, result, checkpoint = "shared detector", SHARED, "shared.training.pth"
    curve_names = "shared_curve.csv", "shared_curve.png"

    def __init__(
        self,
        source,
        split,
        settings,
        steps,
        eval_sha256,
        save_dir,
        device="cpu",
        init=None,
        save_every=SAVE_EVERY,
    ):
        super().__init__(source, settings, steps, save_dir, device, save_every)
        self.init, self.detector = init, None
        self.rows = rows_for_all(source, split, self.steps)
        self.train, self.validation = split_rows(
            self.rows.labels, settings["validation"], np.random.default_rng(self.seed)
        )
        self.weights = loss_weights(self.rows.labels, self.train)
        self.identity = {
            **self._common_identity(eval_sha256),
            "categories": source.categories,
            "init": init.sha256 if init else None,
        }
        self._resume(lambda path: load_shared_file(path, mmap=True))

    def _network(self, shape):
        settings = self.settings
        self.detector = build_shared(
            settings["size"],
            shape,
            self.source.representation,
            self.seed,
            self.steps,
            self.source.categories,
            settings["dropout"],
            settings["base_model"],
        )
        if self.init:
            self.init.into(self.detector.net)
        return self.detector.net

    def _begin(self):
        super()._begin()
        self.detector.mean, self.detector.std = self.mean, self.std

    def _loss(self, videos, at, clips, generator):
        inputs = self._augmented(normalise(clips, self.mean, self.std, at), generator)
        hidden = random_mask(
            self.net.videomae.embeddings.num_patches, len(inputs), self.settings["mask"], generator
        )
        hidden = None if hidden is None else hidden.to(self.device)
        return weighted_loss(
            self.net(inputs, at, hidden).float(),
            self.rows.labels[videos].to(self.device),
            self.weights[videos].to(self.device),
        )

    def _look(self):
        """Loss and AUROC on the validation videos."""
        scores = self._validation_scores()
        labels, weights = (
            self.rows.labels[self.validation].double(),
            self.weights[self.validation].double(),
        )
        logits = torch.logit(scores.double(), 1e-7).transpose(0, 1)  # [S, N, G]
        return {
            "val_loss": round(weighted_loss(logits, labels, weights).item(), 6),
            "val_auroc": round(_mean_auroc(scores, labels), 6),
        }

    def _result(self):
        metrics = self._choose(self._validation_scores())
        self.about = {
            **self.identity,
            "sampling": self.source.sampling,
            "seed": self.seed,
            "data_sha256": self.clips.sha256,
            "metrics": metrics,
            "curve": self.curve,
            "init_about": self.init.about if self.init else None,
            "seconds": self.seconds(),
            "versions": versions(),
        }
        self.detector.about = self.about
        save_csv(metrics, self.save_dir / METRICS)
        save_shared(self.detector, self.save_dir / SHARED)

    def _choose(self, scores):
        """Set thresholds and calibrations, and list metrics: of every category and step against
        normal videos."""
        labels, rows = self.rows.labels[self.validation], []
        clips = {
            "unsafe": self.rows.labels.sum(0).int().tolist(),
            "normal": len(self.rows.of("normal")),
        }
        normal = labels.sum(1) == 0
        self.detector.thresholds, self.detector.calibrations = (
            [[] for _ in self.steps],
            [[] for _ in self.steps],
        )
        for at, step in enumerate(self.steps):
            for column, category in enumerate(self.source.categories):
                safe, aim = scores[normal, at, column].numpy(), self.settings["false_positives"]
                threshold = choose_threshold(safe, aim)
                asked = normal | (labels[:, column] > 0)
                mine, truth = scores[asked, at, column].numpy(), labels[asked, column].int().numpy()
                self.detector.thresholds[at].append(threshold)
                self.detector.calibrations[at].append(to_dict(fit_calibration(mine, truth)))
                found = rates(mine, truth, threshold)
                rows.append(
                    {
                        "group": column + 1,
                        "step": step,
                        "category": category,
                        "unsafe_clips": clips["unsafe"][column],
                        "normal_clips": clips["normal"],
                        "train_loss": self.curve[-1]["train_loss"],
                        **{f"val_{k}": v for k, v in found.items()},
                        "val_false_positives_met": false_positives_met(safe, threshold, aim),
                    }
                )
        return rows

    def _validation_scores(self):
        """Probabilities [N, S, G] of the validation videos."""
        wanted = [
            (self.validation, torch.full_like(self.validation, at)) for at in range(len(self.steps))
        ]
        return torch.stack(
            [
                predict_shared(self.detector, self.steps[int(at[0])], clips)
                for _, at, clips in self.clips.batches(wanted)
            ],
            1,
        )


def loss_weights(labels, train):
    """Weight [N, G] of every video's label in the loss. labels: [N, G]; train: positions of the
    training videos.

    A category learns from its own videos against the normal ones, as separate detectors do: those
    of other categories count nothing, or it would be taught that they are safe. Its own weigh as
    much together as all normal ones, however few they are, and all categories alike.
    """
    weights = torch.where(labels > 0, 1.0, (labels.sum(1, keepdim=True) == 0).float())
    ours, normals = (weights * labels)[train].sum(0), (weights * (1 - labels))[train].sum(0)
    weights = torch.where(labels > 0, weights * normals / ours, weights)
    return weights / weights[train].mean(0)


def weighted_loss(logits, labels, weights):
    """Mean binary cross-entropy of logits [..., N, G]."""
    return (
        F.binary_cross_entropy_with_logits(logits, labels.expand_as(logits), reduction="none")
        * weights
    ).mean()


def _mean_auroc(scores, labels):
    """Mean over steps and categories of the AUROC of scores [N, S, G] against the normal videos."""
    normal = labels.sum(1) == 0
    found = []
    for column in range(labels.shape[1]):
        asked = normal | (labels[:, column] > 0)
        found += [
            auroc(scores[asked, at, column], labels[asked, column]) for at in range(scores.shape[1])
        ]
    return float(np.mean(found))


@dataclass(frozen=True)
class Rows:
    """videos: [("unsafe" or "normal", row)], unsafe first; labels: float32 [N, G], 1 where the
    video is of that category."""

    videos: list
    labels: torch.Tensor

    def of(self, kind):
        return [row for found, row in self.videos if found == kind]


def rows_for_all(source, split, steps):
    """Rows of all videos that are not held out, with their categories. InputError for a category or
    normals with too few of them, and for videos that are not there at every step."""
    members = {
        group: _same_at_all(source.group_rows, group, steps, source.group_place)
        for group in source.groups
    }
    held = set(split.unsafe)
    members = {group: [row for row in rows if row not in held] for group, rows in members.items()}
    normal = _same_at_all(source.rows, "normal", steps, source.place)
    normal = [row for row in normal if row not in set(split.normal)]
    places = {source.group_place(group, steps[0]): rows for group, rows in members.items()}
    for place, rows in {**places, source.place("normal", steps[0]): normal}.items():
        if len(rows) < MIN_CLIPS:
            raise InputError(
                f"{place}: {len(rows)} clip(s) that are not held out, {MIN_CLIPS} or more are "
                "needed to train"
            )
    unsafe = sorted(set().union(*members.values()))
    labels = torch.zeros(len(unsafe) + len(normal), len(source.groups))
    for column, rows in enumerate(members.values()):
        labels[[unsafe.index(row) for row in rows], column] = 1
    return Rows([("unsafe", row) for row in unsafe] + [("normal", row) for row in normal], labels)


def _same_at_all(rows_of, what, steps, place):
    first = rows_of(what, steps[0])
    for step in steps:
        if other := sorted(set(first) ^ set(rows_of(what, step))):
            raise InputError(
                f"{place(what, step)}: row {other[0]} is not at every step; run build_x0.py to "
                "the end"
            )
    return first


def split_rows(labels, fraction, rng):
    """(train, validation) positions: a video is in one of them at all steps.

    From the rarest category on, `fraction` of its videos, at least one, are for validation, and of
    the normal ones; at least one of each stays to train on. InputError when categories of few
    videos overlap so that this cannot be.
    """
    kinds = [labels[:, group] > 0 for group in labels.sum(0).argsort(stable=True).tolist()] + [
        labels.sum(1) == 0
    ]
    for _ in range(TRIES):
        held = _drawn(kinds, fraction, rng)
        if all((members & held).any() for members in kinds):
            return torch.where(~held)[0], torch.where(held)[0]
    raise InputError(
        "categories: they share so many of their few videos that not each has one to train on "
        "and another one for validation; more videos that are not held out are needed"
    )


def _drawn(kinds, fraction, rng):
    """One draw of validation videos, bool [N]; whatever has been drawn, each of `kinds` (bool [N]
    each) keeps one."""
    held = torch.zeros(len(kinds[0]), dtype=torch.bool)
    for members in kinds:
        wanted = max(1, int(fraction * int(members.sum()) + 0.5)) - int((members & held).sum())
        free = torch.where(members & ~held)[0].numpy()
        for video in rng.choice(free, min(max(wanted, 0), len(free)), replace=False):
            held[video] = True
            held[video] = all((kind & ~held).any() for kind in kinds)
    return held
