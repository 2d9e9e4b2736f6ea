"""Where the detectors' clips come from: folders of clips, or straight from the recordings.

Sources are interchangeable. A row is a line of the prompt file, `kind` is "unsafe" or "normal". A
source has

    representation, steps, made_by            what the clips are, which denoising steps there are,
    what made them sampling                                  how they were sampled
    (lvd.x0.provenance), as far as that is known groups, categories                        numbers
    of the unsafe categories, and the names of all rows(kind, step), group_rows(group, step) sorted
    rows that there are clips of read(kind, rows, step) → float16 [N, C, F, h, w]

and raises InputError for what is missing, unreadable, not finite or of another shape than the other
clips.
"""

from pathlib import Path

import torch

from lvd.data.clip_file import folder_representation, list_clips, read_stored
from lvd.data.clip_folders import (
    NORMAL,
    dataset_groups,
    dataset_steps,
    decoded_at_once,
    group_name,
    need_built,
)
from lvd.data.identity import MADE_BY, rgb_identity
from lvd.data.transforms import ClipSpec, need_finite, prepare_clips
from lvd.errors import InputError
from lvd.utils.files import load_yaml, sha256
from lvd.x0.file import open_x0_file
from lvd.x0.provenance import recorded_sampling

KINDS = ("unsafe", "normal")
VALUES_AT_ONCE = (
    4 << 20
)  # values of recorded latents that are copied, checked and converted at once: 16 MiB in float32


class Source:
    """What all sources share: clips in parts, checked, so that no more than a part is held besides
    the result."""

    shape = None  # (C, F, h, w) of a clip, once one was read
    label_file = None  # path of the label file, when the source knows it
    labelled_by = None  # what to call the place that tells made_by["label_sha256"]
    sampling = {}
    decode = None  # latents → clips, where clips are made of recorded latents

    def read(self, kind, rows, step, model=None):
        """Read clips, in the order of their rows.

        Args:
            kind: "unsafe" or "normal".
            rows: one or more.
            step: number of a denoising step.
            model: the VideoMAEConfig whose frames and size the clips get: so large videos are never
                held at theirs. None: the clips as they are.

        Returns:
            float16 [N, C, F, h, w].
        """
        data, start = None, 0
        spec = ClipSpec(self.representation, self.decode, model)
        for part, names in self._parts(kind, rows, step):
            clips = prepare_clips(part, spec, lambda clips, names=names: self._check(clips, names))
            if data is None:
                data = torch.empty(len(rows), *clips.shape[1:], dtype=torch.float16)
            data[start : start + len(clips)] = clips
            start += len(clips)
        return data

    def clip_shape(self, kind, row, step):
        """(C, F, h, w) of the source's clips; reads that one if none was read before."""
        if self.shape is None:
            self.read(kind, [row], step)
        return self.shape

    def _check(self, clips, names):
        """names: function of a clip's number in `clips` → what to call it."""
        self.shape = self.shape or tuple(clips.shape[1:])
        if tuple(clips.shape[1:]) != self.shape:
            raise InputError(
                f"{names(0)}: clip of shape {list(clips.shape[1:])}, the others have "
                f"{list(self.shape)}"
            )
        need_finite(clips, names)


class _Folders(Source):
    """Clips as files {folder}/{step}/{row}; folders: {kind: [folder, ...]}."""

    advice = "run build_x0.py to the end, or gen_eval_set.py with the labels in use"

    def __init__(self, folders):
        self.folders = folders

    def rows(self, kind, step):
        return list(self._paths(kind, step))

    def need_rows(self, kind, rows, step):
        """InputError naming the first of the held-out `rows` that has no clip."""
        there = self._paths(kind, step)
        if missing := [row for row in rows if row not in there]:
            raise InputError(
                f"{self.place(kind, step)}: no clip of held-out row {missing[0]}; {self.advice}"
            )

    def place(self, kind, step):
        """What to call the clips of one kind and step in a message."""
        folders = self.folders[kind]
        return (
            str(folders[0] / str(step))
            if len(folders) == 1
            else f"{folders[0].parent}, step {step}"
        )

    def _paths(self, kind, step):
        found = {}
        for folder in self.folders[kind]:
            found |= list_clips(folder / str(step))
        return dict(sorted(found.items()))

    def _parts(self, kind, rows, step):
        paths = self._paths(kind, step)
        for row in rows:
            if row not in paths:
                raise InputError(f"{self.place(kind, step)}: no clip of row {row}; {self.advice}")
            clip = read_stored(paths[row], self.representation)
            yield clip[None], lambda _, path=paths[row]: path


class FolderClips(_Folders):
    """The dataset of build_x0.py: {data_dir}/group{k}/{step}/{row}, and {normal_dir}/{step}/{row},
    by default {data_dir}/normal."""

    def __init__(self, data_dir, normal_dir=None):
        self.data_dir = Path(data_dir)
        self.groups, self.steps = dataset_groups(data_dir), dataset_steps(data_dir)
        normal = _normal_folder(self.data_dir, normal_dir)
        super().__init__(
            {
                "unsafe": [self.data_dir / group_name(group) for group in self.groups],
                "normal": [normal],
            }
        )
        self.representation = folder_representation(data_dir)
        if (found := folder_representation(normal, part_of=normal.parent)) != self.representation:
            raise InputError(
                f"--normal_video_dir {normal}: {found} clips, {data_dir} holds "
                f"{self.representation} ones"
            )
        config, self.labelled_by = _config(self.data_dir), self.data_dir / "config.yaml"
        names = list(config.get("categories") or [])
        self.categories = names + [
            group_name(group) for group in range(len(names) + 1, self.groups[-1] + 1)
        ]
        self.sampling = config.get("sampling") or {}
        self.made_by = {
            **{key: config.get(key) for key in MADE_BY},
            "normal_pred_x0_made_by": _config(normal.parent).get("normal_pred_x0_made_by"),
            **rgb_identity(config.get("rgb_matrix")),
        }

    def need_steps(self, steps):
        """InputError for a step that build_x0.py has not finished."""
        need_built(self.data_dir, steps)

    def group_rows(self, group, step):
        return list(list_clips(self.data_dir / group_name(group) / str(step)))

    def group_place(self, group, step):
        return f"{self.data_dir}/{group_name(group)}/{step}"


class HeldOutFolders(_Folders):
    """The held-out clips of build_eval_set.py; without categories, for their rows are in all of
    them or in none.

    data_dir: the folder of eval_set and eval_normal, or eval_set itself with eval_normal beside it.
    """

    advice = "run build_eval_set.py to the end"

    def __init__(self, data_dir):
        data_dir = Path(data_dir)
        unsafe = data_dir / "eval_set" if (data_dir / "eval_set").is_dir() else data_dir
        normal = unsafe.parent / "eval_normal"
        for folder in (unsafe, normal):
            if not _step_folders(folder):
                raise InputError(
                    f"--data_dir {data_dir}: {folder} has no step folders; run build_eval_set.py "
                    "(the split must hold out normal videos too)"
                )
        super().__init__({"unsafe": [unsafe], "normal": [normal]})
        self.steps = _step_folders(unsafe)
        kinds = {folder: folder_representation(folder) for folder in (unsafe, normal)}
        if kinds[unsafe] != kinds[normal]:
            raise InputError(
                f"{unsafe} holds {kinds[unsafe]} clips, {normal} {kinds[normal]} ones; both must "
                "be built alike"
            )
        self.representation = kinds[unsafe]
        self.labelled_by = unsafe / "config.yaml"
        self.made_by = {
            **{key: _config(unsafe).get(key) for key in MADE_BY[:2]},
            "normal_pred_x0_made_by": _config(normal).get("normal_pred_x0_made_by"),
            **rgb_identity(_config(unsafe).get("rgb_matrix")),
        }

    def files(self):
        """The clip files of all steps."""
        return [
            path
            for kind in KINDS
            for step in self.steps
            for path in self._paths(kind, step).values()
        ]

    def _paths(self, kind, step):
        return super()._paths(kind, step) if (self.folders[kind][0] / str(step)).is_dir() else {}


class RecordedClips(Source):
    """Clips straight from the recordings: nothing is written, and of a step only the rows asked for
    are read.

    pred_x0, normal_pred_x0: paths of x0 files; labels: Labels of the unsafe one's rows (None: there
    are no categories, and all recorded rows are handed out); decode: for representations other than
    "latent", float32 latents [n, C, F, h, w] → clips [n, 3, F, H, W] (videos: pixels in [0, 1], of
    which 8 bits are kept, as in a video file). The files are mapped; what a pickled copy, as for
    another process, maps again.
    """

    def __init__(self, pred_x0, normal_pred_x0, labels, representation="latent", decode=None):
        self.labels, self.representation, self.decode = labels, representation, decode
        self.label_file = self.labelled_by = labels.path if labels else None
        if normal_pred_x0 is None:
            raise InputError(
                "normal_pred_x0: no recording of normal videos is named; detectors need them"
            )
        self.paths = dict(zip(KINDS, (Path(pred_x0), Path(normal_pred_x0)), strict=True))
        self._files = {kind: open_x0_file(path) for kind, path in self.paths.items()}
        unsafe, normal = self._files.values()
        if normal.tensor.shape[1:] != unsafe.tensor.shape[1:]:
            raise InputError(
                f"{normal.path}: videos of shape {list(normal.tensor.shape[1:])} (steps, C, F, h, "
                f"w), those of {unsafe.path} have {list(unsafe.tensor.shape[1:])}; both must be "
                "sampled alike"
            )
        self._rows = {kind: file.rows for kind, file in self._files.items()}
        if labels:
            self._rows = {"unsafe": labels.rows(), "normal": list(range(normal.tensor.shape[0]))}
            for kind, file in self._files.items():
                file.need_rows(self._rows[kind])
        self.steps, self.categories = (
            list(range(unsafe.tensor.shape[1])),
            labels.categories if labels else [],
        )
        self.groups, label_sha256 = (
            list(range(1, len(self.categories) + 1)),
            sha256(labels.path) if labels else None,
        )
        self.sampling = recorded_sampling(unsafe)
        self.made_by = {
            **dict(
                zip(MADE_BY, (label_sha256, unsafe.fingerprint, normal.fingerprint), strict=True)
            ),
            **rgb_identity(getattr(decode, "numbers", None)),
        }

    def __getstate__(self):
        return {**self.__dict__, "_files": {}}

    def rows(self, kind, step):
        return self._rows[kind]

    def group_rows(self, group, step):
        return sorted(self.labels.columns[group - 1])

    def need_steps(self, steps):
        """All recorded steps are whole."""

    def need_rows(self, kind, rows, step):
        """InputError naming the first of `rows` that is not recorded, or not labelled."""
        if step not in self.steps:
            raise InputError(
                f"{self.paths[kind]}: no step {step}, {len(self.steps)} steps are recorded"
            )
        if missing := sorted(set(rows) - set(self._rows[kind])):
            labelled = kind == "unsafe" and self.labels
            what = (
                f"{self.labels.path}: no category has"
                if labelled
                else f"{self.paths[kind]}: does not hold"
            )
            raise InputError(
                f"{what} held-out row {missing[0]}; run gen_eval_set.py with the labels in use"
            )

    def files(self):
        """The files that the clips are made from; None where a model decodes them, whose weights
        are not at hand here."""
        return None if self.representation == "video" else list(self.paths.values())

    def place(self, kind, step):
        return f"{self.paths[kind]}, step {step}"

    def group_place(self, group, step):
        return f"{self.labels.path}: category '{self.categories[group - 1]}'"

    def _parts(self, kind, rows, step):
        """In slices of many rows. A clip lies in one piece in the file, and the pieces of the steps
        around it are read ahead by the system with it, so that going from step to step reads the
        file about once."""
        tensor = self._tensor(kind)
        size = (
            decoded_at_once(tensor)
            if self.decode
            else max(1, VALUES_AT_ONCE // tensor[0, 0].numel())
        )
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            x0 = torch.stack([tensor[row, step] for row in part])

            def name(k, part=part):
                return f"{self.paths[kind]}: row {part[k]}, step {step}"

            if self.decode:
                need_finite(x0, name)
            yield x0, name

    def _tensor(self, kind):
        if kind not in self._files:
            self._files[kind] = open_x0_file(self.paths[kind])
        return self._files[kind].tensor


def _normal_folder(data_dir, normal_dir):
    folder = Path(normal_dir) if normal_dir else data_dir / NORMAL
    if not folder.is_dir():
        raise InputError(
            f"--normal_video_dir {folder}: no such folder; sample normal prompts and run "
            "build_x0.py"
        )
    return folder


def _step_folders(folder):
    return (
        sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())
        if folder.is_dir()
        else []
    )


def _config(folder):
    """What made the clips below a folder, as the script that wrote them saved it; {} when it did
    not."""
    path = Path(folder) / "config.yaml"
    return (load_yaml(path) or {}) if path.exists() else {}
