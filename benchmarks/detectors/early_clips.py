"""Clips that tell more than x0 of one step: x0 of the step before, or the guidance direction, as
more channels."""

import torch

from lvd.data.labels import read_recorded_labels
from lvd.data.recorded_clips import RecordedClips
from lvd.data.transforms import ClipSpec, prepare_clips
from lvd.errors import InputError
from lvd.x0.file import open_x0_file

GUIDANCE = "guidance.pth"  # beside pred_x0.pth, see save_guidance in docs/sampling.md
LATENT = "latent"  # the representation that all of this is for


class PreviousStep:
    """Reads the clips of the step before the one that is asked for; before step 0 all is zero.

    Args:
        source: of the clips (lvd.data.sources).
    """

    def __init__(self, source):
        self.source = source

    def read(self, kind, rows, step):
        """Return clips float16 [N, C, F, h, w]."""
        clips = self.source.read(kind, rows, max(0, step - 1))
        return clips if step else torch.zeros_like(clips)


class Channels:
    """A source (lvd.data.sources) whose clips have the channels of several readers.

    Rows, categories and steps are those of `source`.

    Args:
        source: of x0 clips.
        readers: {name: reader}; a reader has the method `read(kind, rows, step)`.
    """

    def __init__(self, source, readers):
        self.source, self.readers = source, readers
        self.made_by = {**source.made_by, "channels": list(readers)}

    def __getattr__(self, name):
        return getattr(self.source, name)

    def read(self, kind, rows, step, model=None):
        """Return clips float16 [N, C, F, h, w], C: the channels of all readers in turn."""
        parts = [reader.read(kind, rows, step) for reader in self.readers.values()]
        return prepare_clips(torch.cat(parts, 1), ClipSpec(LATENT, model=model))

    def clip_shape(self, kind, row, step):
        """Return (C, F, h, w)."""
        return tuple(self.read(kind, [row], step).shape[1:])


def open_channels(settings, names):
    """Return the source of clips with some channels.

    Args:
        settings: of the recordings' YAML (benchmarks.common.needs.read_recordings).
        names: of "x0", "x0 before", "guidance" and "guidance before".

    Raises:
        InputError: the guidance was not recorded, or not with this x0.
    """
    if settings["representation"] != LATENT:
        raise InputError(
            f"representation {settings['representation']}: benchmarks/detectors/early.py reads "
            f"{LATENT} clips"
        )
    labels = read_recorded_labels(settings["label_file_dir"], settings["pred_x0"])
    x0 = RecordedClips(settings["pred_x0"], settings["normal_pred_x0"], labels)
    known = {"x0": x0}
    if any(name.startswith("guidance") for name in names):
        known["guidance"] = RecordedClips(
            guidance_of(settings["pred_x0"]), guidance_of(settings["normal_pred_x0"]), labels
        )
    readers = {}
    for name in names:
        reader = known[name.removesuffix(" before")]
        readers[name] = PreviousStep(reader) if name.endswith(" before") else reader
    return Channels(x0, readers)


def guidance_of(pred_x0):
    """Return the path of the guidance that was recorded with an x0 file."""
    path = pred_x0.with_name(GUIDANCE)
    if not path.exists():
        raise InputError(
            f"{path}: no such file; sample with save_guidance=true, or leave the ways with "
            "guidance out of --ways"
        )
    if open_x0_file(path).fingerprint != open_x0_file(pred_x0).fingerprint:
        raise InputError(f"{path}: not recorded by the run that made {pred_x0.name} beside it")
    return path
