"""Clips straight from the recordings: one of the sources (lvd.data.sources)."""

from pathlib import Path

import torch

from lvd.data.clip_folders import decoded_at_once
from lvd.data.identity import need_pair, rgb_identity
from lvd.data.sources import Source
from lvd.data.transforms import need_finite
from lvd.errors import InputError
from lvd.utils.files import sha256
from lvd.x0.file import open_x0_file, recording_files
from lvd.x0.provenance import recorded_sampling

VALUES_AT_ONCE = 4 << 20  # of recorded latents that are copied and checked at once: 16 MiB


class RecordedClips(Source):
    """Clips of two recordings: no file is written, and of a step only the rows that are asked for
    are read.

    The recordings are mapped, not loaded. A pickled copy, as another process gets it, leaves the
    maps behind and opens the files again when it first reads.

    Args:
        pred_x0, normal_pred_x0: paths of x0 files.
        labels: Labels of the unsafe one's rows. None: there are no categories, and all recorded
            rows are handed out.
        representation: of the clips.
        decode: float32 latents [n, C, F, h, w] → clips [n, 3, F, H, W]; None for "latent".
        only: {kind: rows}, of the labelled and the normal rows those that are needed: others may
            not be recorded yet. None: all of them.
    """

    def __init__(
        self, pred_x0, normal_pred_x0, labels, representation="latent", decode=None, only=None
    ):
        self.labels, self.representation, self.decode = labels, representation, decode
        if normal_pred_x0 is None:
            raise InputError(
                "normal_pred_x0: no recording of normal videos is named; detectors need them"
            )
        self.paths = {"unsafe": Path(pred_x0), "normal": Path(normal_pred_x0)}
        self._files = {kind: open_x0_file(path) for kind, path in self.paths.items()}
        unsafe, normal = self._files["unsafe"], self._files["normal"]
        self.note = need_pair(normal, unsafe)
        self.steps = list(range(unsafe.tensor.shape[1]))
        self.latent_shape = tuple(unsafe.tensor.shape[2:])
        self.sampling = recorded_sampling(unsafe)
        self._rows = {"unsafe": unsafe.rows, "normal": normal.rows}
        self.categories, self.groups = [], []
        if labels:
            self._rows = {"unsafe": labels.rows(), "normal": list(range(normal.tensor.shape[0]))}
            for kind, needed in (only or {}).items():
                self._rows[kind] = sorted(set(needed).intersection(self._rows[kind]))
            unsafe.need_rows(self._rows["unsafe"])
            normal.need_rows(self._rows["normal"])
            self.label_file = self.labelled_by = labels.path
            self.categories = labels.categories
            self.groups = list(range(1, len(labels.categories) + 1))
        self.made_by = {
            "label_sha256": sha256(labels.path) if labels else None,
            "pred_x0_made_by": unsafe.fingerprint,
            "normal_pred_x0_made_by": normal.fingerprint,
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
        missing = sorted(set(rows) - set(self._rows[kind]))
        if not missing:
            return
        holder = f"{self.paths[kind]}: does not hold"
        if kind == "unsafe" and self.labels:
            holder = f"{self.labels.path}: no category has"
        raise InputError(
            f"{holder} held-out row {missing[0]}; run gen_eval_set.py with the labels in use"
        )

    def files(self):
        """Return the files that the clips are made from.

        None where a model decodes them: its weight files are not known here.
        """
        if self.representation == "video":
            return None
        return [file for path in self.paths.values() for file in recording_files(path)]

    def place(self, kind, step):
        """What a message calls the clips of one kind and step."""
        return f"{self.paths[kind]}, step {step}"

    def group_place(self, group, step):
        """What a message calls the clips of one category and step."""
        return f"{self.labels.path}: category '{self.categories[group - 1]}'"

    def _parts(self, kind, rows, step):
        """Yield many rows at a time.

        Each clip is one piece of the file. The system also reads the pieces around it, which are
        the next steps: going from step to step reads the file about once.
        """
        tensor = self._tensor(kind)
        at_once = max(1, VALUES_AT_ONCE // tensor[0, 0].numel())
        if self.decode:
            at_once = decoded_at_once(tensor)
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            x0 = torch.stack([tensor[row, step] for row in part])

            def name_of(number, part=part):
                return f"{self.paths[kind]}: row {part[number]}, step {step}"

            if self.decode:
                need_finite(x0, name_of)
            yield x0, name_of

    def _tensor(self, kind):
        if kind not in self._files:
            self._files[kind] = open_x0_file(self.paths[kind])
        return self._files[kind].tensor
