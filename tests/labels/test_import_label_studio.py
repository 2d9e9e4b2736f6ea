"""A true export of Label Studio, as tests/labels/test_label_studio.py has got it from a server."""

import csv
from pathlib import Path

from lvd.data.labels import read_labels

EXPORT = Path(__file__).with_name("label_studio_export.json")
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
