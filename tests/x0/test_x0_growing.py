"""Adding rows to a recording: as if it had been made with them, whenever that is broken off."""

import errno
import json
import os
import shutil
import signal

import pytest
import torch

from benchmarks.robustness.operations import Operations
from lvd.errors import InputError
from lvd.x0 import growing, shards
from lvd.x0.file import open_x0_file
from lvd.x0.growing import grow_x0_file
from tests.worlds.x0_rows import META, SHAPE, STEPS, create, filled, info_of, x0_of

ROW_BYTES = STEPS * 4 * 2 * 8 * 8 * 4
ALL = 7
MORE = {**META, "prompts": ALL}
SIZES = pytest.mark.parametrize("size", [shards.SHARD_BYTES, 2 * ROW_BYTES, 3 * ROW_BYTES])


@pytest.fixture
def shard_size(size, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", size)


def files(folder):
    """{name: bytes}; of the sidecar without the fingerprints that it has had."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    said = json.loads(found.pop("pred_x0.json"))
    said.pop("earlier_fingerprints", None)
    return {**found, "pred_x0.json": json.dumps(said).encode()}


def at_once(folder):
    return files(filled(folder / "at_once/pred_x0.pth", range(ALL), count=ALL, meta=MORE).parent)


def add_rows(path):
    """What a run with all prompts does."""
    grow_x0_file(path, ALL, MORE)
    with create(path, rows=ALL, meta=MORE) as writer:
        for row in sorted(set(range(ALL)) - writer.whole):
            writer.write_row(row, x0_of(row), info_of(row))


@SIZES
def test_a_recording_that_grew_is_one_that_was_made_at_once(tmp_path, shard_size):
    path = filled(tmp_path / "grown/pred_x0.pth", [2, 0], count=3)
    with create(path, rows=3) as writer:
        writer.write_seen(1, x0_of(1)[:2])  # of a video that the guard stopped
    before = open_x0_file(path)
    grow_x0_file(path, 4, META)
    assert open_x0_file(path).tensor.shape == (4, STEPS, *SHAPE)
    grow_x0_file(path, ALL, MORE)
    grown = open_x0_file(path)
    assert grown.rows == [0, 2] and grown.info == before.info and grown.meta == MORE
    assert torch.equal(grown.tensor[1, :2], x0_of(1)[:2]) and not grown.tensor[1, 2:].any()
    stamps = {file: file.stat().st_mtime_ns for file in path.parent.iterdir()}
    grow_x0_file(path, ALL, MORE)  # has as many already
    assert stamps == {file: file.stat().st_mtime_ns for file in path.parent.iterdir()}
    add_rows(path)
    assert files(path.parent) == at_once(tmp_path)
    whole = open_x0_file(path)
    assert len(whole.fingerprints) == 3 and whole.fingerprints[0] == before.fingerprint
    assert whole.fingerprint == open_x0_file(tmp_path / "at_once/pred_x0.pth").fingerprint


@pytest.mark.parametrize(
    "size, first, stride",
    [(shards.SHARD_BYTES, 1, 2), (2 * ROW_BYTES, 2, 5)],
    ids=["one", "shards"],
)
def test_killed_at_any_moment_it_goes_on(tmp_path, shard_size, first, stride):
    """Before an operation on a file: no row is lost, every reader can read, and it goes on."""
    expected, at, ended = at_once(tmp_path), first, None
    begun = filled(tmp_path / "begun/pred_x0.pth", range(3), count=3).parent
    while ended != 0:
        path = shutil.copytree(begun, tmp_path / str(at)) / "pred_x0.pth"
        child = os.fork()
        if child == 0:
            Operations(at, signal.SIGKILL).install()
            grow_x0_file(path, ALL, MORE)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        x0 = open_x0_file(path)
        assert x0.rows == [0, 1, 2] and len(x0.tensor) in (3, ALL)
        assert all(torch.equal(x0.tensor[row], x0_of(row)) for row in x0.rows)
        if len(x0.tensor) == 3:
            with create(path, rows=3) as writer:  # the run of the old prompts still works
                writer.write_row(1, x0_of(1), info_of(1))
            if at % 4 == 1:
                grow_x0_file(path, 5, META)  # as does one of others
        add_rows(path)
        assert files(path.parent) == expected
        at += stride
    assert at > 20


@pytest.mark.parametrize("size", [shards.SHARD_BYTES, 4 * ROW_BYTES], ids=["one", "shards"])
def test_killed_twice_with_other_numbers_of_rows(tmp_path, shard_size):
    """The first call has made a longer file, the second one is for fewer rows."""
    path = filled(tmp_path / "begun/pred_x0.pth", range(3), count=3)
    child = os.fork()
    if child == 0:
        growing.new_sidecar = lambda *_: os._exit(0)  # the files are ready by then
        grow_x0_file(path, 9, META)
    os.waitpid(child, 0)
    assert path.stat().st_size > 4 * ROW_BYTES
    at, ended = 1, None
    while ended != 0:
        path = shutil.copytree(tmp_path / "begun", tmp_path / str(at)) / "pred_x0.pth"
        child = os.fork()
        if child == 0:
            Operations(at, signal.SIGKILL).install()
            grow_x0_file(path, 5, META)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        x0 = open_x0_file(path)
        assert len(x0.tensor) in (3, 5)
        assert all(torch.equal(x0.tensor[row], x0_of(row)) for row in range(3))
        at += 3
    assert at > 20
    add_rows(path)
    assert files(path.parent) == at_once(tmp_path)


def test_readers_read_while_it_grows(tmp_path):
    path = filled(tmp_path / "pred_x0.pth", range(3), count=3)
    child = os.fork()
    if child == 0:
        for rows in range(4, 24):
            grow_x0_file(path, rows, META)
        os._exit(0)
    seen = set()
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        x0 = open_x0_file(path)
        assert x0.rows == [0, 1, 2] and torch.equal(x0.tensor[2], x0_of(2))
        assert len(x0.fingerprints) == x0.tensor.shape[0] - 2
        seen.add(len(x0.tensor))
    assert len(seen) > 1


def test_without_copies_by_the_file_system(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "not on this file system")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(growing, "AT_ONCE", 100)
    path = filled(tmp_path / "grown/pred_x0.pth", range(3), count=3)
    add_rows(path)
    assert files(path.parent) == at_once(tmp_path)


def test_holes_stay_holes(tmp_path):
    path = tmp_path / "pred_x0.pth"
    with create(path, rows=10**6, check_space=False) as writer:
        writer.write_row(999_000, x0_of(3), info_of(3))
    grow_x0_file(path, 1_100_000, META)
    status = path.stat()
    assert status.st_size > 6e9 and status.st_blocks * 512 < 1e6
    assert torch.equal(open_x0_file(path).tensor[999_000], x0_of(3))


def test_what_it_refuses(tmp_path):
    path = filled(tmp_path / "pred_x0.pth", range(3), count=3)
    before = files(tmp_path)
    with pytest.raises(InputError, match="its rows, and a copy of the .* GiB more disk"):
        grow_x0_file(path, 10**8, META)
    with create(path, rows=3), pytest.raises(InputError, match="another running process is writ"):
        grow_x0_file(path, 4, META)
    assert files(tmp_path) == before
