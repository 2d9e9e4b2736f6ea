"""Scores and votes of all detectors on the held-out clips."""

import json
import shutil
from pathlib import Path

import numpy as np

from lvd.data.kinds import KIND_OF_LABEL
from lvd.detectors.bank import load_bank
from lvd.errors import InputError
from lvd.evaluation.held_out import score_rows
from lvd.evaluation.vote_report import votes_sha256
from lvd.utils.files import load_torch, save_torch
from lvd.voting import says_unsafe, step_votes


class VoteRun:
    """Sized iterable over denoising steps: scores every held-out clip with every category of the
    bank.

    source: HeldOutFolders or RecordedClips; operating_point: as of `check_operating_point`. split:
    the held-out rows, which must be there. Iterating yields the step; then `votes()` and `scores`
    are whole. finished: StepScores that keeps each step's scores as they come, so that a stopped
    run goes on there.
    """

    def __init__(
        self,
        model_dir,
        source,
        split,
        eval_sha256,
        operating_point,
        device="cpu",
        allow_other_eval=False,
    ):
        self.model_dir, self.source = Path(model_dir), source
        self.rows = {label: getattr(split, kind) for label, kind in KIND_OF_LABEL.items()}
        self.eval_sha256, self.operating_point = eval_sha256, operating_point
        self.bank = load_bank(model_dir, device)
        self.groups, self.steps = self.bank.groups, self.bank.steps
        for step in self.steps:
            for label, kind in KIND_OF_LABEL.items():
                source.need_rows(kind, self.rows[label], step)
        self.representation, self.made_by = source.representation, source.made_by
        self._check_all_steps()
        self.bank.check(self.representation, eval_sha256, self.made_by, allow_other_eval)
        self.scores = {
            label: {} for label in self.rows
        }  # label → group → row → [raw probability] * S
        self.flags = {label: {} for label in self.rows}  # the same with 0/1
        self.thresholds = {}  # group → [threshold] * S
        self.finished = None

    def __len__(self):
        return len(self.steps)

    def __iter__(self):
        for step in self.steps:
            found = self.finished.load(step) if self.finished else None
            if found is None:
                found = self._score(step)
                if self.finished:
                    self.finished.save(step, found)
            self._keep(found)
            yield step

    def votes(self):
        """results.pth: {"1": {row: [vote] * S}, "0": {...}}, rows as strings; a step's vote is the
        OR over categories."""
        return {
            label: {
                str(row): step_votes([by_group[group][str(row)] for group in map(str, self.groups)])
                for row in self.rows[label]
            }
            for label, by_group in self.flags.items()
        }

    def _check_all_steps(self):
        """Detectors must cover the steps of the clips: an average over fewer would pass for the
        whole."""
        there = set(self.source.steps)
        if missing := sorted(there - set(self.steps)):
            raise InputError(
                f"--model_dir {self.model_dir}: no detectors of step {missing[0]} "
                f"({len(self.steps)} of {len(there)} steps are trained); run train_mae.py to the "
                "end"
            )
        if self.steps != list(range(len(self.steps))):
            missing = next(step for step in range(len(self.steps)) if step not in self.steps)
            raise InputError(
                f"--model_dir {self.model_dir}: no detectors of step {missing}; votes need all "
                "steps from 0"
            )

    def _score(self, step):
        """{"scores": {label: {group: [probability per row]}}, "thresholds": {group: ...}}"""
        scores = {}
        for label, kind in KIND_OF_LABEL.items():
            found = score_rows(self.bank, self.source, kind, self.rows[label], step)
            scores[label] = dict(zip(map(str, self.groups), found.T.tolist(), strict=True))
        thresholds = self.bank.thresholds(step, self.operating_point)
        return {
            "scores": scores,
            "thresholds": dict(zip(map(str, self.groups), thresholds, strict=True)),
        }

    def _keep(self, found):
        """Append one step's scores and votes to those of the steps before."""
        for group, threshold in found["thresholds"].items():
            self.thresholds.setdefault(group, []).append(threshold)
            for label, rows in self.rows.items():
                scores = self.scores[label].setdefault(group, {})
                flags = self.flags[label].setdefault(group, {})
                for row, score in zip(map(str, rows), found["scores"][label][group], strict=True):
                    scores.setdefault(row, []).append(score)
                    flags.setdefault(row, []).append(says_unsafe(score, threshold))


class StepScores:
    """Scores of the finished steps of a run that is not at its end, as {folder}/{step}.pth.

    config: what made them (plain JSON); those of another config are not loaded.
    """

    def __init__(self, folder, config):
        self.folder, self.config = Path(folder), json.dumps({"format": 3, **config}, sort_keys=True)

    def load(self, step):
        path = self._path(step)
        found = load_torch(path) if path.exists() else {}
        return found["found"] if found.get("config") == self.config else None

    def save(self, step, found):
        save_torch({"config": self.config, "found": found}, self._path(step))

    def delete(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, step):
        return self.folder / f"{step}.pth"


def score_file(embedding):
    """scores.pth: raw probabilities [label][group][row][step], the thresholds [group][step] that
    made votes of them, the hash of these votes, and where all detectors are calibrated,
    "calibrated" probabilities nested alike."""
    bank, calibrated = embedding.bank, {}
    if bank.all_calibrated:
        calibrated["calibrated"] = {
            label: {
                group: _calibrated(by_row, bank.calibrations(int(group)))
                for group, by_row in by_group.items()
            }
            for label, by_group in embedding.scores.items()
        }
    return {
        "scores": embedding.scores,
        **calibrated,
        "thresholds": embedding.thresholds,
        "categories": {str(group): name for group, name in bank.categories.items()},
        "operating_point": embedding.operating_point,
        "eval_sha256": embedding.eval_sha256,
        "votes_sha256": votes_sha256(embedding.votes()),
    }


def _calibrated(by_row, calibrations):
    """{row: [raw probability] * S} → the same of calibrated ones. calibrations: [Calibration] * S."""
    raw = np.array(list(by_row.values()))  # [rows, S]
    steps = [calibration(raw[:, step]) for step, calibration in enumerate(calibrations)]
    return dict(zip(by_row, np.stack(steps, 1).tolist(), strict=True))
