"""A recording in shards: read as one of one file, and refused where a shard is not its own."""

import json
import os
import resource
import shutil

import numpy as np
import pytest
import torch

from lvd.errors import InputError
from lvd.utils.config import ROOT
from lvd.x0 import shards
from lvd.x0.file import open_x0_file
from lvd.x0.row_files import allocate
from lvd.x0.shards import plan_shards, shard_path
from tests.worlds.x0_rows import SHAPE, STEPS, create, filled, info_of, x0_of

ROW_BYTES = STEPS * 4 * 2 * 8 * 8 * 4
ROWS = 7


@pytest.fixture
def small(monkeypatch):
    """Shards of three rows."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 4 * ROW_BYTES - 1)


@pytest.fixture
def path(small, tmp_path):
    return filled(tmp_path / "x/pred_x0.pth", range(ROWS), count=ROWS)


def test_each_shard_is_a_torch_file_of_whole_rows(path, tmp_path, monkeypatch):
    names = ["pred_x0.json", "pred_x0.pth", "pred_x0.shard-0001.pth", "pred_x0.shard-0002.pth"]
    assert sorted(file.name for file in path.parent.iterdir()) == names
    parts = [torch.load(path.with_name(name), weights_only=True) for name in names[1:]]
    rows = torch.stack([x0_of(row) for row in range(ROWS)])
    assert [len(part) for part in parts] == [3, 3, 1] and torch.equal(torch.cat(parts), rows)
    said = json.loads((path.parent / "pred_x0.json").read_text())
    assert said["shape"][0] == ROWS and said["shards"] == [3, 3, 1]
    x0 = open_x0_file(path)
    assert [file.name for file in x0.files] == names[1:]
    monkeypatch.undo()
    one = open_x0_file(filled(tmp_path / "one/pred_x0.pth", range(ROWS), count=ROWS))
    assert one.info == x0.info and one.meta == x0.meta and one.fingerprint == x0.fingerprint
    assert "shards" not in (tmp_path / "one/pred_x0.json").read_text()


@pytest.mark.parametrize(
    "index",
    [0, 6, -1, -7, np.int64(4), torch.tensor(3), slice(None), slice(1, 5), slice(5, 1)]
    + [slice(0, 7, 3), slice(2, None, 4), slice(-3, None), [0, 5, 3], [], torch.tensor([6, 1])]
    + [torch.tensor([True, False] * 3 + [True]), (3, 1), (3, [0, 2]), (slice(None), -1)]
    + [(slice(1, 6), [0, 2]), ([0, 5], 1), (2, 1, slice(None), 0), (slice(9, 12), 0)],
)
def test_an_index_gives_what_it_gives_of_one_file(path, index):
    sharded, rows = open_x0_file(path).tensor, torch.stack([x0_of(row) for row in range(ROWS)])
    assert torch.equal(sharded[index], rows[index])
    assert sharded.shape == rows.shape and sharded.dtype == rows.dtype and len(sharded) == ROWS
    assert torch.equal(torch.stack(list(sharded)), rows)


@pytest.mark.parametrize("index", [7, -8, [0, 9], 1.5, ([0, 1], [0, 1]), torch.ones(3).bool()])
def test_an_index_that_is_refused(path, index):
    with pytest.raises(IndexError):
        open_x0_file(path).tensor[index]


def test_a_batch_over_two_shards_and_a_run_that_goes_on(small, tmp_path):
    path = tmp_path / "a/pred_x0.pth"
    with create(path, rows=ROWS) as writer:
        for rows in ([6, 2, 3], [0, 5]):
            writer.write_rows(rows, list(map(x0_of, rows)), list(map(info_of, rows)))
        writer.write_seen(4, x0_of(4)[:1])
        assert open_x0_file(path).rows == [0, 2, 3, 5, 6]  # while it is written
    assert torch.equal(open_x0_file(path).tensor[4, :1], x0_of(4)[:1])
    with create(path, rows=ROWS) as writer:
        assert writer.whole == {0, 2, 3, 5, 6}
        writer.write_rows([1, 4], [x0_of(1), x0_of(4)], [info_of(1), info_of(4)])
    at_once = filled(tmp_path / "b/pred_x0.pth", range(ROWS), count=ROWS)
    for file in at_once.parent.iterdir():
        assert (path.parent / file.name).read_bytes() == file.read_bytes(), file.name


def test_another_program_reads_them_as_the_docs_say(path, monkeypatch):
    text = (ROOT / "docs/sampling.md").read_text()
    program = text.split("```python\nimport json, torch\n")[1].split("```")[0]
    monkeypatch.chdir(path.parent)
    known = {"json": json, "torch": torch}
    exec(program, known)
    row = sum(known["rows_of_shards"][:-1])
    assert row > 0 and torch.equal(known["video"], x0_of(row)) and len(known["parts"]) == 3


def lose(path):
    shard_path(path, 1).unlink()


def exchange(path):
    one, two = path, shard_path(path, 1)
    one.rename(path.with_name("x"))
    two.rename(one)
    path.with_name("x").rename(two)


def of_another(path):
    other = path.parent.parent / "other/pred_x0.pth"
    with create(other, rows=ROWS) as writer:
        for row in range(ROWS):
            writer.write_row(row, x0_of(row + 100), info_of(row))
    shutil.copy(shard_path(other, 2), shard_path(path, 2))


def of_other_rows(path):
    allocate(shard_path(path, 2), (2, STEPS, *SHAPE), torch.float32)


def of_an_earlier_state(path):
    allocate(shard_path(path, 1), (3, STEPS, *SHAPE), torch.float32)


def no_torch_file(path):
    shard_path(path, 1).write_bytes(b"")


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lose, "shard-0001.pth: not there, but pred_x0.json says that it holds rows 3 to 5"),
        (
            exchange,
            "pred_x0.pth: row 0 is not the one that pred_x0.json tells of; shards were exch",
        ),
        (of_another, "shard-0002.pth: row 6 is not the one"),
        (of_an_earlier_state, "shard-0001.pth: row 3 is not the one"),
        (of_other_rows, r"says shape \[1, 3, .*shard-0002.pth has \[2, 3,"),
        (no_torch_file, "shard-0001.pth: not a readable torch file"),
    ],
)
def test_shards_that_do_not_belong_together(path, spoil, said):
    spoil(path)
    for use in (open_x0_file, lambda path: create(path, rows=ROWS)):
        with pytest.raises(InputError, match=said) as error:
            use(path)
        assert len(str(error.value)) < 300 + len(str(path.parent)) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"shards": [3, 3]}, "its shards have 6 rows, its shape says 7"),
        ({"shards": [0, 7]}, "shards"),
        ({"growing": {"shape": [9, STEPS, *SHAPE], "shards": [9]}}, "3 shards grow to 1"),
        ({"growing": 3}, "growing"),
    ],
)
def test_a_sidecar_that_tells_of_other_shards(path, change, said):
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **change}))
    with pytest.raises(InputError, match=said):
        open_x0_file(path)


def test_files_without_their_sidecar_are_not_overwritten(path):
    path.with_suffix(".json").unlink()
    path.rename(path.with_name("moved.pth"))
    with pytest.raises(InputError, match="not there, but pred_x0.shard-0001.pth of it is"):
        create(path, rows=ROWS)


def test_forty_shards_need_few_descriptors(small, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = max(map(int, os.listdir("/proc/self/fd")))  # files of the tests before this one
    with create(tmp_path / "pred_x0.pth", rows=120) as writer:
        resource.setrlimit(resource.RLIMIT_NOFILE, (others + 60, hard))
        try:
            for row in range(0, 120, 5):
                writer.write_row(row, x0_of(row), info_of(row))
            files = [open_x0_file(tmp_path / "pred_x0.pth") for _ in range(3)]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(files[0].files) == 40
    assert all(torch.equal(files[1].tensor[row], x0_of(row)) for row in files[2].rows)


def test_how_rows_are_shared_out(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 100)
    assert plan_shards(7, 30) == [3, 3, 1] and plan_shards(3, 30) == [3]
    assert plan_shards(2, 1000) == [1, 1]  # a row is never divided
    assert plan_shards(9, 30, [2]) == [3, 3, 3] and plan_shards(7, 30, [3, 1]) == [3, 3, 1]
    assert plan_shards(9, 30, [8]) == [8, 1]  # a file of an older version, which had no shards
    monkeypatch.undo()
    full = 50 * 4 * 16 * 64 * 64 * 2
    assert sum(plan_shards(100_000, full)) == 100_000 and len(plan_shards(2_000, full)) == 1
    assert max(plan_shards(100_000, full)) * full <= 64 << 30
