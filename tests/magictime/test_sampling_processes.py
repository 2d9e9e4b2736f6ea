"""Sampling by several processes: the same files as by one, bit for bit, whoever dies on the way."""

import json
import os
import signal
import time

import pytest

from lvd.utils.partials import atomic
from lvd.x0.file import open_x0_file
from tests.worlds import forked, launcher, magictime_world

SCRIPT = magictime_world.ROOT / "MagicTime" / "inference_magictime.py"
pytestmark = pytest.mark.slow


def flags(config, out):
    return ["--config", config, "--save-path", out, "--gpu_num", "-1"]


def assert_same_files(folder, other):
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    for name in names:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def by_one(world, tmp_path_factory):
    """(folder, config) of eleven prompts in batches of two, by one process."""
    folder = tmp_path_factory.mktemp("by_one")
    config = magictime_world.write_config(
        folder / "c.yaml", world[0], prompt=[f"p {i}" for i in range(11)], steps=20
    )
    done = forked.run(SCRIPT, *flags(config, folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder / "out", config


def test_two_processes_make_what_one_makes(by_one, tmp_path):
    expected, config = by_one
    done = launcher.run(SCRIPT, *flags(config, tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("11 new, 11 of 11 prompts done") == 1  # one summary
    assert_same_files(tmp_path / "out", expected)


def test_a_killed_process_loses_its_batch_and_the_next_run_fills_the_holes(by_one, tmp_path):
    expected, config = by_one
    out = tmp_path / "out"
    launch = forked.start(SCRIPT, *flags(config, out), processes=2)
    deadline = time.time() + 120
    while (
        len(list((out / "videos").glob("[0-9]*.mp4"))) < 3
        and time.time() < deadline
        and launch.poll() is None
    ):
        time.sleep(0.01)
    victim = launch.pids[1]
    os.kill(victim, signal.SIGKILL)
    _, err = launch.communicate(timeout=120)
    assert launch.returncode != 0, err
    whole = open_x0_file(out / "pred_x0.pth").rows
    assert 0 < len(whole) < 11
    kept = {row: (out / "videos" / f"{row:04d}.mp4").stat().st_mtime_ns for row in whole}
    with atomic(tmp_path / "0010.mp4") as mine:
        name = mine.name.replace(f"-{os.getpid()}.", f"-{victim}.")
        mine.touch()
    (out / "videos" / name).write_bytes(b"half")  # as if it had been at a video when it was killed
    done = forked.run(SCRIPT, *flags(config, out))
    assert done.returncode == 0 and f"{11 - len(whole)} new, 11 of 11" in done.stdout
    assert {row: (out / "videos" / f"{row:04d}.mp4").stat().st_mtime_ns for row in whole} == kept
    assert not list(out.rglob("*.partial*"))
    assert_same_files(out, expected)


def test_fresh_seeds_are_drawn_once_for_all_processes(world, tmp_path):
    config = magictime_world.write_config(
        tmp_path / "c.yaml", world[0], seed=[-1], seed_per_prompt=False, steps=1
    )
    done = forked.run(SCRIPT, *flags(config, tmp_path / "out"), processes=2)
    assert done.returncode == 0, done.stderr
    x0 = open_x0_file(tmp_path / "out" / "pred_x0.pth")
    assert [x0.info[row]["seed"] for row in (0, 1, 2)] == json.loads(
        (tmp_path / "out" / "seeds.json").read_text()
    )
    again = forked.run(SCRIPT, *flags(config, tmp_path / "again"))
    assert again.returncode == 0 and json.loads(
        (tmp_path / "again" / "seeds.json").read_text()
    ) != [x0.info[row]["seed"] for row in (0, 1, 2)]


def test_a_bad_config_ends_all_processes(tmp_path, world):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], steps=0)
    done = forked.run(SCRIPT, *flags(config, tmp_path / "out"), processes=2)
    assert done.returncode != 0 and "error: " in done.stderr and "steps=0" in done.stderr
    assert not (tmp_path / "out").exists()
