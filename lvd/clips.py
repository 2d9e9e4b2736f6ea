"""A clip on the disk: one predicted x0 of one video at one step, and the only owner of how it is stored.

Two representations: "latent", the x0 latents themselves (`.pt`, float16 [C, F, h, w], nothing lost but
precision), and "video", the decoded frames (`.mp4`, lossy, as in the paper). A folder of clips holds one of them.
"""

import os
import re
import shutil
from pathlib import Path

import torch

from lvd.errors import InputError
from lvd.files import load_json, load_torch, save_json, save_torch

SUFFIXES = {"latent": ".pt", "video": ".mp4"}
NOTE = "representation.json"


def write_clip(path_without_suffix, clip, representation):
    """Write one clip atomically and return its path.

    clip: latent [C, F, h, w], or video [3, F, H, W] with values in [0, 1].
    """
    path = clip_path(path_without_suffix, representation)
    if clip.dim() != 4 or (representation == "video" and clip.shape[0] != 3):
        raise InputError(f"{path}: a {representation} clip cannot have shape {list(clip.shape)}")
    if representation == "latent":
        save_torch(clip.detach().to("cpu", torch.float16).clone(), path)  # clone: a view would save its whole storage
    else:
        from lvd.video_io import write_mp4

        write_mp4(path, to_uint8(clip).permute(1, 2, 3, 0).numpy())
    return path


def to_uint8(pixels):
    """Pixels in [0, 1], any shape → uint8 on the CPU, truncated as in the released code."""
    return (pixels.detach().float().clamp(0, 1) * 255).to("cpu", torch.uint8)


def read_clip(path):
    """A clip as a float32 tensor: latent [C, F, h, w], or video [3, F, H, W] in [0, 1].

    InputError when the file is truncated, empty or something else: an unreadable clip is never skipped.
    """
    path = Path(path)
    if path.suffix == SUFFIXES["video"]:
        from lvd.video_io import read_mp4

        return torch.from_numpy(read_mp4(path)).permute(3, 0, 1, 2).float() / 255
    if path.suffix != SUFFIXES["latent"]:
        raise InputError(f"{path}: not a clip, {' or '.join(SUFFIXES.values())} is needed")
    clip = load_torch(path)
    if not isinstance(clip, torch.Tensor) or clip.dim() != 4 or not clip.is_floating_point() or 0 in clip.shape:
        found = f"tensor {list(clip.shape)}" if isinstance(clip, torch.Tensor) else type(clip).__name__
        raise InputError(f"{path}: a latent clip [C, F, h, w] is needed, found {found}")
    return clip.float()


def clip_path(path_without_suffix, representation):
    """…/{step}/{index} → …/{step}/{index}.pt or .mp4"""
    return Path(f"{path_without_suffix}{SUFFIXES[representation]}")


def list_clips(folder):
    """{index: path} of the clips in one step's folder, by index. InputError for a stray or doubled file."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; build_x0.py and build_eval_set.py make it")
    clips = {}
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue  # a temporary file of a killed run
        if path.suffix not in SUFFIXES.values() or not re.fullmatch(r"[0-9]{1,15}", path.stem):
            raise InputError(f"{path}: not a clip; files named by row index, {' or '.join(SUFFIXES.values())}, are needed")
        if int(path.stem) in clips:
            raise InputError(f"{path}: a second clip of index {int(path.stem)} beside {clips[int(path.stem)].name}")
        clips[int(path.stem)] = path
    return dict(sorted(clips.items()))


def folder_representation(folder):
    """"latent" or "video": what the clips below `folder` are, from its representation.json and from the files' suffixes.

    InputError for a mix, for files that contradict the note, and for a folder with neither clips nor note.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    kinds = {suffix: kind for kind, suffix in SUFFIXES.items()}
    suffixes = {os.path.splitext(name)[1] for _, _, names in os.walk(folder) for name in names if not name.startswith(".")}
    found = {kinds[suffix] for suffix in suffixes if suffix in kinds}
    if (folder / NOTE).exists():
        found.add(_noted(folder / NOTE))
    if len(found) > 1:
        raise InputError(f"{folder}: latent and video clips are mixed here; build each representation in its own folder")
    if not found:
        raise InputError(f"{folder}: no clips here ({' or '.join(SUFFIXES.values())}); run build_x0.py first")
    return found.pop()


def note_representation(folder, representation):
    """Write folder/representation.json, or check that the one there says the same."""
    path = Path(folder) / NOTE
    if path.exists() and _noted(path) != representation:
        raise InputError(f"{path}: this folder holds {_noted(path)} clips, {representation} ones need a folder of their own")
    if not path.exists():
        save_json({"representation": representation}, path)


def link_clip(source, target):
    """Make `target` the same file as `source`: a hard link, or a copy where the file system has none. Atomic."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    os.replace(partial, target)  # of two links to one file this does nothing, so the partial name may remain
    partial.unlink(missing_ok=True)


def _noted(path):
    note = load_json(path)
    if not isinstance(note, dict) or note.get("representation") not in list(SUFFIXES):
        raise InputError(f"{path}: 'representation' must be one of {', '.join(SUFFIXES)}")
    return note["representation"]
