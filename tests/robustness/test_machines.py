"""Several machines of one launch: the bits of one, whatever dies; what they cannot do together is
told in one line on each, before anything is computed."""

import os
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
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(world, tmp_path_factory):
    """A folder with c.yaml, detectors of its recording, and what one process makes of both."""
    folder = tmp_path_factory.mktemp("home")
    magictime_world.write_config(
        folder / "c.yaml", world[0], prompt=[f"p {i}" for i in range(6)], steps=STEPS
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


def test_accelerate_launch_on_two_machines(home, tmp_path):
    """The launcher's own processes; each machine has the config in its working folder."""
    out = tmp_path / "out"
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        (folder / "mine.yaml").write_bytes((home / "c.yaml").read_bytes())
    one, two = launcher.run_machines(SAMPLE, *sampling(home, out, "mine.yaml"), folders=folders)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert "6 new, 6 of 6 prompts done" in one.stdout and "processes: 2" in one.stdout
    assert two.stdout == "" and "prompts: " not in two.stderr  # process 0 alone tells
    need_same_files(out, home)


def test_a_killed_process_loses_its_batch_and_the_same_command_goes_on(home, tmp_path):
    """Two processes on each of two machines; the launcher of a machine ends its own only."""
    out = tmp_path / "out"
    words = sampling(home, out)
    there = {"folders": [tmp_path / "one", tmp_path / "two"], "processes": 2}
    started = machines.start(SAMPLE, *words, **there)
    deadline = time.monotonic() + 60
    while not list((out / "videos").glob("[0-9]*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(started[1].pids[0], signal.SIGKILL)
    one, two = machines.finish(started)
    assert one.returncode == 2 and two.returncode == -signal.SIGKILL
    for done in (one, two):
        assert all("another process of this run has ended" in line for line in errors(done))
    assert errors(one)
    for done in machines.run(SAMPLE, *words, **there):
        assert done.returncode == 0, done.stderr
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
LOCAL_LOCKS = "import fcntl; fcntl.flock = lambda *_: None"
NO_LOCKS = """
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""
OLD_PAGES = """
import os
pwrite = os.pwrite
def whole_page(file, data, offset):
    old = bytearray(4096)
    old[offset:offset + len(data)] = data
    return pwrite(file, bytes(old), 0)
os.pwrite = whole_page
"""
NO_RENAME = """
import os
os.replace = lambda *_: None
"""


@pytest.mark.parametrize(
    "setups, words",
    [
        ({1: LOCAL_LOCKS}, "process 1 on {host}: file locks (flock) of process 0 are not seen"),
        ({0: NO_LOCKS, 1: NO_LOCKS}, "process 0 on {host}: there are no file locks (flock)"),
        ({1: OLD_PAGES}, "bytes that processes write side by side are lost"),
        ({0: NO_RENAME}, "a file that process 0 renamed is not seen"),
    ],
)
def test_file_systems_that_machines_cannot_share(home, tmp_path, setups, words):
    """Such as Lustre with localflock or noflock, and clients that keep old pages."""
    out = tmp_path / "out"
    need_refused(
        home,
        tmp_path,
        out,
        words.format(host=os.uname().nodename),
        setups={number: f"{SOON}\n{setups.get(number, '')}" for number in (0, 1)},
    )
    assert list(out.iterdir()) == []


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


def test_another_folder_on_each_machine(home, tmp_path):
    there = ("--save-path out: process 1 on", "sees another folder", "two/out and not", "one/out")
    need_refused(home, tmp_path, "out", *there, setups={0: SOON, 1: SOON})


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_another_disk_under_the_same_path(home, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    setups = {0: SOON, 1: SOON + ANOTHER_PLACE.format(path=str(out))}
    need_refused(home, tmp_path, out, f"process 1 on {os.uname().nodename} sees", setups=setups)


@pytest.mark.parametrize(
    "key, mine, words",
    [
        ("steps", 5, ("process 1 on", "steps is 5, in process 0 4", "same command")),
        ("prompt", ["p"] * 6, ("process 1 on", "prompts is not the same as in process 0")),
        ("guidance_scale", "much", ("mine.yaml: guidance_scale='much'",)),
        ("code", None, ("process 1 on", "code is not the same as in process 0")),
    ],
)
def test_another_config_or_code_on_one_machine(home, world, tmp_path, key, mine, words):
    for number, folder in enumerate((tmp_path / "one", tmp_path / "two")):
        folder.mkdir()
        changes = {"prompt": [f"p {i}" for i in range(6)], "steps": STEPS}
        if number == 1 and mine is not None:
            changes[key] = mine
        magictime_world.write_config(folder / "mine.yaml", world[0], **changes)
    setups = {1: "import lvd.utils.exchange as ex; ex.CODE = ('*.py',)"} if key == "code" else None
    need_refused(home, tmp_path, tmp_path / "out", *words, config="mine.yaml", setups=setups)
    assert not (tmp_path / "out").exists()


def test_training_on_two_machines(tmp_path):
    world = detector_world.make_world(tmp_path / "world")
    flags = ["--data_dir", world.data, "--eval_dir", world.eval, "--size", "nano", "--epoch", "1"]
    flags += ["--batch_size", "8", "--gpu_num", "-1", "--workers", "1", "--step_num", "0,1"]
    assert forked.run(TRAIN, *flags, "--save_dir", world.save).returncode == 0
    folders = [tmp_path / "one", tmp_path / "two"]
    done = machines.run(TRAIN, *flags, "--save_dir", tmp_path / "save", folders=folders)
    assert [each.returncode for each in done] == [0, 0], done
    for path in world.save.glob("*/*.pth"):
        one = load_torch(path)["state_dict"]
        two = load_torch(tmp_path / "save" / path.relative_to(world.save))["state_dict"]
        assert all(torch.equal(value, two[key]) for key, value in one.items())
    mine = {0: SOON, 1: SOON}
    for each in machines.run(TRAIN, *flags, "--save_dir", "mine", folders=folders, setups=mine):
        assert each.returncode == 2 and "sees another folder" in errors(each)[0]
