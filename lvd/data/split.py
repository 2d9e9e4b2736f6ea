"""Which videos are held out for evaluation: never trained on, drawn once, seeded."""

import random
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from lvd.errors import InputError
from lvd.utils.files import load_torch, save_torch
from lvd.utils.schema import Count, Name, Probability, Row, Schema, checked

# The columns' order in the paper's code: the rarest category chooses first.
RELEASED_ORDER = (5, 2, 1, 3, 4)
NAME = "eval.pth"


@dataclass(frozen=True)
class Split:
    """Held-out rows.

    Args:
        unsafe: sorted rows of the unsafe x0 file.
        normal: sorted rows of the normal one.
        seed, fraction: how they were drawn.
        label_sha256: of the label file that they were drawn from.
        normal_rows: how many normal rows there were to choose from.
    """

    unsafe: list
    normal: list
    seed: int | None = None
    fraction: float | None = None
    label_sha256: str | None = None
    normal_rows: int | None = None


def _all_different(rows):
    if len(set(rows)) < len(rows):
        raise ValueError("a list of different row indices is needed")
    return rows


def _at_least_one(rows):
    if not rows:
        raise ValueError("at least one row index is needed")
    return rows


Rows = Annotated[list[Row], AfterValidator(_all_different)]


class EvalFile(Schema):
    """The content of an eval.pth, see `Split`."""

    unsafe: Annotated[Rows, AfterValidator(_at_least_one)]
    normal: Rows
    seed: int | None = None  # as large as --seed was
    fraction: Probability | None = None
    label_sha256: Name | None = None
    normal_rows: Count | None = None


def make_split(labels, normal_rows, fraction=0.2, seed=2024, label_sha256=None):
    """Hold out a share of each category, and as many normal videos.

    Of each category `fraction` of the rows that no earlier column took are held out, at least one.
    Normal rows balance them, but never more than half of the normal rows are held out.

    Args:
        labels: Labels.
        normal_rows: the normal videos' rows.
        fraction: between 0 and 1.
        seed: of the draw.
        label_sha256: of the label file.

    Returns:
        Split.

    Raises:
        InputError: a category or the normal videos would have none to hold out, or none left to
            train on.
    """
    if not 0 < fraction < 1:
        raise InputError(f"--fraction {fraction}: a number between 0 and 1 is needed")
    groups = range(1, len(labels.columns) + 1)
    order = RELEASED_ORDER if len(groups) == len(RELEASED_ORDER) else groups
    unsafe = set()
    for group in order:
        free = sorted(set(labels.columns[group - 1]) - unsafe)
        share = int(Fraction(str(fraction)) * len(free))
        count = min(len(free), max(1, share))
        unsafe |= set(_draw(free, count, f"{seed}/group{group}"))
    for group in groups:
        _need_rest(labels, group, unsafe, fraction)
    if len(normal_rows) < 2:
        raise InputError(
            f"normal videos: {len(normal_rows)} recorded, the split needs 2 (one to hold out, one "
            "to train on)"
        )
    count = min(len(unsafe), len(normal_rows) // 2)
    normal = _draw(sorted(normal_rows), count, f"{seed}/normal")
    return Split(sorted(unsafe), sorted(normal), seed, fraction, label_sha256, len(normal_rows))


def save_split(split, path):
    """Write eval.pth: a plain dict, {"unsafe": [...], "normal": [...], "seed": ..., ...}."""
    save_torch(asdict(split), path)


def split_path(path):
    """Return the eval.pth that `path` names: itself, or the one in that folder."""
    path = Path(path)
    return path / NAME if path.is_dir() else path


def load_split(path, need_normal=False):
    """Read an eval.pth; a plain list of unsafe rows (the paper's form, of floats) is read too.

    Args:
        path: of the file or of its folder.
        need_normal: refuse one that holds out no normal rows, without which false alarms cannot be
            counted.

    Returns:
        Split.

    Raises:
        InputError: a file that is missing, or is no evaluation split.
    """
    path = split_path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; run gen_eval_set.py first")
    contents = load_torch(path)
    if isinstance(contents, list):
        contents = {"unsafe": list(map(_whole, contents)), "normal": []}
    if not isinstance(contents, dict):
        raise InputError(
            f"{path}: not an evaluation split; a dict with 'unsafe' and 'normal', or a list, is "
            "needed"
        )
    checked(EvalFile, contents, path)
    if need_normal and not contents["normal"]:
        raise InputError(
            f"{path}: holds out no normal rows, so votes on normal videos cannot be counted; run "
            f"gen_eval_set.py"
        )
    return Split(**contents)


def _whole(number):
    """A row of the paper's lists, whose numbers are floats; what is no whole number stays."""
    is_whole = isinstance(number, float) and number.is_integer()
    return int(number) if is_whole else number


def need_label_file(eval_path, split, label_sha256, where):
    """Refuse an eval.pth of another label file than the clips': its rows are other videos.

    Args:
        eval_path: of the eval.pth.
        split: what it holds.
        label_sha256: of the clips' label file; what either does not know counts as the same.
        where: path that tells label_sha256.

    Raises:
        InputError: they differ.
    """
    if label_sha256 and split.label_sha256 and label_sha256 != split.label_sha256:
        raise InputError(
            f"{eval_path}: drawn from another label file than the clips' ({where}), or that file "
            "changed since; give --eval_dir the eval.pth of these clips, or draw it anew: "
            "gen_eval_set.py --renew"
        )


def _draw(rows, count, seed):
    return random.Random(seed).sample(rows, count)


def _need_rest(labels, group, held_out, fraction):
    rows = set(labels.columns[group - 1])
    if rows <= held_out:
        raise InputError(
            f"{labels.path}: category '{labels.categories[group - 1]}' has {len(rows)} video(s) "
            f"and the split at --fraction {fraction} leaves none to train on; more videos are "
            "needed"
        )
