"""train_mae.py in several processes of one `accelerate launch` trains what one process trains."""

import csv
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import train_mae
from lvd.training.grid_run import part_of
from lvd.training.job import Job
from lvd.utils.config import ROOT
from lvd.utils.files import load_torch
from lvd.utils.processes import Processes
from tests.worlds import forked, launcher
from tests.worlds.detector_world import STEPS, copy_world, make_world

FAST = ["--size", "nano", "--epoch", "3", "--batch_size", "8", "--gpu_num", "-1", "--workers", "1"]
ALL = {f"{group}/{step}.pth" for group in (1, 2) for step in range(STEPS)}


def flags(world, save, *more):
    return [
        "--data_dir",
        str(world.data),
        "--eval_dir",
        str(world.eval),
        "--save_dir",
        str(save),
        *FAST,
        *more,
    ]


def start(world, save, *more):
    """The command in two processes, started and not waited for."""
    return forked.start(ROOT / "train_mae.py", *flags(world, save, *more), processes=2)


def finish(process):
    """(exit status, stdout, lines of stderr) of a command."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, re.split(r"[\r\n]+", err)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The dataset, and its six detectors as one process trains them."""
    world = make_world(tmp_path_factory.mktemp("world"))
    assert train_mae.main(flags(world, world.save)) == 0
    return world


def found(save):
    return {path.relative_to(save).as_posix() for path in save.rglob("*.pth")}


def table(save):
    """metrics.csv without the time that each took."""
    with open(save / "metrics.csv", newline="") as f:
        return [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in csv.DictReader(f)
        ]


def same_as_alone(world, save):
    assert found(save) == ALL
    for name in ALL:
        one, many = load_torch(world.save / name), load_torch(save / name)
        assert all(
            torch.equal(value, many["state_dict"][key]) for key, value in one["state_dict"].items()
        ), name
        assert one["about"]["data_sha256"] == many["about"]["data_sha256"]
    assert table(save) == table(world.save) and len(table(save)) == 6


@pytest.mark.slow
def test_two_processes_train_the_detectors_of_one(world, tmp_path):
    process = launcher.start(ROOT / "train_mae.py", *flags(world, tmp_path))
    status, out, err = finish(process)
    assert status == 0, err
    assert out.count("detectors trained") == 1 and "trained now: 6" in out
    assert any(line.startswith("detectors: 6 of 6, ") for line in err)
    same_as_alone(world, tmp_path)
    assert (tmp_path / "train.yaml").read_text() == (world.save / "train.yaml").read_text()


def running(text):
    """Ids of the processes whose command line holds `text`."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            if text in (folder / "cmdline").read_bytes().decode(errors="replace"):
                found.add(int(folder.name))
    return found


def workers_of(pid):
    """Ids of the processes that `pid` has spawned to train."""
    found = set()
    for child in running("spawn_main"):
        with suppress(OSError):
            if f"PPid:\t{pid}\n" in Path(f"/proc/{child}/status").read_text():
                found.add(child)
    return found


def wait_for_the_first(process, save):
    while not found(save) & ALL:
        assert process.poll() is None, finish(process)
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(world, tmp_path):
    """The same command goes on; no detector is trained twice."""
    process = start(world, tmp_path)
    wait_for_the_first(process, tmp_path)
    process.kill()
    kept = {name: (tmp_path / name).stat().st_mtime_ns for name in found(tmp_path) & ALL}
    assert kept
    status, out, err = finish(start(world, tmp_path))
    assert status == 0, err
    assert f"trained now: {6 - len(kept)}" in out and f"found finished: {len(kept)}" in out
    assert kept == {name: (tmp_path / name).stat().st_mtime_ns for name in kept}
    for partial in tmp_path.rglob("*.partial*"):
        partial.unlink()
    same_as_alone(world, tmp_path)


@pytest.mark.slow
def test_machines_without_a_common_folder(world, tmp_path):
    """The only detector is the second process's, and would not be where the first looks: said
    before it is trained."""
    script = tmp_path / "train_in_my_folder.py"
    script.write_text(
        f"import os, sys\nfolder = {str(tmp_path)!r} + os.environ['RANK']\n"
        f"os.makedirs(folder)\nos.chdir(folder)\nimport train_mae\n"
        "from lvd.utils import shared_folder\nshared_folder.PATIENCE = 0.5\n"
        "sys.exit(train_mae.main())\n"
    )
    words = flags(world, "save", "--group_num", "1", "--step_num", "0")
    done = forked.run(script, *words, processes=2)
    assert done.returncode != 0 and "sees another folder than process 0" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.rglob("*.pth"))


@pytest.mark.slow
def test_bad_input_of_one_process_ends_all(world, tmp_path):
    """The clip is read by the second process only; what is wrong is said once."""
    copy = copy_world(world, tmp_path / "copy")
    bad = copy.data / "group2" / str(STEPS - 1) / "13.pt"
    bad.write_bytes(b"not a clip")
    status, out, err = finish(start(copy, tmp_path / "save"))
    errors = [line for line in err if "error: " in line]
    assert status != 0 and sum(str(bad) in line for line in errors) == 1, err
    assert all(
        str(bad) in line or "another process of this run has ended" in line for line in errors
    ), errors
    assert "detectors trained" not in out and f"2/{STEPS - 1}.pth" not in found(tmp_path / "save")
    # what all would refuse is found by the first
    status, _, err = finish(start(copy, world.save, "--lr", "1e-4"))
    assert status != 0 and sum("train.yaml" in line and "lr" in line for line in err) == 1, err


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(world, tmp_path):
    words = flags(world, tmp_path, "--workers", "2", "--epoch", "2000")
    process = forked.start(ROOT / "train_mae.py", *words)
    until = time.monotonic() + 60
    while len(workers := workers_of(process.pids[0])) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert len(workers) == 2
    process.kill()
    while (left := workers & running("spawn_main")) and time.monotonic() < until:
        time.sleep(0.1)
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert not left


@pytest.mark.slow
def test_saved_detectors_are_evaluated_once(world, tmp_path):
    copy = copy_world(world, tmp_path / "copy")
    assert train_mae.main(flags(copy, copy.save, "--no-train")) == 0
    alone = (copy.save / "evaluation.csv").read_text()
    (copy.save / "evaluation.csv").unlink()
    status, out, err = finish(start(copy, copy.save, "--no-train"))
    assert status == 0, err
    assert out.count("saved detectors on held-out clips") == 1
    assert (copy.save / "evaluation.csv").read_text() == alone


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_parts_are_even_and_share_few_steps(count, steps):
    jobs = [
        Job(None, None, [step], {1: "a", 2: "b", 3: "c"}, None, "", None) for step in range(steps)
    ]
    pairs = [
        (job, group) for job in jobs for group in job.categories if (group, job.step) != (2, 0)
    ]  # finished already
    parts = [part_of(pairs, Processes(rank, count)) for rank in range(count)]
    taken = [[(job.step, group) for job in part for group in job.categories] for part in parts]
    assert sum(taken, []) == [(job.step, group) for job, group in pairs]
    assert max(map(len, taken)) - min(map(len, taken)) <= 1
    assert sum(map(len, parts)) <= steps + count - 1  # each boundary splits one step at most
    assert all(
        job.categories[group] == "abc"[group - 1]
        for part in parts
        for job in part
        for group in job.categories
    )


def test_a_plain_run_sets_no_processes_up(world):
    from accelerate import PartialState

    assert train_mae.main(flags(world, world.save)) == 0
    assert not torch.distributed.is_initialized() and not PartialState._shared_state
