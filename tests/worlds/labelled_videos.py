"""A recording whose videos raters label: names, prompts and files, and no x0."""

import json

from lvd.utils.files import save_json
from lvd.x0.sidecar import new_sidecar

CATEGORIES = "warped,strobing,striped"


def make_recording(folder, names, planned=None, suffix=".mp4"):
    """Write a recording's sidecar and videos; the content of a video is its name.

    Args:
        folder: to write.
        names: of the videos; one that is None has the number of its row as a name.
        planned: number of rows; None: all are finished.
        suffix: of the videos.

    Returns:
        The folder.
    """
    sidecar = new_sidecar((planned or len(names), 4, 4, 2, 2, 2), "torch.float16", {})
    for row, name in enumerate(names):
        info = {"prompt": f"<b>shape</b> {row}", "seed": 1}
        sidecar["rows"][str(row)] = info if name is None else {**info, "video": name}
        path = folder / "videos" / f"{name or f'{row:04d}'}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"video {row}".encode())
    save_json(sidecar, folder / "pred_x0.json")
    return folder


def write_lines(path, ratings):
    """Write ratings, [(video, rater, [category, ...])], as JSON lines; returns the path."""
    lines = [dict(zip(("video", "rater", "categories"), rating)) for rating in ratings]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
