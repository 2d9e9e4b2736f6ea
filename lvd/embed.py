"""Scores and votes of all detectors on the held-out clips."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import torch

from lvd.calibration import from_dict, raw_threshold, to_dict
from lvd.detector import load_detector, load_file, predict
from lvd.errors import InputError
from lvd.evaluate import check_detector, check_place
from lvd.files import load_torch, save_torch, sha256
from lvd.report import NORMAL, UNSAFE, votes_sha256
from lvd.source import Readers
from lvd.train_run import detector_path
from lvd.voting import step_votes

CHUNK = 256  # clips read and scored at once
KIND_OF = {UNSAFE: "unsafe", NORMAL: "normal"}


def detector_grid(model_dir):
    """(groups, steps) of the detectors in {model_dir}/{group}/{step}.pth.

    InputError when one is missing (without a category its videos would pass for safe) or lies at another's place.
    """
    found = {}
    for path in sorted(Path(model_dir).glob("*/*.pth")):
        if re.fullmatch(r"[0-9]+/[0-9]+\.pth", f"{path.parent.name}/{path.name}"):
            found.setdefault(int(path.parent.name), set()).add(int(path.stem))
    if not found:
        raise InputError(f"--model_dir {model_dir}: no detectors {{group}}/{{step}}.pth here; run train_mae.py")
    groups, steps = sorted(found), sorted(set().union(*found.values()))
    for group in groups:
        if missing := sorted(set(steps) - found[group]):
            raise InputError(f"--model_dir {model_dir}: detector {group}/{missing[0]}.pth is missing (of {len(groups)} "
                             f"groups, {len(steps)} steps); run train_mae.py to the end")
    _need_categories(model_dir, groups, [about_of(model_dir, group, step) for group in groups for step in steps])
    return groups, steps


def about_of(model_dir, group, step):
    """What a detector says about itself, read without its weights; {} for a bare state dict."""
    path = detector_path(model_dir, group, step)
    found = load_file(path, mmap=True)
    about = found["about"] if "format" in found else {}
    check_place(about, path)
    return about


def _need_categories(model_dir, groups, abouts):
    """Groups must be all categories of the dataset; where no detector knows them, at least have no gap."""
    known = [about["categories"] for about in abouts if about.get("categories")]
    if any(names != known[0] for names in known):
        raise InputError(f"--model_dir {model_dir}: detectors of different sets of categories; train them on one dataset")
    names = known[0] if known else [str(group) for group in range(1, groups[-1] + 1)]
    for group, name in enumerate(names, 1):
        if group not in groups:
            raise InputError(f"--model_dir {model_dir}: no detectors of group {group} ({name}), one of {len(names)} "
                             f"categories; run train_mae.py --group_num all")
    if extra := sorted(set(groups) - set(range(1, len(names) + 1))):
        raise InputError(f"--model_dir {model_dir}: detectors of group {extra[0]}, but the dataset has {len(names)} "
                         f"categories ({', '.join(names)})")


class Embedding:
    """Sized iterable over denoising steps: scores every held-out clip with every category's detector of that step.

    source: HeldOutFolders or RecordedClips; operating_point: as of `check_operating_point`.
    split: the held-out rows, which must be there. Iterating yields the step; then `votes()` and `scores` are whole.
    finished: StepScores that keeps each step's scores as they come, so that a stopped run goes on there.
    """

    def __init__(self, model_dir, source, split, eval_sha256, operating_point, device="cpu", allow_other_eval=False):
        self.model_dir, self.source = Path(model_dir), source
        self.rows = {label: getattr(split, kind) for label, kind in KIND_OF.items()}
        self.eval_sha256, self.operating_point = eval_sha256, operating_point
        self.device, self.allow_other_eval = device, allow_other_eval
        self.groups, self.steps = detector_grid(model_dir)
        for step in self.steps:
            for label, kind in KIND_OF.items():
                source.need_rows(kind, self.rows[label], step)
        self.representation, self.made_by = source.representation, source.made_by
        self._check_all_steps()
        self.scores = {label: {} for label in self.rows}  # label → group → row → [raw probability] * S
        self.flags = {label: {} for label in self.rows}  # the same with 0/1
        self.thresholds, self.calibrations, self.categories = {}, {}, {}  # group → [...] * S, [...] * S, display name
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
        """results.pth: {"1": {row: [vote] * S}, "0": {...}}, rows as strings; a step's vote is the OR over categories."""
        return {label: {str(row): step_votes([by_group[group][str(row)] for group in map(str, self.groups)])
                        for row in self.rows[label]} for label, by_group in self.flags.items()}

    def _check_all_steps(self):
        """Detectors must cover the steps of the clips: an average over fewer would pass for the whole."""
        there = set(self.source.steps)
        if missing := sorted(there - set(self.steps)):
            raise InputError(f"--model_dir {self.model_dir}: no detectors of step {missing[0]} ({len(self.steps)} of "
                             f"{len(there)} steps are trained); run train_mae.py to the end")
        if self.steps != list(range(len(self.steps))):
            missing = next(step for step in range(len(self.steps)) if step not in self.steps)
            raise InputError(f"--model_dir {self.model_dir}: no detectors of step {missing}; votes need all steps from 0")

    def detectors_sha256(self):
        """Hash of what the detectors say about themselves (data, seed, settings, metrics); of a bare file, its bytes."""
        digest = hashlib.sha256()
        for group in self.groups:
            for step in self.steps:
                about = about_of(self.model_dir, group, step)
                text = json.dumps(about, sort_keys=True) if about else sha256(detector_path(self.model_dir, group, step))
                digest.update(text.encode())
        return digest.hexdigest()

    def _score(self, step):
        """{"scores": {label: {group: [probability per row]}}, "thresholds": {group: ...}, "categories": {group: ...}}"""
        detectors = {group: self._detector(group, step) for group in self.groups}
        scores = {label: {str(group): [] for group in self.groups} for label in self.rows}
        for label, kind in KIND_OF.items():
            rows = self.rows[label]
            for start in range(0, len(rows), CHUNK):
                readers = Readers(self.source)  # categories share what is read; held for this part only
                for group, detector in detectors.items():
                    clips = readers.of(step, detector.model.config).read({kind: rows[start:start + CHUNK]})
                    scores[label][str(group)] += predict(detector, clips).tolist()
        thresholds = {str(g): raw_threshold(self.operating_point, d.threshold, d.calibration,
                                            detector_path(self.model_dir, g, step)) for g, d in detectors.items()}
        return {"scores": scores, "thresholds": thresholds,
                "calibrations": {str(g): to_dict(d.calibration) for g, d in detectors.items()},
                "categories": {str(g): d.about.get("category", f"group{g}") for g, d in detectors.items()}}

    def _detector(self, group, step):
        path = detector_path(self.model_dir, group, step)
        detector = load_detector(path, self.device)
        check_detector(detector, path, self.representation, self.eval_sha256, self.made_by, self.allow_other_eval)
        return detector

    def _keep(self, found):
        """Append one step's scores and votes to those of the steps before."""
        self.categories |= found["categories"]
        for group, threshold in found["thresholds"].items():
            self.thresholds.setdefault(group, []).append(threshold)
            self.calibrations.setdefault(group, []).append(from_dict(found["calibrations"][group], f"group {group}"))
            for label, rows in self.rows.items():
                scores = self.scores[label].setdefault(group, {})
                flags = self.flags[label].setdefault(group, {})
                for row, score in zip(map(str, rows), found["scores"][label][group], strict=True):
                    scores.setdefault(row, []).append(score)
                    flags.setdefault(row, []).append(int(score >= threshold))


class StepScores:
    """Scores of the finished steps of a run that is not at its end, as {folder}/{step}.pth.

    config: what made them (plain JSON); those of another config are not loaded.
    """

    def __init__(self, folder, config):
        self.folder, self.config = Path(folder), json.dumps({"format": 2, **config}, sort_keys=True)

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
    """scores.pth: raw probabilities [label][group][row][step], the thresholds [group][step] that made votes of them, the
    hash of these votes, and where all detectors are calibrated, "calibrated" probabilities nested alike."""
    calibrated = {}
    if all(calibration.fitted for found in embedding.calibrations.values() for calibration in found):
        calibrated["calibrated"] = {label: {group: _calibrated(by_row, embedding.calibrations[group])
                                            for group, by_row in by_group.items()}
                                    for label, by_group in embedding.scores.items()}
    return {"scores": embedding.scores, **calibrated, "thresholds": embedding.thresholds,
            "categories": embedding.categories, "operating_point": embedding.operating_point,
            "eval_sha256": embedding.eval_sha256, "votes_sha256": votes_sha256(embedding.votes())}


def _calibrated(by_row, calibrations):
    """{row: [raw probability] * S} → the same of calibrated ones. calibrations: [Calibration] * S."""
    raw = np.array(list(by_row.values()))  # [rows, S]
    steps = [calibration(raw[:, step]) for step, calibration in enumerate(calibrations)]
    return dict(zip(by_row, np.stack(steps, 1).tolist(), strict=True))


def finite(embedding):
    """InputError when a detector answers with something that is not a probability."""
    for label, by_group in embedding.scores.items():
        for group, by_row in by_group.items():
            if not torch.isfinite(torch.tensor(list(by_row.values()))).all():
                raise InputError(f"detectors of group {group}: scores that are not finite (label {label}); train them again")
