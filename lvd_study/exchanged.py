"""Recordings in which some unsafe and normal videos have changed places."""

import os
import shutil

from lvd.utils.progress import progress
from lvd.x0.file import create_x0_file, open_x0_file

FOLDER, PARTIAL = "recordings", "recordings.partial"
AT_ONCE = 64 << 20  # bytes of rows that are written with one flush
OTHER = {"unsafe": "normal", "normal": "unsafe"}


def write_exchanged(settings, pairs, out, about):
    """Write copies of two recordings in which videos have changed places.

    What the sidecars say of a row (prompt, seed, timesteps) goes with its video. A folder that is
    there is whole, and is left alone.

    Args:
        settings: DataConfig of the recordings.
        pairs: [(unsafe row, normal row)] that change places.
        out: folder of the copies' folder.
        about: plain dict of how the pairs were drawn, for the sidecars.

    Returns:
        {"unsafe", "normal": path of the copy}.
    """
    folder, partial = out / FOLDER, out / PARTIAL
    if not folder.exists():
        if partial.exists():  # of a run that was stopped
            shutil.rmtree(partial)
        files = {
            "unsafe": open_x0_file(settings.pred_x0),
            "normal": open_x0_file(settings.normal_pred_x0),
        }
        partners = {"unsafe": dict(pairs), "normal": {normal: unsafe for unsafe, normal in pairs}}
        for kind in OTHER:
            path = partial / kind / "pred_x0.pth"
            _write(path, files[kind], files[OTHER[kind]], partners[kind], about)
        os.replace(partial, folder)
    return {kind: folder / kind / "pred_x0.pth" for kind in OTHER}


def delete_exchanged(out):
    """Delete the copies of `write_exchanged`, if they are there."""
    folder, partial = out / FOLDER, out / PARTIAL
    if folder.exists():
        if partial.exists():
            shutil.rmtree(partial)
        os.replace(folder, partial)  # what bears the name is whole
    if partial.exists():
        shutil.rmtree(partial)


def _write(path, own, other, partners, about):
    """Write a copy of X0File `own`; partners: {its row: row of `other` in its place}."""
    shape, dtype = own.tensor.shape, own.tensor.dtype
    meta = {**own.meta, "exchanged": {**about, "of": [own.fingerprint, other.fingerprint]}}
    at_once = max(1, AT_ONCE // (own.tensor[0].numel() * dtype.itemsize))
    with create_x0_file(path, shape[0], shape[1], tuple(shape[2:]), dtype, meta) as writer:
        starts = range(0, len(own.rows), at_once)
        for start in progress(starts, f"{path.parent.name} videos", unit="part"):
            rows = own.rows[start : start + at_once]
            sources = [(other, partners[row]) if row in partners else (own, row) for row in rows]
            x0s = [file.tensor[row] for file, row in sources]
            writer.write_rows(rows, x0s, [file.info.get(row, {}) for file, row in sources])
