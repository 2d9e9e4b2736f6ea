"""What identifies a set of clips: the recordings and labels that they were made from."""

import os
from typing import Annotated

import torch
from pydantic import Field

from lvd.data.split import need_label_file
from lvd.errors import InputError
from lvd.utils.changes import what_changed
from lvd.utils.config import first_difference
from lvd.utils.schema import Finite, Schema
from lvd.x0.alike import need_alike, recorded_setup

MADE_BY = ("label_sha256", "pred_x0_made_by", "normal_pred_x0_made_by")
Hash = Annotated[str, Field(max_length=1000)]
Matrix = Annotated[  # LatentToRGB.numbers
    list[Annotated[list[Finite], Field(min_length=3, max_length=3)]], Field(min_length=2)
]


class Dataset(Schema, extra="allow"):
    """What identifies a set of clips, as a file keeps it. A key that is missing is not known."""

    label_sha256: Hash | None = None
    pred_x0_made_by: Hash | None = None
    normal_pred_x0_made_by: Hash | None = None
    rgb_matrix: Matrix | None = None


def rgb_identity(numbers):
    """Return what else identifies rgb clips: {"rgb_matrix": `LatentToRGB.numbers`}, {} for None."""
    return {"rgb_matrix": numbers} if numbers else {}


def need_same_shape(x0, other):
    """Raise InputError unless the videos of two X0Files have the same steps and latents."""
    shape, other_shape = list(x0.tensor.shape[1:]), list(other.tensor.shape[1:])
    if shape != other_shape:
        raise InputError(
            f"{x0.path}: videos of shape {shape} (steps, C, F, h, w), those of {other.path} have "
            f"{other_shape}; both must be sampled alike"
        )


def need_pair(normal, unsafe):
    """Check that two X0Files can be the normal and the unsafe videos of one training.

    Args:
        normal, unsafe: X0Files.

    Returns:
        What is not known of whether they were sampled alike, in a line; "" when all is known, or
        nothing of both.

    Raises:
        InputError: a video is in both, or they were not sampled alike.
    """
    need_other_videos(normal, unsafe)
    need_same_shape(normal, unsafe)
    setups = recorded_setup(normal), recorded_setup(unsafe)
    return need_alike(*setups, normal.path, unsafe.path)


def need_other_videos(normal, unsafe):
    """Raise InputError if a video is in both X0Files: it cannot be normal and unsafe."""
    if os.path.samefile(normal.path, unsafe.path):
        raise InputError(
            f"{normal.path}: is the recording of the unsafe videos ({unsafe.path}); that of normal "
            "videos is needed"
        )
    if normal.tensor.shape[1:] != unsafe.tensor.shape[1:]:
        return
    rows = {sample: row for row, sample in _samples(unsafe)}
    for row, sample in _samples(normal):
        if sample in rows:
            raise InputError(
                f"{normal.path}: row {row} is the video of row {rows[sample]} of {unsafe.path}; a "
                "video is unsafe or normal, not both"
            )


def _samples(x0):
    """Yield (row, bytes) of all whole rows: of each one channel of the last frame at the last step.

    Not of the first frame, which may be an image that several videos begin with. Without those of
    one value, and of values that are not finite: they tell no videos apart.
    """
    for row in x0.rows:
        values = x0.tensor[row, -1, 0, -1].to(torch.float32, copy=True).contiguous()
        low, high = values.aminmax()
        if low < high and torch.isfinite(high - low):
            yield row, values.numpy().tobytes()


def need_same_recordings(where, before, now, advice):
    """Refuse clips of other recordings, whose rows mean other videos.

    Args:
        where: path of what was trained on the clips `before`.
        before, now: `made_by` of two sets of clips; what either does not know counts as the same.
        advice: what the message tells the user to do.

    Raises:
        InputError: they differ.
    """
    difference = _known_difference(before, now, MADE_BY[1:])
    if difference:
        raise InputError(
            f"{where}: trained on other recordings than the clips here: since then "
            f"{what_changed(*difference)}; {advice}"
        )


def need_same_labels(eval_path, split, source):
    """Refuse an eval.pth that was drawn from another label file than that of the source's clips.

    See `need_label_file`.
    """
    need_label_file(eval_path, split, source.made_by.get("label_sha256"), source.labelled_by)


def need_same_rgb(where, before, now):
    """Refuse frames of another rgb_matrix; arguments: see `need_same_recordings`."""
    if _known_difference(before, now, ["rgb_matrix"]):
        raise InputError(
            f"{where}: trained on frames of another rgb_matrix than the clips here; use that one, "
            "or train it again"
        )


def _known_difference(before, now, keys):
    known = [key for key in keys if before.get(key) and now.get(key)]
    return first_difference({key: before[key] for key in known}, {key: now[key] for key in known})
