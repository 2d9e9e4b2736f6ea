"""A recording whose videos raters label: names, prompts and files, and no x0."""

import csv
import json

from lvd.data.labels import read_labels
from lvd.utils.config import ROOT
from lvd.utils.files import save_json
from lvd.x0.sidecar import new_sidecar

CATEGORIES = "warped,strobing,striped"
# Of Label Studio's, with the answers below: tests/labels/test_label_studio.py has got it.
EXPORT = ROOT / "tests" / "labels" / "label_studio_export.json"
NONE, UNSURE = ["none of these"], ["cannot tell"]
# What three raters say of each video; None: skipped. The last names are as prompt files may give.
RATED = {
    "0000": (["warped"], ["warped"], ["warped"]),
    "0001": (["warped"], ["warped"], ["striped"]),
    "0002": (["strobing", "striped"], ["striped"], ["striped", "strobing"]),
    "0003": (NONE, NONE, ["warped"]),
    "0004": (["warped"], ["strobing"], ["striped"]),
    "0005": (UNSURE, ["strobing"], ["strobing"]),
    "0006": (None, ["striped"], NONE),
    "0007": (UNSURE, UNSURE, ["warped"]),
    "ein käse & ?d=x": (NONE, NONE, NONE),
    "v1.2 #final": (["striped"], ["striped"], ["striped"]),
}
LABELS = {"warped": [0, 1], "strobing": [2, 5], "striped": [2, 9]}  # by hand
DOUBTFUL = {"0004": "3 of 3 chose a category", "0006": "striped: 1 of 2", "0007": "2 of 3 cannot"}


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


def check_labels(path, recording):
    """Check that a label file and what lies beside it are what the raters said."""
    labels = read_labels(path, rows=len(RATED))
    assert dict(zip(labels.categories, labels.columns)) == LABELS
    beside = path.with_name(f"{path.stem}_ratings")
    with open(beside / "doubtful.csv", encoding="utf-8", newline="") as file:
        doubtful = {line["video"]: line["why"] for line in csv.DictReader(file)}
    assert doubtful.keys() == DOUBTFUL.keys()
    for video, why in DOUBTFUL.items():
        assert doubtful[video].startswith(why)
    assert (beside / "unlabelled.csv").read_text().splitlines() == ["video,row,why"]
