"""Names: which categories an unsafe video is of.

The detectors of a category learn against normal videos alone, so they may also say "unsafe" of
another category's videos. That is right for the vote, and wrong for a name. A network of its own,
names.pth beside the detectors, learns to tell the categories from each other, at every step. It is
asked only about videos that the detectors have found unsafe, and changes no vote.
"""

import hashlib
import json

import numpy as np

from lvd.data.identity import MADE_BY
from lvd.detectors.member import Member
from lvd.detectors.schemas import NamesFile
from lvd.detectors.shared import detector_of_content, network_content, predict_shared
from lvd.detectors.weights import need_config_of_weights, need_plain_weights
from lvd.errors import InputError
from lvd.utils.changes import noun_of
from lvd.utils.files import load_torch, save_torch
from lvd.utils.schema import checked

FORMAT = "lvd category names 1"
NAMED_AT = 0.5  # probability from which a category is named


def named(probabilities):
    """Return which categories are named.

    Args:
        probabilities: [N, G] of `CategoryNames.probabilities`.

    Returns:
        bool [N, G]: those of at least 0.5, and in any case the most probable one.
    """
    probabilities = np.asarray(probabilities)
    chosen = probabilities >= NAMED_AT
    chosen[np.arange(len(chosen)), probabilities.argmax(1)] = True
    return chosen


class CategoryNames:
    """The network of a names.pth.

    Attributes:
        path: of the file.
        model: lvd.detectors.shared.SharedDetector, without thresholds and calibrations.
        member: Member, what it says about itself.
    """

    def __init__(self, path, device="cpu"):
        """InputError: the file is damaged, or of another kind."""
        self.path = path
        self.model = load_names(path, device)
        self.member = Member(path, self.model.representation, about=self.model.about)

    def probabilities(self, step, clips):
        """Return how probable each category is, if a video is unsafe: float32 [N, G] on the CPU.

        Args:
            step: of all clips.
            clips: [N, C, F, H, W], as the detectors take them.
        """
        return predict_shared(self.model, step, clips)

    def sha256(self):
        """Return a hash of what the network says about itself (data, seed, settings, curve)."""
        return hashlib.sha256(json.dumps(self.model.about, sort_keys=True).encode()).hexdigest()

    def need_fit(self, bank):
        """InputError unless the names are those of the detectors of a bank."""
        model, first = self.model, next(iter(bank.members.values()))
        if model.categories != _categories(bank, model.categories):
            raise self._misfit(_listed(model.categories), _listed(bank.categories.values()))
        if missing := sorted(set(bank.steps) - set(model.steps)):
            raise self._misfit(f"no step {missing[0]}", "it")
        if first.representation != model.representation:
            raise self._misfit(f"{model.representation} clips", f"{first.representation} clips")
        trained_on, theirs = (about.get("dataset", {}) for about in (model.about, first.about))
        for key in (*MADE_BY, "rgb_matrix"):
            known = trained_on.get(key), theirs.get(key)
            if all(known) and known[0] != known[1]:
                raise InputError(
                    f"{self.path}: trained on another {noun_of(key)} than the detectors beside it "
                    "(or it changed between the two); train it with their flags and train_mae.py "
                    "--names, or move it elsewhere"
                )

    def _misfit(self, here, there):
        return InputError(
            f"{self.path}: knows {here}, the detectors beside it know {there}; train it with their "
            "flags and train_mae.py --names, or move it elsewhere"
        )


def save_names(detector, path):
    """Write names.pth, atomically; detector: SharedDetector."""
    content = {"format": FORMAT, **network_content(detector), "about": detector.about}
    save_torch(content, path)


def load_names(path, device="cpu"):
    """Return the SharedDetector of a file written by `save_names`; see `load_shared`."""
    return detector_of_content(load_names_file(path), path, device)


def load_names_file(path, mmap=False):
    """Return the checked content of a names.pth, {key of lvd.detectors.schemas.NamesFile: value}.

    Raises:
        InputError: another file, or one that is damaged.
    """
    content = load_torch(path, mmap=mmap)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: not a network of names; train_mae.py --names makes one")
    checked(NamesFile, content, path)
    need_plain_weights(content["state_dict"], path)
    need_config_of_weights(content["config"], content["state_dict"], path)
    return content


def _categories(bank, wanted):
    """Return the names of a bank's categories; bare files, which say none, count as the wanted."""
    bare = not any(member.about for member in bank.members.values())
    if bare and len(bank.groups) == len(wanted):
        return wanted
    return [bank.categories[group] for group in bank.groups]


def _listed(categories):
    text = ", ".join(categories)
    return text if len(text) <= 60 else text[:57] + "..."
