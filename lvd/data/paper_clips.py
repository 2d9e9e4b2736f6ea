"""Held-out clips as the paper's embedding command names them: a folder of unsafe clips and one of
normal clips, {folder}/{step}/{index}, without a word on which eval.pth holds them out."""

import re
from pathlib import Path

from lvd.data.clip_folders import step_folders
from lvd.data.kinds import KIND_NORMAL, KIND_UNSAFE
from lvd.data.sources import folder_config
from lvd.data.split import NAME
from lvd.errors import InputError
from lvd.utils.files import sha256

NORMAL_MADE_BY = "normal_pred_x0_made_by"


def is_clips(path):
    """Tell whether `path` is a folder of clips by step, and holds no eval.pth."""
    path = Path(path)
    return bool(step_folders(path)) and not (path / NAME).exists()


def eval_of_clips(folder):
    """Find the eval.pth of a folder of held-out clips: the one it was built with, or beside it.

    Args:
        folder: eval_set, of build_eval_set.py or of the paper's script.

    Returns:
        Its path.

    Raises:
        InputError: there is none, or only another one than the folder was built with.
    """
    folder = Path(folder)
    config = folder_config(folder)
    named, digest = config.get("eval_path"), config.get("eval_sha256")
    places = [Path(named)] if isinstance(named, str) else []
    places.append(folder.absolute().parent / NAME)
    there = [place for place in places if place.is_file()]
    for place in there:
        if digest is None or sha256(place) == digest:
            return place
    found = f"{there[0]} is not the one it was built with" if there else f"no {places[-1]}"
    raise InputError(
        f"--eval_dir {folder}: a folder of clips whose eval.pth is needed: {found}; put it beside "
        "the folder"
    )


def need_normal_clips(folder, unsafe):
    """Refuse what cannot be a folder of normal clips.

    Args:
        folder: what is to hold the normal clips by step.
        unsafe: the folder of the unsafe ones.

    Raises:
        InputError: it has no folders of steps, or its clips are unsafe ones.
    """
    folder, unsafe = Path(folder), Path(unsafe)
    if not step_folders(folder):
        raise InputError(
            f"--data_dir {folder}: no step folders; where --eval_dir is a folder of clips "
            f"({unsafe}), --data_dir is the folder of normal clips by step"
        )
    name = folder.resolve().name
    if folder.resolve() == unsafe.resolve() or re.fullmatch(r"eval_set|(group)?[0-9]+", name):
        raise InputError(
            f"--data_dir {folder}: is a folder of unsafe clips; the folder of normal clips by step "
            "is needed"
        )


def need_only_held_out(source, split, eval_path):
    """Refuse a folder of unsafe clips with rows that the split does not hold out."""
    extra = sorted(set(source.rows(KIND_UNSAFE, source.steps[0])) - set(split.unsafe))
    if extra:
        raise InputError(
            f"{source.place(KIND_UNSAFE, source.steps[0])}: row {extra[0]} is not held out in "
            f"{eval_path}, detectors may have trained on it; the eval.pth of these clips is needed"
        )


def normal_rows(source, split, trained_on, eval_path, allow_unknown=False):
    """Choose the normal rows that no detector was trained on.

    These are the rows that the split holds out. Clips of another recording than the detectors' are
    new to them altogether: as many as unsafe ones are taken, the first, as in the paper.

    Args:
        source: HeldOutFolders.
        split: Split.
        trained_on: [`dataset` of what each detector says about itself].
        eval_path: of the split, for messages.
        allow_unknown: take the first clips, as the paper's script does, where it is not known which
            rows are held out.

    Returns:
        (rows, whether they are of another recording).

    Raises:
        InputError: which rows are held out is not known.
    """
    here = source.made_by[NORMAL_MADE_BY]
    known = [dataset.get(NORMAL_MADE_BY) for dataset in trained_on]
    first = source.rows(KIND_NORMAL, source.steps[0])[: len(split.unsafe)]
    if here and all(known) and here not in known:
        return first, True
    if split.normal:
        return split.normal, False
    if not allow_unknown:
        raise InputError(
            f"{eval_path}: holds out no normal rows, so detectors may have trained on those of "
            f"{source.place(KIND_NORMAL, source.steps[0])}; train with an eval.pth of "
            "gen_eval_set.py, or give --allow_other_eval"
        )
    return first, False
