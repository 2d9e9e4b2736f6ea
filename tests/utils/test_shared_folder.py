"""A folder that the processes of a launch cannot fill together is refused in one line.

The processes are threads, of which some see another file system.
"""

import errno
import mmap
import os
import time
from pathlib import Path

import pytest

from lvd.errors import InputError
from lvd.utils import locks, shared_folder
from lvd.utils.cli import one_line
from lvd.utils.processes import Processes
from lvd.utils.shared_folder import need_shared_folder
from tests.worlds.teams import rank_here, together

HOST = os.uname().nodename


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(shared_folder, "PATIENCE", 0.3)


def probed(folder, **team):
    return together(lambda team: need_shared_folder(folder, team, "--save-path"), **team)


@pytest.mark.parametrize("machines, processes", [(2, 1), (2, 2), (1, 3), (45, 1)])
def test_a_local_disk_is_shared_by_its_processes(tmp_path, monkeypatch, machines, processes):
    monkeypatch.setattr(shared_folder, "PATIENCE", 20.0)
    assert not any(probed(tmp_path / "new" / "out", machines=machines, processes=processes))
    assert list((tmp_path / "new" / "out").iterdir()) == []


def test_a_single_process_asks_for_nothing(tmp_path):
    need_shared_folder(tmp_path / "out", Processes(), "--save-path")
    assert not (tmp_path / "out").exists()


def test_another_run_may_try_the_folder_at_the_same_time(tmp_path, monkeypatch):
    (tmp_path / ".shared-0.probe").write_text("of another run, which deletes it just now")
    stat = Path.stat

    def vanished(path, **flags):
        if path.name == ".shared-0.probe":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return stat(path, **flags)

    monkeypatch.setattr(Path, "stat", vanished)
    assert not any(probed(tmp_path))


def test_a_process_may_be_slow_and_a_probe_may_stay(tmp_path, monkeypatch):
    append, unlink = shared_folder.append_lines, Path.unlink

    def slowly(file, lines):
        if rank_here() == 1:
            time.sleep(2 * shared_folder.PATIENCE)
        append(file, lines)

    def refused(path, missing_ok=False):
        if path.name.startswith(".shared"):
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(shared_folder, "append_lines", slowly)
    monkeypatch.setattr(Path, "unlink", refused)
    assert not any(probed(tmp_path / "out", machines=3))


def need_lines(raised, *words):
    """Each machine has one line, and the same words; its other processes end in silence."""
    lines = [one_line(str(error)) for error in raised if isinstance(error, InputError)]
    assert len(lines) == 2, raised
    assert all(isinstance(error, (InputError, SystemExit)) for error in raised)
    for line in lines:
        assert len(line) < 300 and all(word in line for word in words), line


@pytest.mark.parametrize("processes", [1, 2])
def test_another_folder_on_each_machine(tmp_path, processes):
    for name in "01":
        (tmp_path / name).mkdir()

    def work(team):
        folder = tmp_path / str(team.rank // processes) / "out"
        need_shared_folder(folder, team, "--save-path")

    words = (f"process {processes} on {HOST} sees another folder", "1/out and not", "0/out of")
    need_lines(together(work, processes=processes), *words)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "out").write_text("a file")
    need_lines(probed(tmp_path / "out"), f"process 0 on {HOST}", "a file lies where a folder")


def no_locks(*_, **__):
    return None


def local_locks(file, shared=False, patience=0.0):
    return rank_here() == 1 or locks.try_lock(file, shared, patience)


def local_shared_locks(file, shared=False, patience=0.0):
    if shared and rank_here() == 1:
        return True
    return locks.try_lock(file, shared, patience)


def whole_old_page(file, data, offset):
    if rank_here() == 1:
        data, offset = b"\0" * offset + data, 0
    return pwrite(file, data, offset)


def no_rename(*_):
    return None


def no_mapping(*_):
    raise OSError(errno.ENODEV, "No such device")


def no_flush(_):
    raise OSError(errno.EIO, "Input/output error")


def not_readable(path):
    if rank_here() == 1 and path.name.startswith(".shared"):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return read_bytes(path)


pwrite, read_bytes = os.pwrite, Path.read_bytes


@pytest.mark.parametrize(
    "place, name, instead, words",
    [
        (shared_folder, "try_lock", no_locks, ("process 0 on", "there are no file locks (flock)")),
        (shared_folder, "try_lock", local_locks, ("process 1 on", "locks (flock) of process 0")),
        (shared_folder, "try_lock", local_shared_locks, ("shared file locks (flock) of other",)),
        (os, "pwrite", whole_old_page, ("processes write side by side are lost",)),
        (os, "replace", no_rename, ("a file that process 0 renamed is not seen",)),
        (mmap, "mmap", no_mapping, ("mapped into memory (mmap: No such device)",)),
        (Path, "read_bytes", not_readable, ("process 1 on", ".probe: no permission")),
        (os, "fsync", no_flush, ("process 0 on", "the disk failed")),
    ],
)
def test_file_systems_that_machines_cannot_share(
    tmp_path, monkeypatch, place, name, instead, words
):
    """Such as Lustre with localflock or noflock, and clients that keep old pages."""
    monkeypatch.setattr(place, name, instead)
    need_lines(probed(tmp_path / "out"), "--save-path", *words)
    assert list((tmp_path / "out").iterdir()) == []
