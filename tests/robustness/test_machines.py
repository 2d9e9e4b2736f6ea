"""Several machines of one launch: the bits of one, whatever dies; what they cannot do together is
told in one line on each, before anything is computed."""

import os
import shutil
import signal
import time

import pytest
import torch

from lvd.utils.config import ROOT
from lvd.utils.files import load_torch
from lvd.x0.file import open_x0_file
from tests.worlds import detector_world, forked, launcher, machines, magictime_world
from tests.worlds.guard_world import STEPS, facts, write_detectors

SAMPLE = ROOT / "MagicTime" / "inference_magictime.py"
TRAIN = ROOT / "train_mae.py"
SOON = "import lvd.utils.shared_folder as shared_folder; shared_folder.PATIENCE = 0.5"
PROMPTS = [f"p {i}" for i in range(8)]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(world, tmp_path_factory):
    """A folder with c.yaml, detectors of its recording, and what one process makes of both."""
    folder = tmp_path_factory.mktemp("home")
    magictime_world.write_config(
        folder / "c.yaml", world[0], prompt=PROMPTS, steps=STEPS, batch_size=1
    )
    assert forked.run(SAMPLE, *sampling(folder, folder / "plain")[:-6]).returncode == 0
    write_detectors(folder / "detectors", open_x0_file(folder / "plain" / "pred_x0.pth"))
    done = forked.run(SAMPLE, *sampling(folder, folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder


def sampling(home, out, config=None):
    flags = ["--config", config or home / "c.yaml", "--save-path", out, "--gpu_num", "-1"]
    return [*flags, "--guard", home / "detectors", "--lambda", "0.6", "--eta", "3"]


def need_same_files(out, home):
    """The same videos, recording and verdicts as by one process."""
    assert facts(out) == facts(home / "out")
    for folder in (out, home / "out"):
        assert not list(folder.rglob("*.partial*")) and not list(folder.rglob(".shared*"))
    names = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert names == {p.relative_to(home / "out") for p in (home / "out").rglob("*") if p.is_file()}
    for name in names:
        if name.name != "verdicts.jsonl":  # its lines tell times, in the order of the batches
            assert (out / name).read_bytes() == (home / "out" / name).read_bytes(), name


def errors(done):
    assert "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def test_two_machines_make_what_one_makes_whoever_dies(home, tmp_path):
    """Two processes on each of two machines, one of which is killed; then accelerate's own launch
    of one on each goes on. The config lies in the working folder of each machine."""
    out, folders = tmp_path / "out", [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        shutil.copy(home / "c.yaml", folder / "mine.yaml")
    words = sampling(home, out, "mine.yaml")
    started = machines.start(SAMPLE, *words, folders=folders, processes=2)
    deadline = time.monotonic() + 60
    while not list((out / "videos").glob("[0-9]*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(started[1].pids[0], signal.SIGKILL)
    one, two = machines.finish(started)
    assert one.returncode == 2 and two.returncode == -signal.SIGKILL
    assert errors(one)
    for line in errors(one) + errors(two):
        assert "another process of this run has ended" in line and "goes on" in line
    done = len(open_x0_file(out / "pred_x0.pth").rows)
    assert done < 8
    one, two = launcher.run_machines(SAMPLE, *words, folders=folders)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert "8 of 8 prompts done" in one.stdout and "processes: 2" in one.stdout
    assert two.stdout == "" and "prompts: " not in two.stderr  # process 0 alone tells
    need_same_files(out, home)


def test_a_machine_that_never_joins(home, tmp_path):
    hasty = "import datetime; from lvd.utils import processes\n"
    hasty += "processes.CONNECT = datetime.timedelta(seconds=2)"
    started = machines.start(
        SAMPLE,
        *sampling(home, tmp_path / "out"),
        folders=[tmp_path / "one", tmp_path / "two"],
        setups={0: hasty, 1: "import time; time.sleep(60)"},
    )
    out, err = started[0].communicate()
    started[1].kill()
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "process 0 of 2: no connection to the others" in line and len(line) < 300
    assert not (tmp_path / "out").exists()


ANOTHER_PLACE = """
import ctypes, subprocess
assert ctypes.CDLL(None).unshare(0x20000) == 0  # CLONE_NEWNS: mounts of its own
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", {path!r}], check=True)
"""


def need_refused(home, tmp_path, out, *words, config=None, setups=None):
    """Each machine says the same in one line, and nothing is sampled; returns the lines."""
    two = machines.run(
        SAMPLE,
        *sampling(home, out, config),
        folders=[tmp_path / "one", tmp_path / "two"],
        setups=setups,
    )
    for done in two:
        assert done.returncode == 2, done.stderr
        (line,) = errors(done)
        assert len(line) < 300 and all(word in line for word in words), line


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_another_disk_under_the_same_path(home, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    setups = {0: SOON, 1: SOON + ANOTHER_PLACE.format(path=str(out))}
    need_refused(home, tmp_path, out, f"process 1 on {os.uname().nodename} sees", setups=setups)


def test_another_config_on_one_machine(home, world, tmp_path):
    for steps, folder in ((STEPS, tmp_path / "one"), (STEPS + 1, tmp_path / "two")):
        folder.mkdir()
        magictime_world.write_config(
            folder / "mine.yaml", world[0], prompt=PROMPTS, steps=steps, batch_size=1
        )
    words = ("process 1 on", "steps is 5, in process 0 4", "same command")
    need_refused(home, tmp_path, tmp_path / "out", *words, config="mine.yaml")
    assert not (tmp_path / "out").exists()


def test_training_on_two_machines(tmp_path):
    """By one launch, and by a plain command for some of the steps on each: the same detectors."""
    world = detector_world.make_world(tmp_path / "world")
    flags = ["--data_dir", world.data, "--eval_dir", world.eval, "--size", "nano", "--epoch", "1"]
    flags += ["--batch_size", "8", "--gpu_num", "-1", "--workers", "1"]
    alone = [*flags, "--save_dir", world.save, "--step_num"]
    parts = [forked.start(TRAIN, *alone, steps) for steps in ("0", "1")]
    assert [part.wait() for part in parts] == [0, 0]
    flags += ["--step_num", "0,1"]
    folders = [tmp_path / "one", tmp_path / "two"]
    done = machines.run(TRAIN, *flags, "--save_dir", tmp_path / "save", folders=folders)
    assert [each.returncode for each in done] == [0, 0], done
    assert "trained now: 4" in done[0].stdout and done[1].stdout == ""
    names = {path.relative_to(world.save) for path in world.save.glob("*/*.pth")}
    assert len(names) == 4
    for name in names:
        one, two = (
            load_torch(folder / name)["state_dict"] for folder in (world.save, tmp_path / "save")
        )
        assert all(torch.equal(value, two[key]) for key, value in one.items())
    for folder in (world.save, tmp_path / "save"):
        assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 4
