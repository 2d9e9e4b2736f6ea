"""build_x0.py by several processes: the files of one process, whoever dies on the way."""

import os
import signal
import time

import pytest

from lvd.utils.config import ROOT
from tests.worlds import forked, machines
from tests.worlds.build_world import LABELS, tree, world  # noqa: F401 (a fixture)
from tests.worlds.recording_world import write_labels

SCRIPT = ROOT / "build_x0.py"
SOON = "import lvd.utils.shared_folder as shared_folder; shared_folder.PATIENCE = 0.5"
# Each clip takes a while, and the second process's take ever: it is killed with some of them made.
SLOW = """
import time
from lvd.data.clip_folders import ClipWriter
real = ClipWriter._write
def slow(self, row, paths, made=[]):
    made.append(row)
    time.sleep(0.02 if len(made) < 3 else 60)
    return real(self, row, paths)
ClipWriter._write = slow
"""
pytestmark = pytest.mark.slow


def test_two_processes_write_the_files_of_one_also_after_one_was_killed(world, tmp_path):  # noqa: F811
    """The label file is corrected before they go on: process 0 alone brings the folder up to
    date."""
    many = tmp_path / "many"
    words = ["--config", world.config, "--out_dir", many]
    folders = [tmp_path / "one", tmp_path / "two"]
    started = machines.start(SCRIPT, *words, folders=folders, setups={1: SLOW})
    deadline = time.monotonic() + 60
    while len(list(many.rglob("[0-9]*.pt"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(started[1].pids[0], signal.SIGKILL)
    one, two = machines.finish(started)
    assert two.returncode == -signal.SIGKILL and one.returncode == 2, one.stderr
    assert "another process of this run has ended" in one.stderr
    assert not (many / "built.json").exists()

    write_labels(world.labels, {**LABELS, "odd": [2, 9, 6]})
    done = forked.run(SCRIPT, *words, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dataset built") == 1 and "processes: 2" in " ".join(
        done.stdout.split()
    )
    assert "clips of process 0 of 2" in done.stderr
    assert world.build() == 0
    assert tree(many) == tree(world.data)
    assert not list(many.rglob("*.partial*")) and not list(many.rglob(".shared*"))


def test_processes_that_would_write_other_clips_are_refused(world, tmp_path):  # noqa: F811
    """The label file of the second machine is another one; then its folder is."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, columns in zip(folders, (LABELS, {**LABELS, "odd": [2]}), strict=True):
        folder.mkdir()
        write_labels(folder / "label.csv", columns)
    words = ["--config", world.config, "--label_file_dir", "label.csv", "--out_dir", "mine"]
    for named in ("label file is not the same as in process 0", "sees another folder"):
        done = machines.run(SCRIPT, *words, folders=folders, setups={0: SOON, 1: SOON})
        for machine in done:
            assert machine.returncode == 2 and named in machine.stderr, machine.stderr
            assert "Traceback" not in machine.stderr
        assert not list(tmp_path.rglob("config.yaml"))
        write_labels(folders[1] / "label.csv", LABELS)
