"""Recordings of three unsafe categories and of normal videos, to be built into a dataset."""

import hashlib
from pathlib import Path

import pytest
import yaml

import build_eval_set
import build_x0
import gen_eval_set
from tests.worlds.recording_world import record, write_labels
from tests.worlds.refusals import refused

LABELS = {"weird": [0, 3, 5, 7, 11], "gory": [1, 3, 8], "odd": [2, 9, 5]}
ROWS = {"unsafe": 13, "normal": 8}


class BuildWorld:
    """Two recordings, labels and a build_x0.yaml in `folder`; x0 holds what was recorded."""

    def __init__(self, folder):
        self.folder, self.data = folder, folder / "train_detector_data"
        self.config = folder / "build_x0.yaml"
        self.x0 = {
            name: record(folder / name / "pred_x0.pth", rows, seed)
            for seed, (name, rows) in enumerate(ROWS.items())
        }
        self.labels = write_labels(folder / "label.csv", LABELS)
        self.settings = {
            "pred_x0": str(folder / "unsafe/pred_x0.pth"),
            "normal_pred_x0": str(folder / "normal/pred_x0.pth"),
            "label_file_dir": str(self.labels),
            "out_dir": str(self.data),
            "representation": "latent",
        }
        self.write_config()

    def write_config(self, **changes):
        self.config.write_text(yaml.safe_dump({**self.settings, **changes}))

    def build(self, *flags):
        return build_x0.main(["--config", str(self.config), *map(str, flags)])

    def split(self, *flags):
        save_path = str(self.folder / "eval.pth")
        return gen_eval_set.main(
            ["--config", str(self.config), "--save_path", save_path, *map(str, flags)]
        )

    def evaluation(self, *flags):
        here = ["--eval_dir", str(self.folder), "--save_dir", str(self.folder)]
        return build_eval_set.main(["--config", str(self.config), *here, *map(str, flags)])


@pytest.fixture
def world(tmp_path):
    return BuildWorld(tmp_path)


def refuses(run, capsys, *named):
    """Run a command, which must refuse its input and say nothing else: see `refused`."""
    capsys.readouterr()
    refused(run(), capsys, *named, alone=True)


def tree(folder):
    """{relative path: hash} of the visible files below a folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file() and not p.name.startswith(".")
    }
