"""A clip on the disk: one predicted x0 of one video at one step. Only this module knows how it is
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
from einops import rearrange

from lvd.data.transforms import from_uint8, to_uint8
from lvd.errors import InputError
from lvd.utils.files import load_json, load_torch, save_json, save_torch
from lvd.utils.partials import atomic
from lvd.utils.schema import Tensor, checked

REPRESENTATIONS = ("latent", "rgb", "video")
VIDEO_FORMATS = ("mp4", "pt")
SUFFIXES = (".pt", ".mp4")
SHAPES = {"latent": "[C, F, h, w]", "rgb": "[3, F, h, w]", "video": "uint8 [3, F, H, W]"}
NOTE = "representation.json"


def write_clip(path_without_suffix, clip, representation, video_format="mp4"):
    """Write one clip, atomically.

    Args:
        path_without_suffix: {folder}/{step}/{row}.
        clip: latent [C, F, h, w], rgb [3, F, h, w], or video [3, F, H, W] with values in [0, 1].
        representation: what the clip is.
        video_format: "mp4" or "pt", for videos.

    Returns:
        The path with its suffix.
    """
    path = clip_path(path_without_suffix, representation, video_format)
    if clip.dim() != 4 or (representation != "latent" and clip.shape[0] != 3):
        raise InputError(f"{path}: a {representation} clip cannot have shape {list(clip.shape)}")
    if path.suffix == ".mp4":
        from lvd.utils.video import write_mp4

        frames = rearrange(to_uint8(clip), "c f h w -> f h w c").numpy()
        write_mp4(path, frames, durable=False)
        return path
    if representation == "video":
        stored = to_uint8(clip)
    else:
        stored = clip.detach().to("cpu", torch.float16)
    save_torch(stored, path, durable=False)
    return path


def read_clip(path, representation=None):
    """Read a clip as float32 (videos: in [0, 1]); arguments and shapes: see `read_stored`."""
    clip = read_stored(path, representation)
    return from_uint8(clip) if clip.dtype == torch.uint8 else clip.float()


def read_stored(path, representation=None):
    """Read a clip as its file holds it.

    Args:
        path: of a .pt or .mp4 file.
        representation: what the clip must be. None: anything.

    Returns:
        latent [C, F, h, w] or rgb [3, F, h, w] of a floating type, or video uint8 [3, F, H, W].

    Raises:
        InputError: the file is truncated, empty or something else. An unreadable clip is never
            skipped.
    """
    path = Path(path)
    if path.suffix == ".mp4":
        from lvd.utils.video import read_mp4

        return rearrange(torch.from_numpy(read_mp4(path)), "f h w c -> c f h w")
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: not a clip, {' or '.join(SUFFIXES)} is needed")
    clip = load_torch(path)
    if isinstance(clip, torch.Tensor):
        checked(Tensor, clip, path)
    if _is_clip(clip, representation):
        return clip
    contents = type(clip).__name__
    if isinstance(clip, torch.Tensor):
        contents = f"{clip.dtype} tensor {list(clip.shape)}"
    representation = representation or "latent"
    raise InputError(
        f"{path}: a {representation} clip {SHAPES[representation]} is needed, found {contents}"
    )


def _is_clip(clip, representation):
    if not isinstance(clip, torch.Tensor) or clip.dim() != 4 or 0 in clip.shape:
        return False
    is_video = clip.dtype == torch.uint8 and clip.shape[0] == 3
    if representation == "video":
        return is_video
    if representation == "rgb":
        return clip.is_floating_point() and clip.shape[0] == 3
    return clip.is_floating_point() or (representation is None and is_video)


def clip_path(path_without_suffix, representation, video_format="mp4"):
    """Return the path with its suffix: .../{step}/{row} → .../{step}/{row}.pt or .mp4."""
    suffix = video_format if representation == "video" else "pt"
    return Path(f"{path_without_suffix}.{suffix}")


def list_clips(folder):
    """List the clips in one step's folder.

    Returns:
        {row: path}, by row.

    Raises:
        InputError: a missing folder, a stray file, or two clips of one row.
    """
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
        row = int(path.stem)
        if row in clips:
            raise InputError(f"{path}: a second clip of index {row} beside {clips[row].name}")
        clips[row] = path
    return dict(sorted(clips.items()))


def folder_representation(folder, part_of=None):
    """Find out what the clips below a folder are.

    The folder's representation.json says it. Without one, that of the dataset says it. Without
    both, the files' suffixes do: .mp4 means video, .pt means latent.

    Args:
        folder: of clips, at any depth.
        part_of: folder of the dataset.

    Returns:
        "latent", "rgb" or "video".

    Raises:
        InputError: a mix, files that contradict the note, or neither clips nor a note.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    suffixes = _suffixes_below(folder)
    notes = [place / NOTE for place in (folder, part_of) if place and (place / NOTE).exists()]
    noted = _noted(notes[0]) if notes else None
    if len(suffixes) > 1 or (".mp4" in suffixes and noted not in (None, "video")):
        other = ".mp4" if noted != "video" else ".pt"
        raise InputError(
            f"{folder}: {noted or 'latent'} and {other} clips are mixed here; build each "
            "representation in its own folder"
        )
    if noted:
        return noted
    if not suffixes:
        raise InputError(
            f"{folder}: no clips here ({' or '.join(SUFFIXES)}); run build_x0.py first"
        )
    return "video" if ".mp4" in suffixes else "latent"


def note_representation(folder, representation):
    """Write folder/representation.json, or check that the one there says the same."""
    path = Path(folder) / NOTE
    if not path.exists():
        save_json({"representation": representation}, path)
        return
    noted = _noted(path)
    if noted != representation:
        raise InputError(
            f"{path}: this folder holds {noted} clips, {representation} ones need a folder of "
            "their own"
        )


def link_clip(source, target):
    """Make `target` the same file as `source`: a hard link, or a copy where the file system has
    none. It is whole or not there at any time."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            os.link(source, target)
        except FileExistsError:
            if os.path.samefile(source, target):
                return
            target.unlink(missing_ok=True)
            os.link(source, target)
    except OSError:
        with atomic(target, durable=False) as partial:
            shutil.copyfile(source, partial)


def _suffixes_below(folder):
    suffixes = set()
    for _, _, names in os.walk(folder):
        for name in names:
            if not name.startswith("."):
                suffixes.add(os.path.splitext(name)[1])
    return suffixes & set(SUFFIXES)


def _noted(path):
    note = load_json(path)
    if not isinstance(note, dict) or note.get("representation") not in REPRESENTATIONS:
        raise InputError(f"{path}: 'representation' must be one of {', '.join(REPRESENTATIONS)}")
    return note["representation"]
