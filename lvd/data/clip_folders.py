"""The detectors' dataset: clips of predicted x0 as {folder}/{step}/{index}; a folder per category,
one of normal videos."""

import os
import re
import shutil
from pathlib import Path

import torch

from lvd.data.clip_file import clip_path, link_clip, list_clips, read_clip, write_clip
from lvd.data.transforms import need_finite
from lvd.errors import InputError
from lvd.utils.files import load_json, save_json

NORMAL = "normal"
BUILT = "built.json"  # the steps whose clips are all there, written last
DECODED = 200 << 20  # bytes of decoded pixels that are held at once: 4 x 16 frames of 512x512 px


def group_name(group):
    """Folder of an unsafe category, counted from 1."""
    return f"group{group}"


class ClipWriter:
    """The clips of one recording that are still to be written below `out`: a sized iterable that
    writes as it goes.

    x0: X0File; homes: {row: [folder name, ...]}, of which the first gets the clip and the others a
    link to it; decode: latents [n, C, F, h, w] → clips [n, 3, F, H, W], for representations other
    than "latent". ClipWriter that are there are whole (they were renamed into place) and stay as
    they are. Iterating yields the number of new files.
    """

    def __init__(self, x0, homes, out, steps, representation, decode=None, video_format="mp4"):
        x0.need_rows(homes)
        self.x0, self.homes, self.out, self.representation, self.decode = (
            x0,
            homes,
            Path(out),
            representation,
            decode,
        )
        self.video_format = video_format
        self.missing = {}  # row → {step: [path, ...] of which some are missing}
        for row, folders in sorted(homes.items()):
            paths = {
                s: [
                    clip_path(self.out / folder / str(s) / str(row), representation, video_format)
                    for folder in folders
                ]
                for s in steps
            }
            paths = {s: p for s, p in paths.items() if not all(map(os.path.exists, p))}
            if paths:
                self.missing[row] = paths

    def __len__(self):
        return len(self.missing)

    def __iter__(self):
        for row, paths in self.missing.items():
            yield self._write(row, paths)

    def size(self):
        """Bytes that the missing clips will take; 0 for .mp4, whose size is not known before."""
        if not self.missing or (self.representation == "video" and self.video_format == "mp4"):
            return 0
        clip = self.x0.tensor[0, 0]
        if self.decode:
            clip = self.decode(torch.zeros_like(clip[None, :, :1], dtype=torch.float32))[0].expand(
                -1, clip.shape[1], -1, -1
            )
        return (
            sum(map(len, self.missing.values()))
            * clip.numel()
            * (1 if self.representation == "video" else 2)
        )

    def _write(self, row, paths):
        written = 0
        for chunk in _chunks(
            sorted(paths), decoded_at_once(self.x0.tensor) if self.decode else len(paths)
        ):
            latents = self.x0.tensor[row, chunk].to(
                torch.float32 if self.decode else torch.float16
            )  # [n, C, F, h, w]
            need_finite(
                latents, lambda k, steps=chunk: f"{self.x0.path}: row {row}, step {steps[k]}"
            )
            clips = self.decode(latents) if self.decode else latents
            for step, clip in zip(chunk, clips, strict=True):
                written += self._place(paths[step], clip)
        return written

    def _place(self, paths, clip):
        missing = [path for path in paths if not path.exists()]
        there = [path for path in paths if path.exists()]
        source = (
            there[0]
            if there
            else write_clip(paths[0].with_suffix(""), clip, self.representation, self.video_format)
        )
        for path in missing:
            if path != source:
                link_clip(source, path)
        return len(missing)


def decoded_at_once(x0):
    """How many clips of x0 [N, S, C, F, h, w] to decode at once, taking pixels to be 8 x 8 a
    latent."""
    frames, height, width = x0.shape[-3:]
    return max(1, DECODED // (frames * 8 * height * 8 * width * 3 * 4))


def note_built(data_dir, parts, steps, done=False):
    """Keep {data_dir}/built.json true: before the clips of `parts` are written without the steps
    that lack some, and with all `steps` once they are `done`. {"steps": [...], "videos": {folder:
    number}}"""
    path = Path(data_dir) / BUILT
    before = set(_built(path)["steps"])
    broken = {step for part in parts for paths in part.missing.values() for step in paths}
    whole = sorted(before | set(steps) if done else before - broken)
    videos = {}
    for folder in (
        folder for part in parts for folders in part.homes.values() for folder in folders
    ):
        videos[folder] = videos.get(folder, 0) + 1
    if whole != sorted(before):
        save_json({"steps": whole, "videos": videos}, path)


def need_built(data_dir, steps):
    """InputError unless build_x0.py finished these steps and no clip is gone since. A dataset that
    has no config.yaml was made by something else and is taken as it is."""
    data_dir = Path(data_dir)
    if not (data_dir / "config.yaml").exists():
        return
    note = _built(data_dir / BUILT)
    if missing := sorted(set(steps) - set(note["steps"])):
        raise InputError(
            f"{data_dir}: step {missing[0]} is not built to its end; run build_x0.py to the end"
        )
    for step in steps:
        for folder, count in note["videos"].items():
            found = len(list_clips(data_dir / folder / str(step)))
            if found < count:
                raise InputError(
                    f"{data_dir / folder / str(step)}: {found} of {count} clips are left; run "
                    "build_x0.py again"
                )


def _built(path):
    note = load_json(path) if path.exists() else {"steps": [], "videos": {}}
    if (
        not isinstance(note, dict)
        or not isinstance(note.get("steps"), list)
        or not isinstance(note.get("videos"), dict)
    ):
        raise InputError(
            f"{path}: 'steps' and 'videos' are needed; delete it and run build_x0.py again"
        )
    return note


def need_space(folder, size):
    """InputError when `size` bytes do not fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(
            f"{folder}: needs {size / 2**30:.1f} GiB more disk, {free / 2**30:.1f} GiB are free"
        )


def dataset_steps(data_dir):
    """The steps that every group of the dataset has, sorted. InputError when there are no groups or
    they disagree."""
    steps = {}
    for group in dataset_groups(data_dir):
        folder = Path(data_dir) / group_name(group)
        steps[folder.name] = sorted(
            int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdecimal()
        )
    name, first = next(iter(steps.items()))
    for other, found in steps.items():
        if found != first:
            step = sorted(set(found) ^ set(first))[0]
            raise InputError(
                f"{data_dir}: step {step} is in only one of {name} and {other}; run build_x0.py "
                "to the end"
            )
    if not first:
        raise InputError(f"{data_dir}/{name}: no step folders; run build_x0.py first")
    return first


def dataset_groups(data_dir):
    """The numbers of the group folders of the dataset, sorted. InputError for one that is not
    numbered from 1."""
    data_dir = Path(data_dir)
    names = [p.name for p in data_dir.iterdir() if p.is_dir()] if data_dir.is_dir() else []
    names = [name for name in names if re.fullmatch(r"group[0-9]+", name)]
    if wrong := [name for name in names if name[5] == "0"]:
        raise InputError(
            f"{data_dir}/{wrong[0]}: not a category's folder; they are group1, group2, ... in the "
            "order of the label file's columns"
        )
    groups = sorted(int(name[5:]) for name in names)
    if not groups:
        raise InputError(f"{data_dir}: no folders group1, group2, ... here; run build_x0.py first")
    return groups


def unsafe_clips(data_dir, step):
    """{row: path} of one step over all groups, each row once."""
    found = {}
    for group in dataset_groups(data_dir):
        found |= list_clips(Path(data_dir) / group_name(group) / str(step))
    return dict(sorted(found.items()))


class HeldOutLinker:
    """The held-out clips of one step after the other, linked from the dataset: a sized iterable
    over `steps`.

    rows: what is held out; clips_of(step) → {row: path}; target: folder that gets {step}/{row}.
    Every clip is read once before it is linked. InputError for one that is missing, unreadable or
    of another shape. Iterating yields the number of new clips.
    """

    def __init__(self, rows, steps, clips_of, target):
        self.rows, self.steps, self.clips_of, self.target = rows, steps, clips_of, Path(target)

    def __len__(self):
        return len(self.steps)

    def __iter__(self):
        shape = None
        for step in self.steps:
            clips = self.clips_of(step)
            missing = [row for row in self.rows if row not in clips]
            if missing:
                raise InputError(
                    f"held-out row {missing[0]} has no clip at step {step} in the dataset; run "
                    "build_x0.py to its end, or gen_eval_set.py with the labels in use"
                )
            shape = shape or read_clip(clips[self.rows[0]]).shape
            yield sum(
                self._link(clips[row], self.target / str(step) / clips[row].name, shape)
                for row in self.rows
            )

    def _link(self, source, target, shape):
        if target.exists() and target.stat().st_size == source.stat().st_size:
            return 0
        found = read_clip(source).shape
        if found != shape:
            raise InputError(
                f"{source}: clip of shape {list(found)}, the others have {list(shape)}"
            )
        link_clip(source, target)
        return 1


def _chunks(items, size):
    return [items[k : k + size] for k in range(0, len(items), size)]
