"""A bank of detectors: every category at every step, asked step by step. Embedding, evaluation and
the guard use banks.

Two kinds, with one interface: `FolderBank`, one detector a file, {group}/{step}.pth, as in the
paper; `SharedBank`, one step-conditioned model for all of them, shared.pth (lvd.detectors.shared).
"""

import copy
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lvd.data.identity import need_same_recordings, need_same_rgb
from lvd.data.transforms import input_size, normalise, resize_clips
from lvd.detectors.calibration import IDENTITY, Calibration, from_dict, raw_threshold
from lvd.detectors.detector import (
    ARGMAX,
    detector_path,
    detector_paths,
    load_detector,
    load_file,
    predict,
)
from lvd.errors import InputError
from lvd.utils.files import sha256
from lvd.utils.processes import one_thread

SHARED = "shared.pth"
# weights of a detector up to which those of a step are computed together, on the CPU by one thread
STACKED = 2_000_000
FEW = 16  # clips up to which that pays on a CPU, too


def load_bank(model_dir, device="cpu", asked_by="--model_dir "):
    """The bank of a folder of detectors, of a folder with shared.pth, or of that file itself.

    asked_by: what messages put before model_dir, the flag or argument that named it.
    """
    model_dir = Path(model_dir)
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


@dataclass
class Member:
    """What one detector says about itself. A bank's member of a shared model says what that model
    says."""

    path: Path
    representation: str
    threshold: float = ARGMAX
    about: dict = field(default_factory=dict)
    calibration: Calibration = IDENTITY


class Bank:
    """groups, steps: sorted numbers; categories: {group: display name}; about: what made the bank
    as a whole.

    members: {(group, step): Member}.
    """

    def score(self, step, clips):
        """Raw probability of unsafe by every category, float32 [N, G] on the CPU, groups in order.

        clips: [N, C, F, H, W] of any floating type and size, or already at the size of
        `input_config`.
        """
        raise NotImplementedError

    def input_config(self, step):
        """VideoMAEConfig (frames and size) that all categories of the step take; None when they
        differ."""
        raise NotImplementedError

    def thresholds(self, step, operating_point="validation"):
        """[raw probability from which on a category votes unsafe] * G; operating_point: as of
        `check_operating_point`."""
        members = [self.members[group, step] for group in self.groups]
        return [
            raw_threshold(operating_point, member.threshold, member.calibration, member.path)
            for member in members
        ]

    def calibrations(self, group):
        """[Calibration] * S of a category: what its raw probabilities mean at each step."""
        return [self.members[group, step].calibration for step in self.steps]

    @property
    def all_calibrated(self):
        return all(member.calibration.fitted for member in self.members.values())

    def check(self, representation, eval_sha256, made_by, allow_other_eval=False):
        """InputError when a detector cannot be used on these clips: see `check_detector`."""
        for member in self.members.values():
            check_detector(
                member, member.path, representation, eval_sha256, made_by, allow_other_eval
            )

    def sha256(self):
        """Hash of what the detectors say about themselves (data, seed, settings, metrics); of a
        bare file, its bytes."""
        raise NotImplementedError

    def preload(self, steps, limit):
        """Read the detectors of `steps`, which shows that they can be read, and keep them if their
        files have no more than `limit` bytes together."""


class FolderBank(Bank):
    """Detectors {folder}/{group}/{step}.pth; bare state dicts, as the paper's code writes them,
    too.

    pairs: the (group, step) to use; by default all there are, which then must be all categories at
    the same steps. InputError for one that is missing (without a category its videos would pass for
    safe) or lies at another's place. keep: of how many steps the weights stay in memory. asked_by:
    as of `load_bank`.
    """

    def __init__(self, folder, device="cpu", pairs=None, keep=1, asked_by="--model_dir "):
        self.folder, self.device, self.keep = Path(folder), torch.device(device), keep
        named = self._named = f"{asked_by}{folder}"
        found = set(pairs) if pairs else set(detector_paths(folder))
        if not found:
            raise InputError(f"{named}: no detectors {{group}}/{{step}}.pth here; run train_mae.py")
        self.groups, self.steps = (sorted(set(numbers)) for numbers in zip(*found))
        for step in self.steps:
            for group in self.groups:
                if (group, step) not in found:
                    raise InputError(
                        f"{named}: detector {group}/{step}.pth is missing (of {len(self.groups)} "
                        f"groups, {len(self.steps)} steps); run train_mae.py to the end"
                    )
        self.members = {
            (group, step): _member(detector_path(folder, group, step))
            for group in self.groups
            for step in self.steps
        }
        if not pairs:
            self._need_categories()
        abouts = [self.members[group, self.steps[0]].about for group in self.groups]
        self.categories = {
            g: about.get("category", f"group{g}") for g, about in zip(self.groups, abouts)
        }
        self.about = {
            "kind": "grid",
            "eval_sha256": abouts[0].get("eval_sha256"),
            "dataset": abouts[0].get("dataset", {}),
        }
        self._loaded = {}  # step → _Step, the last used last

    def score(self, step, clips):
        return self._step(step).score(clips)

    def input_config(self, step):
        configs = [detector.model.config for detector in self._step(step).detectors]
        return configs[0] if len({_input(config) for config in configs}) == 1 else None

    def sha256(self):
        digest = hashlib.sha256()
        for member in self.members.values():
            digest.update(
                (
                    json.dumps(member.about, sort_keys=True)
                    if member.about
                    else sha256(member.path)
                ).encode()
            )
        return digest.hexdigest()

    def preload(self, steps, limit):
        size = sum(
            self.members[group, step].path.stat().st_size for group in self.groups for step in steps
        )
        if size <= limit:
            self.keep = max(self.keep, len(steps))
        for step in steps:
            self._step(step)

    def _step(self, step):
        found = self._loaded.pop(step, None)
        if found is None:
            while len(self._loaded) >= self.keep:
                self._loaded.pop(next(iter(self._loaded)))
            found = _Step(
                [
                    load_detector(self.members[group, step].path, self.device)
                    for group in self.groups
                ]
            )
        self._loaded[step] = found
        return found

    def _need_categories(self):
        """Groups must be all categories of the dataset; where no detector knows them, at least have
        no gap."""
        known = [
            member.about["categories"]
            for member in self.members.values()
            if member.about.get("categories")
        ]
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


class _Step:
    """The detectors of one step, one per category.

    Small ones of one architecture are computed together, as one model with stacked weights, where
    that is faster: always on a GPU, on a CPU for a few clips. Else one after another; the scores
    agree to 1e-6.
    """

    def __init__(self, detectors):
        self.detectors = detectors
        self.device = next(detectors[0].model.parameters()).device
        self._stack = None

    def score(self, clips):
        with one_thread(self.device.type == "cpu" and _small(self.detectors[0].model)):
            if self._together(len(clips)):
                return self._score_together(clips)
            return torch.stack([predict(detector, clips) for detector in self.detectors], 1)

    def _together(self, clips):
        models = [detector.model for detector in self.detectors]
        if len(models) == 1 or (self.device.type == "cpu" and clips > FEW):
            return False
        alike = (
            len(
                {
                    json.dumps(model.config.to_dict(), sort_keys=True, default=str)
                    for model in models
                }
            )
            == 1
        )
        return alike and _small(models[0])

    @torch.inference_mode()
    def _score_together(self, clips, batch_size=64):
        model, weights, mean, std = self._stacked()
        found = []
        for part in clips.split(batch_size):
            resized = resize_clips(part.to(self.device), model.config)
            inputs = normalise(resized, mean, std).transpose(2, 3)  # [G, N, F, C, H, W]
            found.append(
                torch.vmap(lambda w, x: torch.func.functional_call(model, w, (x,)).logits)(
                    weights, inputs
                )
            )
        return torch.cat(found, 1).float().softmax(-1)[..., 1].T.cpu()

    def _stacked(self):
        """(a model without its own weights, all weights [G, ...], means and standard deviations [G,
        1, C])"""
        if self._stack is None:
            weights = torch.func.stack_module_state(
                [detector.model for detector in self.detectors]
            )[0]
            model = copy.deepcopy(self.detectors[0].model).to("meta")
            model.set_attn_implementation(
                "eager"
            )  # the CPU's fused attention cannot be batched over weights
            self._stack = (
                model,
                {key: value.detach() for key, value in weights.items()},
                *(
                    torch.tensor([getattr(d, key) for d in self.detectors], device=self.device)[
                        :, None
                    ]
                    for key in ("mean", "std")
                ),
            )
        return self._stack


class SharedBank(Bank):
    """One step-conditioned model for all categories and steps (lvd.detectors.shared), of a
    shared.pth."""

    def __init__(self, path, device="cpu"):
        from lvd.detectors.shared import load_shared

        self.path, self.device = Path(path), torch.device(device)
        self.model = load_shared(path, device)
        self.steps, self.about = self.model.steps, {"kind": "shared", **self.model.about}
        self.groups = list(range(1, len(self.model.categories) + 1))
        self.categories = dict(zip(self.groups, self.model.categories))
        self.members = {
            (group, step): self._member(group, step) for group in self.groups for step in self.steps
        }

    def _member(self, group, step):
        model = self.model
        return Member(
            self.path,
            model.representation,
            model.threshold(group, step),
            model.about,
            model.calibration(group, step),
        )

    def score(self, step, clips):
        from lvd.detectors.shared import predict_shared

        with one_thread(self.device.type == "cpu" and _small(self.model.net)):
            return predict_shared(self.model, step, clips)

    def input_config(self, step):
        return self.model.net.config

    def sha256(self):
        return hashlib.sha256(json.dumps(self.model.about, sort_keys=True).encode()).hexdigest()


def check_detector(member, path, representation, eval_sha256, made_by, allow_other_eval=False):
    """InputError for a detector of another representation than the clips, or of another eval.pth or
    other recordings, when it may have trained on what is held out now.

    member: a Member or Detector. One that does not say which eval.pth it knew counts as another;
    made_by: {"pred_x0_made_by": ..., ...} of the clips (None: not known).
    """
    if member.representation != representation:
        raise InputError(
            f"{path}: reads {member.representation} clips, the clips here are {representation}"
        )
    known = member.about.get("eval_sha256")
    if known != eval_sha256 and not allow_other_eval:
        what = (
            f"another eval.pth ({known[:12]}..., now {eval_sha256[:12]}...)"
            if known
            else "an unknown eval.pth"
        )
        raise InputError(
            f"{path}: trained with {what}, so it may have seen held-out clips; train it with this "
            "one or give --allow_other_eval"
        )
    before = member.about.get("dataset", {})
    if not allow_other_eval:
        need_same_recordings(path, before, made_by, "train it on these or give --allow_other_eval")
    need_same_rgb(path, before, made_by)


def check_place(about, path):
    """InputError when {group}/{step}.pth holds the detector of another category or step."""
    for key, here in (("group", path.parent.name), ("step", path.stem)):
        if about.get(key, int(here)) != int(here):
            raise InputError(
                f"{path}: holds the detector of {key} {about[key]}; put it back as "
                f"{about.get('group')}/{about.get('step')}.pth and train this one"
            )


def _member(path):
    """Read without the weights; a bare state dict has nothing to say, but it takes videos."""
    found = load_file(path, mmap=True)
    if "format" not in found:
        return Member(path, "video")
    check_place(found["about"], path)
    calibration = from_dict(found.get("calibration"), path)
    return Member(path, found["representation"], found["threshold"], found["about"], calibration)


def _small(network):
    return sum(weight.numel() for weight in network.parameters()) <= STACKED


def _input(config):
    return config.num_channels, config.num_frames, input_size(config)
