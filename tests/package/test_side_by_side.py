"""Several processes of one script: how they start, who hears of Ctrl-C, what is said at the end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lvd.utils.config import ROOT
from tests.worlds.refusals import refused
from tools import side_by_side

SCRIPT = """
import os, sys, time
from pathlib import Path
rank = os.environ.get("RANK", "alone")
told = [os.environ.get(name) for name in ("WORLD_SIZE", "OMP_NUM_THREADS")]
Path(sys.argv[1], rank).write_text(" ".join(map(str, told)))
if rank == "1":
    exec(sys.argv[2])
time.sleep(float(sys.argv[3]))
"""


@pytest.fixture
def script(tmp_path):
    """(path, folder): a script whose processes note in the folder that they have begun."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    begun = tmp_path / "begun"
    begun.mkdir()
    return path, begun


def test_each_process_has_one_thread_and_a_number(script):
    path, begun = script
    assert side_by_side.main(["--processes", "3", str(path), str(begun), "pass", "0"]) == 0
    assert {file.name: file.read_text() for file in begun.iterdir()} == dict.fromkeys("012", "3 1")


def test_one_process_is_no_launch(script):
    path, begun = script
    assert side_by_side.main(["--processes", "1", str(path), str(begun), "pass", "0"]) == 0
    assert {file.name: file.read_text() for file in begun.iterdir()} == {"alone": "None 1"}


@pytest.mark.parametrize(
    "does, words",
    [
        ("print('error: bad row', file=sys.stderr); sys.exit(2)", ["bad row"]),
        ("os.kill(os.getpid(), 9)", ["process 1 of 3", "SIGKILL", "--processes"]),
    ],
)
def test_a_failed_process_ends_the_others(script, does, words):
    """Those would sleep for a minute."""
    path, begun = script
    began = time.monotonic()
    command = [sys.executable, "tools/side_by_side.py", "--processes", "3"]
    done = subprocess.run(
        [*command, path, begun, does, "60"], cwd=ROOT, env=ours(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr
    assert time.monotonic() - began < 50


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_reaches_all_and_is_told_once(script, tmp_path, number, status):
    """Ctrl-C goes to the whole group, SIGTERM to the first process; measure.py notes the step."""
    path, begun = script
    log = tmp_path / "steps.csv"
    words = ["benchmarks/common/measure.py", "--log", log, "--name", "a step", "--", sys.executable]
    words += ["tools/side_by_side.py", "--processes", "2", path, begun, "pass", "60"]
    running = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=ours(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(begun.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    (os.killpg if number == signal.SIGINT else os.kill)(running.pid, number)
    _, said = running.communicate(timeout=60)
    assert said.splitlines() == ["interrupted; run the same command again to go on"]
    assert running.returncode == status
    assert log.read_text().splitlines()[1].endswith(f",{status}")
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        os.killpg(running.pid, 0)


@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5", "٣", "9" * 5000])
def test_a_number_that_is_none(capsys, count):
    status = side_by_side.main([f"--processes={count}", "script.py"])
    refused(status, capsys, "--processes")


def test_a_missing_script(capsys, tmp_path):
    refused(side_by_side.main([str(tmp_path / "no.py")]), capsys, "no.py", "no such file")


def test_a_container_may_use_less_than_the_machine_has(monkeypatch, tmp_path):
    monkeypatch.setattr(side_by_side, "QUOTA", tmp_path / "cpu.max")
    cores = side_by_side.usable_cores()
    assert cores >= 1
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert side_by_side.usable_cores() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert side_by_side.usable_cores() == cores


def ours():
    return {**os.environ, "PYTHONPATH": str(ROOT)}
