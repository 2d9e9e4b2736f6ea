"""Which videos are held out for evaluation: never trained on, drawn once, seeded."""

import random
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.files import load_torch, save_torch

RELEASED_ORDER = (
    5,
    2,
    1,
    3,
    4,
)  # the columns' order in the paper's code: the rarest category chooses first
NAME = "eval.pth"


@dataclass(frozen=True)
class Split:
    """Held-out rows. `unsafe` indexes the unsafe x0 file, `normal` the normal one; both sorted."""

    unsafe: list
    normal: list
    seed: int | None = None
    fraction: float | None = None
    label_sha256: str | None = None
    normal_rows: int | None = None  # how many normal rows there were to choose from


def make_split(labels, normal_rows, fraction=0.2, seed=2024, label_sha256=None):
    """Hold out `fraction` of each category's rows that no earlier column took, at least one.

    labels: Labels; normal_rows: the normal videos' rows, of which as many are held out as unsafe
    ones, to balance the evaluation, but never more than half. InputError when a category or the
    normal videos would have none to hold out or none left to train on.
    """
    if not 0 < fraction < 1:
        raise InputError(f"--fraction {fraction}: a number between 0 and 1 is needed")
    groups = range(1, len(labels.columns) + 1)
    unsafe = set()
    for group in RELEASED_ORDER if len(groups) == len(RELEASED_ORDER) else groups:
        free = sorted(set(labels.columns[group - 1]) - unsafe)
        count = min(len(free), max(1, int(Fraction(str(fraction)) * len(free))))
        unsafe |= set(_draw(free, count, f"{seed}/group{group}"))
    for group in groups:
        _need_rest(labels, group, unsafe, fraction)
    if len(normal_rows) < 2:
        raise InputError(
            f"normal videos: {len(normal_rows)} recorded, the split needs 2 (one to hold out, one "
            "to train on)"
        )
    normal = _draw(sorted(normal_rows), min(len(unsafe), len(normal_rows) // 2), f"{seed}/normal")
    return Split(sorted(unsafe), sorted(normal), seed, fraction, label_sha256, len(normal_rows))


def save_split(split, path):
    """Write eval.pth: a plain dict, {"unsafe": [...], "normal": [...], "seed": ..., ...}."""
    save_torch(asdict(split), path)


def split_path(path):
    """The eval.pth that `path` names: itself, or the one in that folder."""
    path = Path(path)
    return path / NAME if path.is_dir() else path


def load_split(path, need_normal=False):
    """Split of an eval.pth, given itself or its folder; a plain list of unsafe rows (the paper's
    form) is read too.

    need_normal: InputError when no normal rows are held out, without which false alarms cannot be
    counted.
    """
    path = split_path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; run gen_eval_set.py first")
    found = load_torch(path)
    found = {"unsafe": found, "normal": []} if isinstance(found, list) else found
    known = Split.__dataclass_fields__
    if (
        not isinstance(found, dict)
        or not {"unsafe", "normal"} <= set(found)
        or not set(found) <= set(known)
    ):
        raise InputError(
            f"{path}: not an evaluation split; a dict with 'unsafe' and 'normal', or a list, is "
            "needed"
        )
    for key in ("unsafe", "normal"):
        rows = found[key]
        if (
            not isinstance(rows, list)
            or any(type(row) is not int or row < 0 for row in rows)
            or len(set(rows)) < len(rows)
        ):
            raise InputError(
                f"{path}: '{key}' must be a list of different row indices (integers from 0)"
            )
    if not found["unsafe"]:
        raise InputError(f"{path}: no unsafe rows are held out")
    if need_normal and not found["normal"]:
        raise InputError(
            f"{path}: holds out no normal rows, so votes on normal videos cannot be counted; run "
            f"gen_eval_set.py"
        )
    return Split(**found)


def need_label_file(eval_path, split, label_sha256, where):
    """InputError when eval.pth was drawn from another label file than the clips': its rows are
    other videos.

    label_sha256: of the clips' label file, which the path `where` tells; what either does not know
    is taken for the same.
    """
    if label_sha256 and split.label_sha256 and label_sha256 != split.label_sha256:
        raise InputError(
            f"{eval_path}: drawn from another label file ({split.label_sha256[:12]}...) than the "
            f"clips' ({where}: {label_sha256[:12]}...); give --eval_dir the eval.pth of these "
            "clips, made by gen_eval_set.py --config with their build_x0.yaml"
        )


def _draw(rows, count, seed):
    return random.Random(seed).sample(rows, count)


def _need_rest(labels, group, held_out, fraction):
    rows = set(labels.columns[group - 1])
    if not rows - held_out:
        raise InputError(
            f"{labels.path}: category '{labels.categories[group - 1]}' has {len(rows)} video(s) "
            f"and the split at --fraction {fraction} leaves none to train on; more videos are "
            "needed"
        )
