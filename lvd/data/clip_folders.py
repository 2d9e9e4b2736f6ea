"""The detectors' dataset: clips of predicted x0 as {folder}/{step}/{index}; a folder per category,
one of normal videos.

The folders are group1, group2, ... and normal. Data sets of the paper's scripts are read too: there
a category's folder may be named by its number alone, and normal videos lie in invid.
"""

import os
import re
from collections import Counter
from pathlib import Path

import torch

from lvd.data.clip_file import clip_path, link_clip, list_clips, write_clip
from lvd.data.transforms import need_finite
from lvd.errors import InputError
from lvd.utils.files import load_json, save_json
from lvd.utils.schema import Count, Name, Schema, checked

NORMAL = "normal"
PAPERS_NORMAL = "invid"  # where the paper's scripts look for normal videos
BUILT = "built.json"  # the steps whose clips are all there, written last
DECODED = 200 << 20  # bytes of decoded pixels that are held at once: 4 x 16 frames of 512x512 px


def group_name(group):
    """Name the folder of an unsafe category, counted from 1."""
    return f"group{group}"


class ClipWriter:
    """The clips of one recording that are still to be written.

    A sized iterable over its videos: it writes as it goes and yields the number of new files of
    each.

    Clips that are there are whole (they were renamed into place) and stay as they are.

    Args:
        x0: X0File.
        homes: {row: [folder name, ...]}; the first gets the clip, the others a link to it.
        out: the dataset's folder.
        steps: numbers of the denoising steps.
        representation: of the clips.
        decode: float32 latents [n, C, F, h, w] → clips [n, 3, F, H, W]; None for "latent".
        video_format: "mp4" or "pt", for videos.
    """

    def __init__(self, x0, homes, out, steps, representation, decode=None, video_format="mp4"):
        x0.need_rows(homes)
        self.x0, self.homes, self.out = x0, homes, Path(out)
        self.representation, self.decode = representation, decode
        self.video_format = video_format
        self.missing = {}  # row → {step: [path, ...] of which some are missing}
        for row, folders in sorted(homes.items()):
            paths = {step: self._paths(row, folders, step) for step in steps}
            unfinished = {
                step: places
                for step, places in paths.items()
                if not all(map(os.path.exists, places))
            }
            if unfinished:
                self.missing[row] = unfinished

    def __len__(self):
        return len(self.missing)

    def __iter__(self):
        for row, paths in self.missing.items():
            yield self._write(row, paths)

    def size(self):
        """Return the bytes that the missing clips will take; 0 for .mp4, whose size is not known
        before."""
        if not self.missing or (self.representation == "video" and self.video_format == "mp4"):
            return 0
        clip = self.x0.tensor[0, 0]
        values, frames = clip.numel(), clip.shape[1]
        if self.decode:
            one_frame = torch.zeros_like(clip[None, :, :1], dtype=torch.float32)
            values = self.decode(one_frame).numel() * frames
        bytes_of_a_value = 1 if self.representation == "video" else 2
        return sum(map(len, self.missing.values())) * values * bytes_of_a_value

    def _paths(self, row, folders, step):
        return [
            clip_path(
                self.out / folder / str(step) / str(row), self.representation, self.video_format
            )
            for folder in folders
        ]

    def _write(self, row, paths):
        new_files = 0
        at_once = decoded_at_once(self.x0.tensor) if self.decode else len(paths)
        dtype = torch.float32 if self.decode else torch.float16
        for steps in _chunks(sorted(paths), at_once):
            latents = self.x0.tensor[row, steps].to(dtype)  # [n, C, F, h, w]

            def name_of(number, steps=steps):
                return f"{self.x0.path}: row {row}, step {steps[number]}"

            need_finite(latents, name_of)
            clips = self.decode(latents) if self.decode else latents
            for step, clip in zip(steps, clips, strict=True):
                new_files += self._place(paths[step], clip)
        return new_files

    def _place(self, paths, clip):
        there = [path for path in paths if path.exists()]
        missing = [path for path in paths if not path.exists()]
        if there:
            source = there[0]
        else:
            without_suffix = paths[0].with_suffix("")
            source = write_clip(without_suffix, clip, self.representation, self.video_format)
        for path in missing:
            if path != source:
                link_clip(source, path)
        return len(missing)


def decoded_at_once(x0):
    """How many clips of x0 [N, S, C, F, h, w] to decode at once, taking pixels to be 8 x 8 a
    latent."""
    frames, height, width = x0.shape[-3:]
    bytes_of_a_clip = frames * 8 * height * 8 * width * 3 * 4
    return max(1, DECODED // bytes_of_a_clip)


def note_built(data_dir, writers, steps, done=False):
    """Keep {data_dir}/built.json true: {"steps": [whole ones], "videos": {folder: number}}.

    Args:
        data_dir: the dataset's folder.
        writers: ClipWriters of all its recordings.
        steps: those they write.
        done: False before the clips are written: steps that lack some are taken out. True after:
            `steps` are put in.
    """
    path = Path(data_dir) / BUILT
    before = set(_built(path)["steps"])
    broken = {step for writer in writers for paths in writer.missing.values() for step in paths}
    whole = sorted(before | set(steps) if done else before - broken)
    videos = Counter(
        folder for writer in writers for folders in writer.homes.values() for folder in folders
    )
    if whole != sorted(before):
        save_json({"steps": whole, "videos": dict(videos)}, path)


def need_built(data_dir, steps):
    """Refuse a dataset that build_x0.py has not finished, or of which clips are gone since.

    A dataset without config.yaml was made by something else and is taken as it is.

    Raises:
        InputError: naming the first such step or folder.
    """
    data_dir = Path(data_dir)
    if not (data_dir / "config.yaml").exists():
        return
    note = _built(data_dir / BUILT)
    unfinished = sorted(set(steps) - set(note["steps"]))
    if unfinished:
        raise InputError(
            f"{data_dir}: step {unfinished[0]} is not built to its end; run build_x0.py to the end"
        )
    for step in steps:
        for name, videos in note["videos"].items():
            folder = data_dir / name / str(step)
            clips = len(list_clips(folder))
            if clips < videos:
                raise InputError(
                    f"{folder}: {clips} of {videos} clips are left; run build_x0.py again"
                )


class BuiltNote(Schema, extra="allow"):
    """built.json."""

    steps: list[Count]
    videos: dict[Name, Count]


def _built(path):
    note = load_json(path) if path.exists() else {"steps": [], "videos": {}}
    try:
        return checked(BuiltNote, note, path)
    except InputError as error:
        raise InputError(f"{error}; delete it and run build_x0.py again") from None


def dataset_steps(data_dir):
    """Return the steps that every group of the dataset has, sorted.

    Raises:
        InputError: no groups, or groups that disagree.
    """
    steps = {}
    for folder in group_folders(data_dir).values():
        steps[folder.name] = step_folders(folder)
    name, first = next(iter(steps.items()))
    for other, others in steps.items():
        if others != first:
            step = sorted(set(others) ^ set(first))[0]
            raise InputError(
                f"{data_dir}: step {step} is in only one of {name} and {other}; run build_x0.py "
                "to the end"
            )
    if not first:
        raise InputError(f"{data_dir}/{name}: no step folders; run build_x0.py first")
    return first


def step_folders(folder):
    """Return the steps that a folder has folders of, sorted; [] where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdecimal())


def group_folders(data_dir):
    """Find the folders of the unsafe categories: group1, group2, ..., or 1, 2, ...

    A folder named by a number is a category's if it holds folders of steps. Otherwise it is itself
    one of a step, and `data_dir` no data set.

    Returns:
        {number: Path}, by number.

    Raises:
        InputError: no such folders, one that is not numbered from 1, or both forms.
    """
    data_dir = Path(data_dir)
    paths = data_dir.iterdir() if data_dir.is_dir() else []
    folders = {}
    for path in paths:
        named = re.fullmatch(r"(group)?([0-9]{1,9})", path.name)
        if not named or not path.is_dir() or not (named[1] or step_folders(path)):
            continue
        if named[2].startswith("0"):
            raise InputError(
                f"{path}: not a category's folder; they are group1, group2, ... in the order of "
                "the label file's columns"
            )
        folders[path] = int(named[2])
    if not folders:
        raise InputError(f"{data_dir}: no folders group1, group2, ... here; run build_x0.py first")
    if len({path.name.startswith("group") for path in folders}) > 1:
        names = sorted(path.name for path in folders)
        raise InputError(
            f"{data_dir}: folders {names[0]} and {names[-1]} are of two forms; one data set, with "
            "or without 'group' in its names, is needed"
        )
    return {group: path for path, group in sorted(folders.items(), key=lambda item: item[1])}


def normal_folder(data_dir):
    """Return the folder of a dataset's normal videos: normal, or invid as the paper's scripts have
    it."""
    there = [Path(data_dir) / name for name in (NORMAL, PAPERS_NORMAL)]
    there = [folder for folder in there if folder.is_dir()]
    if len(there) > 1:
        raise InputError(
            f"{data_dir}: both {NORMAL} and {PAPERS_NORMAL} are here; one folder of normal videos "
            "is needed"
        )
    return there[0] if there else Path(data_dir) / NORMAL


def unsafe_clips(data_dir, step):
    """Return {row: path} of one step over all groups, each row once."""
    clips = {}
    for folder in group_folders(data_dir).values():
        clips |= list_clips(folder / str(step))
    return dict(sorted(clips.items()))


def _chunks(items, size):
    return [items[k : k + size] for k in range(0, len(items), size)]
