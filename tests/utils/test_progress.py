"""Progress: a bar on a terminal, few plain lines in a log file."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from lvd.utils import progress as module
from lvd.utils.progress import progress

SCRIPT = """
from time import sleep
from lvd.utils.progress import progress
for number in (bar := progress(range(500), "clips", unit="clip")):
    bar.set_postfix_str(f"clip {number}")
    sleep(0.002)
"""


class Clock:
    """Stands in for the module `time`."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def lines_of(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_pipe_gets_few_lines_and_no_carriage_returns():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert b"\r" not in run.stderr and b"\x1b" not in run.stderr
    lines = run.stderr.decode().splitlines()
    assert 2 <= len(lines) <= 12
    assert lines[0] == "clips: 0 of 500"
    assert lines[-1].startswith("clips: 500 of 500, 0:0") and lines[-1].endswith(", clip 499")


def test_a_terminal_gets_a_bar():
    main, terminal = pty.openpty()
    size = struct.pack("4H", 24, 80, 0, 0)  # rows, columns
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(main, 65536):
            shown += part
    except OSError:  # Linux: the other end is closed
        pass
    os.close(main)
    assert process.wait(timeout=60) == 0
    assert b"\rclips: " in shown and b"100%|" in shown and b"500/500" in shown


def test_a_line_every_tenth_of_the_work_with_the_time_left(clock, capsys):
    for _ in progress(range(200), "detectors", unit="detector"):
        clock.now += 1
    lines = lines_of(capsys)
    assert len(lines) == 11
    assert lines[0] == "detectors: 0 of 200"
    assert lines[1] == "detectors: 20 of 200, 0:20, 1 s each, about 3:00 left"
    assert lines[-1] == "detectors: 200 of 200, 3:20, 1 s each"


def test_slow_work_says_every_half_minute_that_it_lives(clock, capsys):
    with progress(None, "prompts", unit="video", total=100, initial=40) as bar:
        for step in range(60):
            clock.now += 2
            bar.set_postfix_str(f"step {step + 1}/60", refresh=False)
            bar.update(0)
        bar.update(8)
    assert lines_of(capsys) == [
        "prompts: 40 of 100",
        "prompts: 40 of 100, step 15/60",
        "prompts: 40 of 100, step 30/60",
        "prompts: 40 of 100, step 45/60",
        "prompts: 40 of 100, step 60/60",
        "prompts: 48 of 100, 2:00, 15 s each, about 13:00 left, step 60/60",
    ]
    assert bar.n == 48


def test_hours_bytes_and_an_unknown_total(clock, capsys):
    with progress(None, "hashing", unit="B", total=4 * 10**9) as bar:
        clock.now += 7384
        bar.update(10**9)
    with progress(None, "commands") as bar:
        clock.now += 9
        bar.update()
    assert lines_of(capsys) == [
        "hashing: 0.00B of 4.00GB",
        "hashing: 1.00GB of 4.00GB, 2:03:04, 135kB a second, about 6:09:12 left",
        "commands: 0",
        "commands: 1, 0:09, 9 s each",
    ]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.00234, "0.0023 s"), (0.0999, "0.1 s"), (1.234, "1.2 s"), (98.7, "99 s"), (130, "2:10")],
)
def test_the_mean_seconds_of_one_item(clock, capsys, seconds, told):
    with progress(None, "clips", total=50) as bar:
        for took in (0, 2 * seconds):  # the second item is slow; the mean is what counts
            clock.now += took
            bar.update()
    assert f", {told} each, about " in lines_of(capsys)[-1]


def test_an_error_ends_the_lines_and_a_disabled_one_has_none(capsys):
    with pytest.raises(ZeroDivisionError):
        for number in progress(range(3), "clips"):
            1 / (number - 1)
    assert list(progress(range(3), "clips", disable=True)) == [0, 1, 2]
    assert lines_of(capsys) == ["clips: 0 of 3"]


def test_bars_show_the_mean_rate(monkeypatch):
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    with progress(range(3), "clips", total=5, initial=2) as bar:
        assert bar.smoothing == 0 and bar.n == 2 and bar.total == 5


def test_nothing_is_shown_on_a_closed_stderr(monkeypatch):
    """As of `python script.py 2>&-`."""
    monkeypatch.setattr(module.sys, "stderr", None)
    assert list(module.progress(range(3), "clips")) == [0, 1, 2]
