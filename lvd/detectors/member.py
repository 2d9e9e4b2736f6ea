"""What one detector of a bank says about itself, and whether it may be used on some clips."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lvd.data.identity import need_same_recordings, need_same_rgb
from lvd.detectors.bare import from_bare
from lvd.detectors.calibration import ARGMAX, IDENTITY, Calibration, from_dict
from lvd.detectors.detector import load_file
from lvd.errors import ArgumentError, InputError


@dataclass
class Member:
    """A detector of a bank without its weights. Members of a shared model say what that model says.

    Attributes:
        path: its file.
        representation: of the clips that it reads.
        threshold: its own operating point, a raw probability.
        about: where it comes from (see `Detector`); {}: nothing is known.
        calibration: what its raw probabilities mean.
        facts: `facts_of` its file; "" for a member of a shared model, which is read only once.
    """

    path: Path
    representation: str
    threshold: float = ARGMAX
    about: dict = field(default_factory=dict)
    calibration: Calibration = IDENTITY
    facts: str = ""


def read_member(path):
    """Read the Member of a detector file, without its weights.

    A bare state dict has nothing to say, but it takes videos.

    Raises:
        InputError: the file is damaged, or holds the detector of another category or step.
    """
    content = load_file(path, mmap=True)
    if "format" not in content:
        from_bare(content, path)
        return Member(path, "video", facts=facts_of(content))
    need_own_place(content["about"], path)
    calibration = from_dict(content.get("calibration"))
    return Member(
        path,
        content["representation"],
        content["threshold"],
        content["about"],
        calibration,
        facts_of(content),
    )


def facts_of(content):
    """Return a hash of all that a detector file says besides its weights.

    Args:
        content: what `load_file` returned.
    """
    said = {key: value for key, value in content.items() if not isinstance(value, torch.Tensor)}
    said.pop("state_dict", None)
    return hashlib.sha256(repr(said).encode()).hexdigest()


def need_own_place(about, path):
    """InputError when {group}/{step}.pth holds the detector of another category or step."""
    for key, here in (("group", path.parent.name), ("step", path.stem)):
        if about.get(key, int(here)) != int(here):
            raise InputError(
                f"{path}: holds the detector of {key} {about[key]}; put it back as "
                f"{about.get('group')}/{about.get('step')}.pth and train this one"
            )


def check_detector(member, path, representation, eval_sha256, made_by, allow_other_eval=False):
    """Check that a detector may be used on some clips.

    Args:
        member: a Member or Detector. One that does not say which eval.pth it was trained with
            counts as trained with another.
        path: its file, for messages.
        representation: of the clips.
        eval_sha256: of the eval.pth that holds these clips out.
        made_by: {"pred_x0_made_by": ..., ...} of the clips; None: not known.
        allow_other_eval: whether it may have been trained with another eval.pth or on other
            recordings.

    Raises:
        InputError: it reads another representation, or it may have trained on what is held out.
    """
    if member.representation != representation:
        raise InputError(
            f"{path}: reads {member.representation} clips, the clips here are {representation}"
        )
    known = member.about.get("eval_sha256")
    if known != eval_sha256 and not allow_other_eval:
        what = "an unknown eval.pth"
        if known:
            what = "another eval.pth (or eval.pth was made anew since)"
        raise ArgumentError(
            "allow_other_eval",
            True,
            "",
            before=f"{path}: trained with {what}, so it may have seen held-out clips; train it "
            "again with this one, or give ",
        )
    before = member.about.get("dataset", {})
    if not allow_other_eval:
        advice = "train it on these; for the same prompts in other steps give --allow_other_eval"
        need_same_recordings(path, before, made_by, advice)
    need_same_rgb(path, before, made_by)
