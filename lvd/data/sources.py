"""Where the detectors' clips come from: folders of clips, or straight from the recordings
(lvd.data.recorded_clips).

Sources are interchangeable. A row is a line of the prompt file; `kind` is "unsafe" or "normal". All
sources have

    representation            what the clips are: "latent", "rgb" or "video"
    steps                     the numbers of the denoising steps
    made_by                   {name: hash} of what the clips were made from (lvd.data.identity)
    sampling                  how x0 was sampled (lvd.x0.provenance), as far as that is known
    rows(kind, step)          the sorted rows that there are clips of
    read(kind, rows, step)    their clips, float16 [N, C, F, h, w]

and those to train on also

    groups, categories        numbers of the unsafe categories, from 1, and the names of all
    group_rows(group, step)   the sorted rows of one category

They raise InputError for a clip that is missing, unreadable, not finite or of another shape than
the others.
"""

from pathlib import Path
from typing import Any

import torch

from lvd.data.clip_file import folder_representation, list_clips, read_stored
from lvd.data.clip_folders import (
    dataset_steps,
    group_folders,
    group_name,
    need_built,
    normal_folder,
    step_folders,
)
from lvd.data.identity import MADE_BY, Dataset, rgb_identity
from lvd.data.kinds import KINDS
from lvd.data.transforms import ClipSpec, need_finite, prepare_clips
from lvd.errors import InputError
from lvd.utils.files import load_yaml
from lvd.utils.schema import checked
from lvd.x0.alike import need_alike
from lvd.x0.provenance import Sampling


class FolderConfig(Dataset):
    """config.yaml of a folder of clips, as far as it is read. It says more."""

    categories: list[str] | None = None
    sampling: Sampling | None = None
    sampled_with: dict[str, Any] | None = None


class Source:
    """What all sources share: clips are read, checked and resized part by part.

    No more than one part is held at its full size besides the result.
    """

    shape = None  # (C, F, h, w) of a clip, once one was read
    label_file = None  # path of the label file, when the source knows it
    labelled_by = None  # what a message calls the place that tells made_by["label_sha256"]
    note = ""  # what is not known of how the clips were sampled
    decode = None  # makes clips of recorded latents, where that is needed
    latent_shape = None  # (C, F, h, w) of the recorded latents, of recordings
    sampling = {}

    def read(self, kind, rows, step, model=None):
        """Read clips, in the order of their rows.

        Args:
            kind: "unsafe" or "normal".
            rows: one or more.
            step: number of a denoising step.
            model: the VideoMAEConfig whose frames and size the clips get. None: they keep theirs.

        Returns:
            float16 [N, C, F, h, w].
        """
        spec = ClipSpec(self.representation, self.decode, model)
        data, start = None, 0
        for part, name_of in self._parts(kind, rows, step):
            clips = prepare_clips(part, spec, lambda clips, name=name_of: self._check(clips, name))
            if data is None:
                data = torch.empty(len(rows), *clips.shape[1:], dtype=torch.float16)
            data[start : start + len(clips)] = clips
            start += len(clips)
        return data

    def clip_shape(self, kind, row, step):
        """Return (C, F, h, w) of the source's clips; reads that one if none was read before."""
        if self.shape is None:
            self.read(kind, [row], step)
        return self.shape

    def _parts(self, kind, rows, step):
        """Read the clips part after part.

        Yields:
            (clips as they are stored, or recorded latents; name_of). name_of is a function of a
            clip's number in its part; it returns what a message calls the clip.
        """
        raise NotImplementedError

    def _check(self, clips, name_of):
        shape = tuple(clips.shape[1:])
        self.shape = self.shape or shape
        if shape != self.shape:
            raise InputError(
                f"{name_of(0)}: clip of shape {list(shape)}, the others have {list(self.shape)}"
            )
        need_finite(clips, name_of)


class _Folders(Source):
    """Clips as files {folder}/{step}/{row}; folders: {kind: [folder, ...]}."""

    advice = "run build_x0.py to the end, or gen_eval_set.py with the labels in use"

    def __init__(self, folders):
        self.folders = folders

    def rows(self, kind, step):
        return list(self._paths(kind, step))

    def need_rows(self, kind, rows, step):
        """InputError naming the first of the held-out `rows` that has no clip."""
        paths = self._paths(kind, step)
        for row in rows:
            if row not in paths:
                raise InputError(
                    f"{self.place(kind, step)}: no clip of held-out row {row}; {self.advice}"
                )

    def place(self, kind, step):
        """What a message calls the clips of one kind and step."""
        folders = self.folders[kind]
        if len(folders) == 1:
            return str(folders[0] / str(step))
        return f"{folders[0].parent}, step {step}"

    def _paths(self, kind, step):
        paths = {}
        for folder in self.folders[kind]:
            paths |= list_clips(folder / str(step))
        return dict(sorted(paths.items()))

    def _parts(self, kind, rows, step):
        paths = self._paths(kind, step)
        for row in rows:
            if row not in paths:
                raise InputError(f"{self.place(kind, step)}: no clip of row {row}; {self.advice}")
            clip = read_stored(paths[row], self.representation)
            yield clip[None], lambda _, path=paths[row]: path


class FolderClips(_Folders):
    """The dataset of build_x0.py: {data_dir}/group{k}/{step}/{row} and {normal_dir}/{step}/{row};
    or one of the paper's scripts (lvd.data.clip_folders).

    Args:
        data_dir: folder of the dataset.
        normal_dir: folder of the normal videos' clips; None: {data_dir}/normal.
    """

    def __init__(self, data_dir, normal_dir=None):
        self.data_dir = Path(data_dir)
        self._group_folders = group_folders(data_dir)
        self.groups, self.steps = list(self._group_folders), dataset_steps(data_dir)
        normal = _normal_folder(self.data_dir, normal_dir)
        unsafe = list(self._group_folders.values())
        super().__init__({"unsafe": unsafe, "normal": [normal]})
        self.representation = folder_representation(data_dir)
        normal_representation = folder_representation(normal, part_of=normal.parent)
        if normal_representation != self.representation:
            raise InputError(
                f"--normal_video_dir {normal}: {normal_representation} clips, {data_dir} holds "
                f"{self.representation} ones"
            )
        config = folder_config(self.data_dir)
        normal_config = folder_config(normal.parent)
        self.note = need_alike(setup_of(normal_config), setup_of(config), normal, self.data_dir)
        self.labelled_by = self.data_dir / "config.yaml"
        names = list(config.get("categories") or [])
        unnamed = range(len(names) + 1, self.groups[-1] + 1)
        self.categories = names + [group_name(group) for group in unnamed]
        self.sampling = config.get("sampling") or {}
        self.made_by = _made_by(config, normal_config, MADE_BY)

    def need_steps(self, steps):
        """InputError for a step that build_x0.py has not finished."""
        need_built(self.data_dir, steps)

    def group_rows(self, group, step):
        return list(list_clips(self._group_folders[group] / str(step)))

    def group_place(self, group, step):
        """What a message calls the clips of one category and step."""
        return f"{self._group_folders[group]}/{step}"


class HeldOutFolders(_Folders):
    """The held-out clips of build_eval_set.py. They are not sorted by category.

    Args:
        data_dir: the folder of eval_set and eval_normal, or eval_set itself.
        normal_dir: folder of the normal videos' clips by step, which may hold more rows than are
            asked for; None: eval_normal beside eval_set.
    """

    advice = "run build_eval_set.py to the end"

    def __init__(self, data_dir, normal_dir=None):
        data_dir = Path(data_dir)
        unsafe = data_dir / "eval_set" if (data_dir / "eval_set").is_dir() else data_dir
        normal = Path(normal_dir) if normal_dir else unsafe.parent / "eval_normal"
        for folder in (unsafe, normal):
            if not step_folders(folder):
                raise InputError(
                    f"--data_dir {data_dir}: {folder} has no step folders; run build_eval_set.py "
                    "(the split must hold out normal videos too)"
                )
        super().__init__({"unsafe": [unsafe], "normal": [normal]})
        self.steps = step_folders(unsafe)
        self.representation = folder_representation(unsafe)
        normal_representation = folder_representation(normal, part_of=normal.parent)
        if normal_representation != self.representation:
            raise InputError(
                f"{unsafe} holds {self.representation} clips, {normal} {normal_representation} "
                "ones; both must be built alike"
            )
        self.labelled_by = unsafe / "config.yaml"
        config = folder_config(unsafe)
        normal_config = folder_config(normal) or folder_config(normal.parent)
        self.sampling = config.get("sampling") or {}
        self.made_by = _made_by(config, normal_config, MADE_BY[:2])

    def files(self):
        """The clip files of all steps."""
        return [
            path
            for kind in KINDS
            for step in self.steps
            for path in self._paths(kind, step).values()
        ]

    def _paths(self, kind, step):
        has_step = (self.folders[kind][0] / str(step)).is_dir()
        return super()._paths(kind, step) if has_step else {}


def _normal_folder(data_dir, normal_dir):
    folder = Path(normal_dir) if normal_dir else normal_folder(data_dir)
    if not folder.is_dir():
        raise InputError(
            f"--normal_video_dir {folder}: no such folder; sample normal prompts and run "
            "build_x0.py"
        )
    return folder


def folder_config(folder):
    """Return what made the clips below a folder, as the script that wrote them saved it.

    Returns:
        {key: value}; {} when it saved nothing.

    Raises:
        InputError: its config.yaml is damaged.
    """
    path = Path(folder) / "config.yaml"
    config = load_yaml(path) if path.exists() else None
    if not isinstance(config, (dict, type(None))):
        raise InputError(
            f"{path}: not the config that made this folder (a {type(config).__name__}); build it "
            "anew in another folder"
        )
    return checked(FolderConfig, config or {}, path)


def setup_of(config):
    """Return how the clips of a folder were sampled (lvd.x0.alike), as far as its config tells."""
    parts = [config.get(key) for key in ("sampling", "sampled_with")]
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def _made_by(config, normal_config, keys):
    """What made the clips, by the config of the unsafe ones (its `keys`) and of the normal ones."""
    made_by = {key: config.get(key) for key in keys}
    made_by["normal_pred_x0_made_by"] = normal_config.get("normal_pred_x0_made_by")
    return {**made_by, **rgb_identity(config.get("rgb_matrix"))}
