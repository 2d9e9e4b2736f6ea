"""The videos of a recording, by name. Neither torch tensors nor weights are needed for them.

A lab may label on a machine that has `videos/` and `pred_x0.json` alone: x0 itself is not read.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from lvd.data.finished_clips import VIDEOS
from lvd.errors import InputError, plural, shorten
from lvd.utils.files import sha256
from lvd.utils.progress import progress
from lvd.x0.file import open_x0_file
from lvd.x0.sidecar import load_sidecar, sidecar_path, video_name, whole_rows
from lvd_labels.names import without_suffix

RECORDING, PLAYED = "pred_x0.pth", ".mp4"
DIGITS = 16  # hex digits of a video's hash: enough to tell that a file was replaced


@dataclass
class Videos:
    """The videos of a recording.

    Attributes:
        folder: of the recording, absolute.
        rows: {video name: row}, in the order of the rows.
        prompts: {video name: prompt, or None where the recording does not say}.
        planned: how many videos the recording has when it is finished.
        fps, height: frames per second, and pixels; None where the recording does not say.
    """

    folder: Path
    rows: dict
    prompts: dict
    planned: int
    fps: float | None = None
    height: int | None = None

    def path(self, name):
        """Return the path of a video, whether it is there or not."""
        return self.folder / VIDEOS / f"{name}{PLAYED}"

    def digest(self, name):
        """Return the beginning of the SHA-256 of a video's file; None: there is no such file."""
        path = self.path(name)
        if not path.is_file():
            return None
        return sha256(path)[:DIGITS]

    def digests(self, names):
        """Return {name: digest} of some videos."""
        shown = progress(names, "videos read", unit="video", disable=not names)
        return {name: self.digest(name) for name in shown}

    def need_played(self, names):
        """Check that videos can be shown in a browser.

        Raises:
            InputError: some are not there as mp4 files.
        """
        missing = [name for name in names if not self.path(name).is_file()]
        if not missing:
            return
        where, named = self.folder / VIDEOS, _named(missing)
        if all(self.path(name).with_suffix(".gif").is_file() for name in missing):
            raise InputError(
                f"{where}: {plural(len(missing), 'video')} as gif only ({named}), a browser's "
                "player needs mp4; sample with `format: mp4` or `both`, or convert them (ffmpeg)"
            )
        raise InputError(
            f"{where}: {plural(len(missing), 'video')} of the recording not there as mp4 "
            f"({named}); put them back"
        )


def read_videos(recording):
    """Read which videos a recording has.

    Args:
        recording: its folder, or its pred_x0.pth.

    Returns:
        Videos.

    Raises:
        InputError: there is no recording, or two videos of it have the same name, or names that
            differ by a suffix alone.
    """
    path = Path(recording)
    path = path if path.suffix == ".pth" and not path.is_dir() else path / RECORDING
    if sidecar_path(path).is_file():
        infos, planned, config = _infos(path)
    elif path.is_file():
        file = open_x0_file(path)  # of another program: its videos have the numbers of their rows
        infos, planned, config = {row: {} for row in file.rows}, len(file.rows), {}
    else:
        raise InputError(
            f"--recording {recording}: no {sidecar_path(path).name} there; the folder of a "
            "recording is needed, as MagicTime/inference_magictime.py writes it"
        )
    rows, prompts, known = {}, {}, {}
    for row in sorted(infos):
        name = video_name(row, infos[row])
        other = known.setdefault(without_suffix(name), name)
        if other in rows:
            both = f"both named {shorten(name)}"
            if other != name:
                both = f"named {shorten(other)} and {shorten(name)}: a table could mean either"
            raise InputError(f"{sidecar_path(path)}: rows {rows[other]} and {row} are {both}")
        rows[name], prompts[name] = row, infos[row].get("prompt")
    if not rows:
        raise InputError(f"--recording {recording}: no video of it is finished yet")
    fps, height = _number(config.get("fps")), _number(config.get("H"))
    return Videos(Path(os.path.realpath(path.parent)), rows, prompts, planned, fps, height)


def _infos(path):
    """{row: info} of the whole rows, how many rows are planned, and the sampling's config."""
    sidecar = load_sidecar(path)
    return whole_rows(path, sidecar), sidecar["shape"][0], sidecar["meta"].get("config", {})


def _number(value):
    """A positive number of reasonable size; None for anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and 0 < value <= 10_000 else None


def _named(names):
    return ", ".join(shorten(name)[1:-1] for name in names[:3]) + ", ..." * (len(names) > 3)
