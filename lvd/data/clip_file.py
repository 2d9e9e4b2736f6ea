"""A clip on the disk: one predicted x0 of one video at one step, and the only owner of how it is
stored.

Three representations: "latent", the x0 latents themselves (`.pt`, float16 [C, F, h, w], nothing
lost but precision); "rgb", small frames that one matrix makes of the latents (`.pt`, float16 [3, F,
h, w], see lvd.data.rgb); and "video", the decoded frames, as `.mp4` (lossy, as in the paper) or as
`.pt` (uint8 [3, F, H, W]). A folder of clips holds one of them.
"""

import os
import re
import shutil
from pathlib import Path

import torch

from lvd.data.transforms import from_uint8, to_uint8
from lvd.errors import InputError
from lvd.utils.files import load_json, load_torch, save_json, save_torch

REPRESENTATIONS = ("latent", "rgb", "video")
VIDEO_FORMATS = ("mp4", "pt")
SUFFIXES = (".pt", ".mp4")
NOTE = "representation.json"


def write_clip(path_without_suffix, clip, representation, video_format="mp4"):
    """Write one clip atomically and return its path.

    clip: latent [C, F, h, w], rgb [3, F, h, w], or video [3, F, H, W] with values in [0, 1].
    """
    path = clip_path(path_without_suffix, representation, video_format)
    if clip.dim() != 4 or (representation != "latent" and clip.shape[0] != 3):
        raise InputError(f"{path}: a {representation} clip cannot have shape {list(clip.shape)}")
    if path.suffix == ".mp4":
        from lvd.utils.video import write_mp4

        write_mp4(path, to_uint8(clip).permute(1, 2, 3, 0).numpy())
    else:
        stored = (
            to_uint8(clip) if representation == "video" else clip.detach().to("cpu", torch.float16)
        )
        save_torch(
            stored.clone(memory_format=torch.contiguous_format), path
        )  # clone: a view would save its whole storage
    return path


def read_clip(path, representation=None):
    """A clip as a float32 tensor: latent [C, F, h, w], rgb [3, F, h, w], or video [3, F, H, W] in
    [0, 1]; see `read_stored`."""
    clip = read_stored(path, representation)
    return from_uint8(clip) if clip.dtype == torch.uint8 else clip.float()


def read_stored(path, representation=None):
    """A clip as its file holds it: latent [C, F, h, w], rgb [3, F, h, w], or video uint8 [3, F, H,
    W].

    InputError when the file is truncated, empty or something else, or no clip of that
    `representation` (None: any): an unreadable clip is never skipped.
    """
    path = Path(path)
    if path.suffix == ".mp4":
        from lvd.utils.video import read_mp4

        return torch.from_numpy(read_mp4(path)).permute(3, 0, 1, 2)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: not a clip, {' or '.join(SUFFIXES)} is needed")
    clip = load_torch(path)
    if (
        not isinstance(clip, torch.Tensor)
        or clip.dim() != 4
        or 0 in clip.shape
        or not _is(clip, representation)
    ):
        found = (
            f"{clip.dtype} tensor {list(clip.shape)}"
            if isinstance(clip, torch.Tensor)
            else type(clip).__name__
        )
        kind = representation or "latent"
        shape = {"latent": "[C, F, h, w]", "rgb": "[3, F, h, w]", "video": "uint8 [3, F, H, W]"}[
            kind
        ]
        raise InputError(f"{path}: a {kind} clip {shape} is needed, found {found}")
    return clip


def _is(clip, representation):
    video = clip.dtype == torch.uint8 and clip.shape[0] == 3
    numbers = clip.is_floating_point() and (representation != "rgb" or clip.shape[0] == 3)
    return {None: video or numbers, "video": video}.get(representation, numbers)


def clip_path(path_without_suffix, representation, video_format="mp4"):
    """…/{step}/{index} → …/{step}/{index}.pt or .mp4"""
    return Path(f"{path_without_suffix}.{video_format if representation == 'video' else 'pt'}")


def list_clips(folder):
    """{index: path} of the clips in one step's folder, by index. InputError for a stray or doubled
    file."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; build_x0.py and build_eval_set.py make it")
    clips = {}
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue  # a temporary file of a killed run
        if path.suffix not in SUFFIXES or not re.fullmatch(r"[0-9]{1,15}", path.stem):
            raise InputError(
                f"{path}: not a clip; files named by row index, {' or '.join(SUFFIXES)}, are needed"
            )
        if int(path.stem) in clips:
            raise InputError(
                f"{path}: a second clip of index {int(path.stem)} beside "
                f"{clips[int(path.stem)].name}"
            )
        clips[int(path.stem)] = path
    return dict(sorted(clips.items()))


def folder_representation(folder, part_of=None):
    """What the clips below `folder` are, from its representation.json (else that of the dataset it
    is part of) and from the files' suffixes; without a note, .pt means latent.

    InputError for a mix, for files that contradict the note, and for a folder with neither clips
    nor note.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = {
        os.path.splitext(name)[1]
        for _, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    }
    found &= set(SUFFIXES)
    notes = [place / NOTE for place in (folder, part_of) if place and (place / NOTE).exists()]
    noted = _noted(notes[0]) if notes else None
    if len(found) > 1 or (".mp4" in found and noted not in (None, "video")):
        raise InputError(
            f"{folder}: {noted or 'latent'} and {'.mp4' if noted != 'video' else '.pt'} clips are "
            "mixed here; build each representation in its own folder"
        )
    if not found and noted is None:
        raise InputError(
            f"{folder}: no clips here ({' or '.join(SUFFIXES)}); run build_x0.py first"
        )
    return noted or ("video" if ".mp4" in found else "latent")


def note_representation(folder, representation):
    """Write folder/representation.json, or check that the one there says the same."""
    path = Path(folder) / NOTE
    if path.exists() and _noted(path) != representation:
        raise InputError(
            f"{path}: this folder holds {_noted(path)} clips, {representation} ones need a folder "
            "of their own"
        )
    if not path.exists():
        save_json({"representation": representation}, path)


def link_clip(source, target):
    """Make `target` the same file as `source`: a hard link, or a copy where the file system has
    none. Atomic."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    os.replace(
        partial, target
    )  # of two links to one file this does nothing, so the partial name may remain
    partial.unlink(missing_ok=True)


def _noted(path):
    note = load_json(path)
    if not isinstance(note, dict) or note.get("representation") not in REPRESENTATIONS:
        raise InputError(f"{path}: 'representation' must be one of {', '.join(REPRESENTATIONS)}")
    return note["representation"]
