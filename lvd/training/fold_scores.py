"""The scores of a part of the training videos by the detectors of its fold, and all parts as one.

{save_dir}/folds/{k}.pth holds the scores of part k. It is written when all of them are known; the
fold's detectors are not needed from then on.
"""

import shutil
from typing import Annotated, Any, Literal

import numpy as np
import torch

from lvd.data.kinds import KIND_OF_LABEL, LABEL_UNSAFE
from lvd.detectors.bank import load_bank
from lvd.errors import InputError
from lvd.evaluation.held_out import score_rows
from lvd.evaluation.results import Says, Scores
from lvd.training.shared import mean_auroc
from lvd.utils.config import need_same_training
from lvd.utils.files import load_torch, save_torch
from lvd.utils.schema import AsJson, Schema, checked
from lvd.voting import says_unsafe

OPERATING_POINT = "validation"  # "says" is at the thresholds that the fold's detectors chose
KEYS = ("scores", "calibrated", "says")


class FoldFile(Schema):
    """The content of a folds/{k}.pth."""

    format: Literal["lvd fold 1"]
    identity: Annotated[dict[str, Any], AsJson]
    scores: Scores
    calibrated: Scores | None
    says: Says


class FoldScoring:
    """Sized iterable over the steps: iterating scores the part that a fold left out.

    At the end the scores are written, then the fold's detectors are deleted.
    """

    def __init__(self, fold):
        """
        Args:
            fold: Fold, whose detectors are trained.
        """
        self.fold, self.source = fold, fold.job.source
        self.bank = load_bank(fold.job.save_dir, fold.job.device)
        self._need_unseen()

    def __len__(self):
        return len(self.bank.steps)

    def __iter__(self):
        by_step = {label: [] for label in KIND_OF_LABEL}
        for step in self.bank.steps:
            for label, kind in KIND_OF_LABEL.items():
                rows = self.fold.left_out[kind]
                scores = score_rows(self.bank, self.source, kind, rows, step)
                by_step[label].append(self._said(step, scores))
            yield step
        save_torch(self._content(by_step), self.fold.path)
        delete_detectors(self.fold)

    def _said(self, step, scores):
        """Return {key of KEYS: [N, G]} of one step's raw probabilities [N, G]."""
        thresholds = self.bank.thresholds(step, OPERATING_POINT)
        columns = scores.T.tolist()
        says = [
            [int(says_unsafe(score, threshold)) for score in column]
            for column, threshold in zip(columns, thresholds, strict=True)
        ]
        return {
            "scores": scores.double().numpy(),
            "calibrated": self.bank.calibrated(step, scores),
            "says": np.array(says).T,
        }

    def _content(self, by_step):
        content = {"format": "lvd fold 1", "identity": fold_identity(self.fold)}
        for key in KEYS:
            content[key] = {
                label: self._nested(KIND_OF_LABEL[label], [said[key] for said in steps])
                for label, steps in by_step.items()
            }
        if not self.bank.all_calibrated:
            content["calibrated"] = None
        return content

    def _nested(self, kind, steps):
        """Return [N, G] of each step as {group: {row: [value] * S}}."""
        values = np.stack(steps, 2)  # [N, G, S]
        rows = [str(row) for row in self.fold.left_out[kind]]
        return {
            str(group): dict(zip(rows, values[:, column].tolist(), strict=True))
            for column, group in enumerate(self.bank.groups)
        }

    def _need_unseen(self):
        """The property that all of this is for: no detector was trained on what it scores."""
        for member in self.bank.members.values():
            for kind, rows in self.fold.left_out.items():
                if seen := set(rows) & set(member.about["rows"][kind]):
                    raise InputError(
                        f"{member.path}: was trained on {kind} video {min(seen)}, which it has to "
                        "score; delete it"
                    )


def fold_identity(fold):
    """Return {key: value} that the scores of a part follow from."""
    job = fold.job
    unseen = {kind: getattr(job.split, kind) for kind in fold.left_out}
    return {
        **job.identity(),
        "init": job.init_sha256,
        "categories": job.source.categories,
        "steps": job.steps,
        "part": fold.left_out,
        "unseen": unseen,
    }


def load_fold_scores(fold):
    """Return the scores of a part, None while they are not known.

    Raises:
        InputError: they are of another training.
    """
    if not fold.path.exists():
        return None
    content = checked(FoldFile, load_torch(fold.path), fold.path)
    need_same_training(fold.path, content["identity"], fold_identity(fold))
    return content


def delete_detectors(fold):
    """Delete the detectors of a fold."""
    shutil.rmtree(fold.job.save_dir, ignore_errors=True)


def joined(folds, rows):
    """Return the content of folds.pth, without how it was made.

    Args:
        folds: [Fold], all of them scored.
        rows: Rows of all videos.

    Raises:
        InputError: the scores of a fold are gone: a second run of the same command was faster.
    """
    parts = [load_fold_scores(fold) for fold in folds]
    if None in parts:
        raise InputError(
            f"{folds[parts.index(None)].path}: is gone, another process works in this folder; wait "
            "for it, the same command then goes on"
        )
    job = folds[0].job
    content = {key: _joined(parts, key, rows) for key in KEYS if all(part[key] for part in parts)}
    content["categories"] = {str(group): name for group, name in job.categories.items()}
    content["members"] = {
        str(column + 1): [
            str(row)
            for (_, row), is_member in zip(rows.videos, members.tolist(), strict=True)
            if is_member
        ]
        for column, members in enumerate(rows.labels.T)
    }
    content["operating_point"] = OPERATING_POINT
    content["eval_sha256"] = job.eval_sha256
    return content


def _joined(parts, key, rows):
    """Put {label: {group: {row: values}}} of all parts together, in the order of the rows."""
    whole = {}
    for label, kind in KIND_OF_LABEL.items():
        whole[label] = {}
        for group in parts[0][key][label]:
            known = {}
            for part in parts:
                known |= part[key][label][group]
            whole[label][group] = {str(row): known[str(row)] for row in rows.of_kind(kind)}
    return whole


def out_of_fold_auroc(content, step):
    """Return the AUROC of a step, the mean over categories and parts, each part by itself.

    Args:
        content: of a folds.pth.
        step: position of the step.
    """
    areas = []
    groups = sorted(content["members"], key=int)
    for number in range(1, content["folds"]["count"] + 1):
        rows = [
            (label, row)
            for label, kind in KIND_OF_LABEL.items()
            for row, part in content["part"][kind].items()
            if part == number
        ]
        scores = [[content["scores"][label][g][row][step] for g in groups] for label, row in rows]
        labels = [
            [label == LABEL_UNSAFE and row in content["members"][g] for g in groups]
            for label, row in rows
        ]
        areas.append(mean_auroc(torch.tensor(scores)[:, None], torch.tensor(labels).float()))
    return float(np.mean(areas))
