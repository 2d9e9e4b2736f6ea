"""A bank of detectors: every category at every step, asked step by step. Votes, evaluation and the
guard use banks.

There are two kinds with one interface. `FolderBank` has one detector a file, {group}/{step}.pth, as
in the paper. `SharedBank` has one step-conditioned model for all of them, shared.pth
(lvd.detectors.shared).
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch

from lvd.data.transforms import input_size
from lvd.detectors.calibration import from_dict, raw_threshold
from lvd.detectors.detector import detector_of, detector_path, detector_paths, load_file
from lvd.detectors.member import Member, check_detector, facts_of, read_member
from lvd.detectors.step_detectors import StepDetectors
from lvd.detectors.weights import digest
from lvd.errors import InputError
from lvd.utils.files import sha256
from lvd.utils.object_locks import lock_of

SHARED = "shared.pth"
NAMES = "names.pth"  # beside detectors: tells their categories from each other


def load_bank(model_dir, device="cpu", asked_by="--model_dir "):
    """Load the bank of a folder of detectors, of a folder with shared.pth, or of that file itself.

    Args:
        model_dir: the folder or file.
        device: where the networks compute.
        asked_by: what messages put before model_dir: the flag or argument that named it.

    A names.pth in that folder belongs to the bank (lvd.detectors.names).

    Raises:
        InputError: there are no detectors, some are missing, or there are both kinds; or names.pth
            is damaged, or of other detectors.
    """
    model_dir = Path(model_dir)
    bank = _detectors(model_dir, device, asked_by)
    path = (model_dir.parent if model_dir.is_file() else model_dir) / NAMES
    if os.path.lexists(path):  # a link to nowhere is refused
        bank.take_names(path)
    return bank


def _detectors(model_dir, device, asked_by):
    """Return the bank of `load_bank`, without names."""
    if model_dir.is_file():
        return SharedBank(model_dir, device)
    if not (model_dir / SHARED).exists():
        return FolderBank(model_dir, device, asked_by=asked_by)
    if any(detector_paths(model_dir)):
        raise InputError(
            f"{asked_by}{model_dir}: holds {SHARED} and also detectors {{group}}/{{step}}.pth; "
            f"name {SHARED} itself, or move one of the two elsewhere"
        )
    return SharedBank(model_dir / SHARED, device)


class Bank:
    """What both kinds have in common.

    Attributes:
        groups, steps: sorted numbers.
        categories: {group: display name}.
        about: what made the bank as a whole.
        members: {(group, step): Member}.
        naming: lvd.detectors.names.CategoryNames of a names.pth; None: there is none.

    Each kind has besides
        score(step, clips, level=None): raw probability of unsafe by every category, float32
            [N, G] on the CPU, groups in order. clips: [N, C, F, H, W] of any floating type and
            size, or already at the size of `input_config`. level: their noise level, which may
            differ from that of the trained step; only some networks take it.
        input_config(step): VideoMAEConfig (frames and size) that all categories of the step take;
            None when they differ.
        sha256(): hash of what the detectors say about themselves (data, seed, settings, metrics);
            of a bare file, its bytes.
        preload(steps, limit): read the detectors of `steps`, which shows that they can be read, and
            keep them in memory if their files have no more than `limit` bytes together.
    """

    naming = None

    def take_names(self, path):
        """Load a names.pth; InputError unless it is of these detectors' categories and steps."""
        from lvd.detectors.names import CategoryNames

        naming = CategoryNames(path, self.device)
        naming.need_fit(self)
        self.naming = naming

    def names(self, step, clips):
        """Return how probable each category is, if a video is unsafe.

        Args:
            step, clips: see `score`.

        Returns:
            float32 [N, G] on the CPU, groups in order; `lvd.detectors.names.named` says which of
            them to name. None where there is no names.pth.
        """
        return self.naming.probabilities(step, clips) if self.naming else None

    def thresholds(self, step, operating_point="validation"):
        """Return each category's threshold, [G]: it votes unsafe at this raw probability or above.

        Args:
            operating_point: see `check_operating_point`.
        """
        members = [self.members[group, step] for group in self.groups]
        return [
            raw_threshold(operating_point, member.threshold, member.calibration, member.path)
            for member in members
        ]

    def calibrated(self, step, scores):
        """Return the calibrated probabilities of one step's raw ones.

        Args:
            scores: [N, G] raw probabilities.

        Returns:
            float64 array [N, G]. A detector without a calibration leaves its column as it is.
        """
        scores = np.asarray(scores, np.float64)
        members = [self.members[group, step] for group in self.groups]
        columns = [
            member.calibration(column) if member.calibration.fitted else column
            for member, column in zip(members, scores.T, strict=True)
        ]
        return np.stack(columns, 1)

    @property
    def all_calibrated(self):
        """Whether every detector has a calibration of its own."""
        return all(member.calibration.fitted for member in self.members.values())

    def check(self, representation, eval_sha256, made_by, allow_other_eval=False):
        """InputError when a detector cannot be used on these clips: see `check_detector`."""
        naming = [self.naming.member] if self.naming else []
        for member in [*self.members.values(), *naming]:
            check_detector(
                member, member.path, representation, eval_sha256, made_by, allow_other_eval
            )


class FolderBank(Bank):
    """Detectors {folder}/{group}/{step}.pth, or bare state dicts as the paper's code writes them.

    Args:
        folder: of the detectors.
        device: where the networks compute.
        pairs: the (group, step) to use; by default all there are, which then must be all
            categories at the same steps.
        keep: of how many steps the weights stay in memory.
        asked_by: see `load_bank`.

    What a detector says about itself is read at once, its weights when its step is asked for. Each
    file must stay what it was when it was first read.

    Raises:
        InputError: a detector is missing (without a category its videos would pass for safe), lies
            at another's place, or is damaged; later, when a file has changed.
    """

    def __init__(self, folder, device="cpu", pairs=None, keep=1, asked_by="--model_dir "):
        self.device = torch.device(device)
        self.keep = keep
        self._named = f"{asked_by}{folder}"
        pairs_here = set(pairs or detector_paths(folder))
        self._need_whole_grid(pairs_here)
        self.members = {
            (group, step): read_member(detector_path(folder, group, step))
            for group in self.groups
            for step in self.steps
        }
        if not pairs:
            self._need_categories()
        abouts = {group: self.members[group, self.steps[0]].about for group in self.groups}
        self.categories = {
            group: about.get("category", f"group{group}") for group, about in abouts.items()
        }
        first = abouts[self.groups[0]]
        self.about = {
            "kind": "grid",
            "eval_sha256": first.get("eval_sha256"),
            "dataset": first.get("dataset", {}),
        }
        self._loaded = {}  # step → StepDetectors, the last used last
        self._weights = {}  # path → digest of the weights that were loaded first
        self._bare = {}  # path → sha256 of a bare file, once the bank has told it

    def score(self, step, clips, level=None):
        return self._step(step).score(clips)

    def input_config(self, step):
        configs = [detector.model.config for detector in self._step(step).detectors]
        inputs = {(c.num_channels, c.num_frames, input_size(c)) for c in configs}
        return configs[0] if len(inputs) == 1 else None

    def sha256(self):
        digest = hashlib.sha256()
        for member in self.members.values():
            if member.about:
                said = json.dumps(member.about, sort_keys=True)
            else:
                said = self._bare[member.path] = sha256(member.path)
            digest.update(said.encode())
        return digest.hexdigest()

    def preload(self, steps, limit):
        paths = [self.members[group, step].path for group in self.groups for step in steps]
        if sum(path.stat().st_size for path in paths) <= limit:
            self.keep = max(self.keep, len(steps))
        for step in steps:
            self._step(step)

    def _step(self, step):
        """Return the detectors of a step, and keep them in memory in place of the oldest ones."""
        with lock_of(self):  # else a thread would load what another is loading
            detectors = self._loaded.pop(step, None)
            if detectors is None:
                while len(self._loaded) >= self.keep:
                    self._loaded.pop(next(iter(self._loaded)))
                members = [self.members[group, step] for group in self.groups]
                detectors = StepDetectors([self._load(member) for member in members])
            self._loaded[step] = detectors
            return detectors

    def _load(self, member):
        """Load the Detector of a member, from one reading of its file."""
        path = member.path
        content = load_file(path)
        weights = digest(content.get("state_dict", content))
        same = facts_of(content) == member.facts
        same = same and self._weights.get(path, weights) == weights
        if path in self._bare:
            same = same and sha256(path) == self._bare[path]
        if not same:
            raise InputError(
                f"{path}: has changed since it was first read; start again, so that the new file "
                "is checked as a whole"
            )
        detector = detector_of(content, path, self.device)
        self._weights[path] = weights
        return detector

    def _need_whole_grid(self, pairs):
        """Set groups and steps; there must be a detector of every group at every step."""
        if not pairs:
            raise InputError(
                f"{self._named}: no detectors {{group}}/{{step}}.pth here; run train_mae.py"
            )
        self.groups, self.steps = (sorted(set(numbers)) for numbers in zip(*pairs))
        for step in self.steps:
            for group in self.groups:
                if (group, step) not in pairs:
                    raise InputError(
                        f"{self._named}: detector {group}/{step}.pth is missing (of "
                        f"{len(self.groups)} groups, {len(self.steps)} steps); run train_mae.py "
                        "to the end"
                    )

    def _need_categories(self):
        """Groups must be all categories of the dataset; where no detector knows them, at least have
        no gap."""
        abouts = [member.about for member in self.members.values()]
        known = [about["categories"] for about in abouts if about.get("categories")]
        if any(names != known[0] for names in known):
            raise InputError(
                f"{self._named}: detectors of different sets of categories; train them on one "
                f"dataset"
            )
        names = known[0] if known else [str(group) for group in range(1, self.groups[-1] + 1)]
        for group, name in enumerate(names, 1):
            if group not in self.groups:
                raise InputError(
                    f"{self._named}: no detectors of group {group} ({name}), one of {len(names)} "
                    f"categories; run train_mae.py --group_num all"
                )
        if extra := sorted(set(self.groups) - set(range(1, len(names) + 1))):
            raise InputError(
                f"{self._named}: detectors of group {extra[0]}, but the dataset has {len(names)} "
                f"categories ({', '.join(names)})"
            )


class SharedBank(Bank):
    """One step-conditioned model for all categories and steps (lvd.detectors.shared).

    Args:
        path: its shared.pth.
        device: where the network computes.
    """

    def __init__(self, path, device="cpu"):
        from lvd.detectors.shared import load_shared

        self.path = Path(path)
        self.device = torch.device(device)
        self.model = load_shared(path, device)
        self.steps = self.model.steps
        self.about = {"kind": "shared", **self.model.about}
        self.groups = list(range(1, len(self.model.categories) + 1))
        self.categories = dict(zip(self.groups, self.model.categories))
        self.members = {
            (group, step): self._member(place, group - 1)
            for group in self.groups
            for place, step in enumerate(self.steps)
        }

    def _member(self, place, column):
        """The Member of a category at a step: its row and column in the model's tables."""
        return Member(
            self.path,
            self.model.representation,
            self.model.thresholds[place][column],
            self.model.about,
            from_dict(self.model.calibrations[place][column]),
        )

    def score(self, step, clips, level=None):
        from lvd.detectors.shared import predict_shared

        return predict_shared(self.model, step, clips, level=level)

    def input_config(self, step):
        return self.model.net.config

    def sha256(self):
        return hashlib.sha256(json.dumps(self.model.about, sort_keys=True).encode()).hexdigest()

    def preload(self, steps, limit):
        """The model is in memory already."""
