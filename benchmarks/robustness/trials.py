"""A trial: a command that is stopped, the same command again, and what lies there afterwards."""

import csv
import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from dataclasses import dataclass

import torch

from benchmarks.robustness.operations import Operations
from benchmarks.robustness.world import checkpoint_often
from lvd.errors import InputError
from lvd.utils.files import load_torch

TIMEOUT = 300  # seconds of one command
LINE = 300  # characters of an error line at most
PROGRESS = re.compile(r"[\w' -]+: \d+ of \d+")
# Results of a training and verdicts tell how long it took: they are equal in all other values.
MEASURED = ("seconds", "seconds_saved")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status (negative: the signal) and what it said on stderr.

    operations: how many file operations it did; None where it could not say.
    """

    status: int
    errors: str
    operations: int | None = None

    @property
    def lines(self):
        """The lines of stderr without progress."""
        lines = re.split(r"[\r\n]+", self.errors)
        return [line for line in lines if line and not PROGRESS.match(line)]


class Running:
    """A command in a fork of this process, which has imported everything already.

    Args:
        case: of the world.
        folder: where it works.
        at: number of the file operation that a signal stops; None: none.
        signum: the signal.
        limit: bytes that a file may have (RLIMIT_FSIZE); None: any.
    """

    def __init__(self, case, folder, at=None, signum=None, limit=None):
        self._said, theirs = os.pipe()
        self._counted, their_count = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._said)
            os.close(self._counted)
            _be_the_command(case, folder, Operations(at, signum), limit, theirs, their_count)
        os.close(theirs)
        os.close(their_count)

    def wait(self):
        """Wait for the command and all processes that it started; returns how it Ended."""
        text, until = b"", time.monotonic() + TIMEOUT
        while select.select([self._said], [], [], max(0, until - time.monotonic()))[0]:
            part = os.read(self._said, 1 << 16)
            if not part:
                break
            text += part
        else:
            os.killpg(self.pid, signal.SIGKILL)
            text += b"\nerror: it hung, or a process that it started did"
        _, status = os.waitpid(self.pid, 0)
        counted = os.read(self._counted, 100)
        for pipe in (self._said, self._counted):
            os.close(pipe)
        status = os.waitstatus_to_exitcode(status)
        return Ended(status, text.decode(errors="replace"), int(counted) if counted else None)


def _be_the_command(case, folder, operations, limit, stderr, count):
    """Run the command in this process, and end it."""
    status = 1
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        for number, file in enumerate((null, null, stderr)):
            os.dup2(file, number)
        sys.stdout = open(1, "w", closefd=False)
        sys.stderr = open(2, "w", closefd=False, buffering=1)
        os.close(stderr)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(folder)
        checkpoint_often()
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        operations.install()
        status = case.script.main(case.argv)
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        operations.at = None
        sys.stderr.flush()
        os.write(count, str(operations.count).encode())
        os._exit(status)


def run(case, folder, **how):
    """Run a command to its end; arguments: see Running."""
    return Running(case, folder, **how).wait()


def copy_world(source, folder):
    """Put a copy of a world where trials work."""
    if folder.exists():
        for path in folder.iterdir():  # the folder itself may be a disk of its own
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(source, folder, dirs_exist_ok=True)


def faults_of(ended, statuses):
    """Say what is wrong with how a command ended; [] if nothing is.

    Args:
        ended: of the command.
        statuses: exit statuses that are right.
    """
    faults = []
    errors = [line for line in ended.lines if line.startswith("error: ")]
    if ended.status not in statuses:
        last = ended.lines[-1][:LINE] if ended.lines else "nothing said"
        faults.append(f"exit status {ended.status} ({last})")
    if "Traceback" in ended.errors:
        faults.append(f"a traceback ({ended.lines[-1][:LINE]})")
    if ended.status == 2 and (len(errors) != 1 or len(errors[0]) > LINE):
        faults.append(f"{len(errors)} lines of error, one of {LINE} characters is needed")
    return faults


def differences(folder, expected):
    """Compare two worlds, file by file.

    Returns:
        (faults, number of files of the same bytes, names of those that have the same values only).
    """
    here, there = files_below(folder), files_below(expected)
    faults = [f"{name}: is missing" for name in sorted(there - here)]
    for name in sorted(here - there):
        what = "a partial file is left" if ".partial" in name else "should not be there"
        faults.append(f"{name}: {what}")
    same_bytes, same_values = 0, []
    for name in sorted(here & there):
        if (folder / name).read_bytes() == (expected / name).read_bytes():
            same_bytes += 1
        elif _same_values(folder / name, expected / name):
            same_values.append(name)
        else:
            faults.append(f"{name}: differs from an unbroken run's")
    return faults, same_bytes, same_values


def files_below(folder):
    """The names of all files below a folder, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _same_values(one, two):
    """Whether two files hold the same, apart from what was measured."""
    read = READERS.get(one.suffix)
    try:
        return read is not None and _equal(read(one), read(two))
    except (InputError, ValueError):
        return False


def _read_csv(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def _read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


READERS = {".pth": load_torch, ".csv": _read_csv, ".jsonl": _read_lines}


def _equal(one, two):
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        if list(one) != list(two):
            return False
        return all(key in MEASURED or _equal(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(_equal, one, two))
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    return one == two
