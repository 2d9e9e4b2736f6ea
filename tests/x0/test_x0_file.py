"""The x0 file: sparse, written row by row, resumable after a kill, strict about what it opens."""

import json
import multiprocessing
import os
import resource
import time

import pytest
import torch

from lvd.errors import InputError
from lvd.utils.partials import atomic
from lvd.x0.file import create_x0_file, open_x0_file
from tests.worlds.x0_rows import META, ROWS, SHAPE, STEPS, create, filled, info_of, x0_of

FORK = multiprocessing.get_context("fork")  # starts at once


def test_rows_come_back_and_only_whole_ones_count(tmp_path):
    x0 = open_x0_file(filled(tmp_path / "pred_x0.pth", rows=(3, 0)))
    assert x0.rows == [0, 3] and x0.meta == META and x0.info[3] == info_of(3)
    assert torch.equal(x0.tensor[3], x0_of(3)) and torch.equal(x0.tensor[0], x0_of(0))
    assert x0.tensor[1].abs().max() == 0
    x0.need_rows([0, 3])
    with pytest.raises(InputError, match=r"2 row\(s\) needed.*\(1, 2\)"):
        x0.need_rows([0, 1, 2])


def test_what_was_seen_of_a_row_is_there_and_does_not_make_it_whole(tmp_path):
    path = tmp_path / "pred_x0.pth"
    with create(path) as writer:
        writer.write_seen(1, x0_of(1)[:2])
        writer.write_seen(
            2, torch.full((1, *SHAPE), float("nan"))
        )  # what stopped a video may be just that
        writer.write_row(3, x0_of(3), info_of(3))
        for wrong in (torch.zeros(STEPS + 1, *SHAPE), torch.zeros(1, 4, 2, 8, 7)):
            with pytest.raises(InputError, match="row 1 has shape"):
                writer.write_seen(1, wrong)
        assert writer.whole == {3}
    x0 = open_x0_file(path)
    assert x0.rows == [3] and torch.equal(x0.tensor[3], x0_of(3))
    assert torch.equal(x0.tensor[1, :2], x0_of(1)[:2]) and not x0.tensor[1, 2:].any()
    assert x0.tensor[2, 0].isnan().all() and not x0.tensor[2, 1:].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("mmap", [False, True])
def test_any_torch_load_opens_it(tmp_path, dtype, mmap):
    path = filled(tmp_path / "pred_x0.pth", dtype=dtype)
    tensor = torch.load(path, mmap=mmap, weights_only=True)
    assert tensor.shape == (ROWS, STEPS, *SHAPE) and tensor.dtype == dtype
    for row in range(ROWS):
        assert torch.equal(tensor[row], x0_of(row).to(dtype))


def test_several_rows_at_once_equal_one_by_one(tmp_path):
    with create(tmp_path / "many.pth") as writer:
        writer.write_rows([4, 1], [x0_of(4), x0_of(1)], [info_of(4), info_of(1)])
    one = filled(tmp_path / "one.pth", rows=(1, 4))
    assert (tmp_path / "many.pth").read_bytes() == one.read_bytes()
    assert (tmp_path / "many.json").read_text() == (tmp_path / "one.json").read_text()


def test_a_file_larger_than_the_memory_costs_one_row(tmp_path):
    """60 GB file: a few blocks on the disk, and neither writing nor reading takes memory in its
    proportion."""
    told, said = FORK.Pipe(duplex=False)
    process = FORK.Process(target=write_60_gb, args=(tmp_path / "big.pth", said), daemon=True)
    process.start()
    assert told.poll(60)
    memory = told.recv()
    process.join(60)
    stat = (tmp_path / "big.pth").stat()
    assert stat.st_size > 61e9 and stat.st_blocks * 512 < 20e6
    assert memory < 300_000  # KB of peak memory beyond the imports


def write_60_gb(path, said):
    """Write the first and the last row, read them, and tell by how much the peak memory grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shape = (12000, 50, (4, 8, 40, 40))
    with create_x0_file(path, *shape, torch.float16, {}, check_space=False) as writer:
        for row in (0, 11999):
            writer.write_row(row, torch.full((50, 4, 8, 40, 40), row / 1000), {})
    x0 = open_x0_file(path)
    assert x0.tensor[11999].float().mean().round() == 12 and x0.tensor[11998].abs().max() == 0
    said.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def fill(folder, said=None):
    """Write 40 rows, but not those that are there, and tell each."""
    with create(folder / "pred_x0.pth", rows=40) as writer:
        for row in set(range(40)) - writer.whole:
            writer.write_row(row, x0_of(row), info_of(row))
            if said:
                said.send(row)
                time.sleep(0.01)


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    one, two = tmp_path / "a", tmp_path / "b"
    one.mkdir()
    for kill_after in (3, 11):
        told, said = FORK.Pipe(duplex=False)
        process = FORK.Process(target=fill, args=(one, said), daemon=True)
        process.start()
        for _ in range(kill_after):
            assert told.poll(60) and told.recv() is not None
        time.sleep(0.005)
        process.kill()  # SIGKILL
        process.join(60)
        x0 = open_x0_file(one / "pred_x0.pth")
        assert kill_after <= len(x0.rows) < 40
        assert all(torch.equal(x0.tensor[row], x0_of(row)) for row in x0.rows)
    two.mkdir()
    for folder in (one, two):
        fill(folder)
    for name in ("pred_x0.pth", "pred_x0.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_resumes_with_other_versions_but_not_with_another_config(tmp_path):
    path = filled(tmp_path / "pred_x0.pth", rows=(2,))
    with create(path, meta={**META, "versions": {"torch": "y"}}) as writer:
        assert writer.whole == {2}
    for kwargs, named in (
        ({"rows": 6}, "shape"),
        ({"dtype": torch.float16}, "dtype"),
        ({"meta": {"config": {"seed": [1, 3], "steps": STEPS}}}, r"meta\.config\.seed=\[1, 2\]"),
        ({"meta": {**META, "x0_mode": "released"}}, "meta.x0_mode"),
    ):
        with pytest.raises(InputError, match=named):
            create(path, **kwargs)
    assert open_x0_file(path).rows == [2]


def test_one_writer_at_a_time(tmp_path):
    with (
        create(tmp_path / "pred_x0.pth"),
        pytest.raises(InputError, match="another running process"),
    ):
        create(tmp_path / "pred_x0.pth")


def test_a_file_killed_between_sidecar_and_data_starts_again(tmp_path):
    path = tmp_path / "pred_x0.pth"
    create(path).close()
    path.unlink()
    assert open_x0_file(filled(path)).rows == list(range(ROWS))


def test_rows_of_a_file_that_was_moved_away_are_not_forgotten(tmp_path):
    path, elsewhere = filled(tmp_path / "pred_x0.pth", rows=(0, 3)), tmp_path / "moved.pth"
    path.rename(elsewhere)
    before = (tmp_path / "pred_x0.json").read_text()
    with pytest.raises(
        InputError,
        match=r"pth: not there, but pred_x0.json beside it list 2 row\(s\).*put pred_x0.pth",
    ):
        create(path)
    assert (tmp_path / "pred_x0.json").read_text() == before and not path.exists()
    elsewhere.rename(path)
    with create(path) as writer:
        assert writer.whole == {0, 3}
    path.unlink()
    (tmp_path / "pred_x0.json").unlink()
    journal = tmp_path / "pred_x0.rows.1.jsonl"  # of a run that was killed
    journal.write_text('{"row": 4, "info": {}}\n')
    with pytest.raises(InputError, match=r"pred_x0.rows.1.jsonl beside it list 1 row\(s\)"):
        create(path)
    journal.write_text("")
    with create(path) as writer:
        assert writer.whole == set() and not journal.exists()


def begin_a_file(path, said):
    with atomic(path) as mine:
        said.send(mine)
        time.sleep(60)


def test_what_killed_processes_left_half_written_goes(tmp_path):
    told, said = FORK.Pipe(duplex=False)
    sleeper = FORK.Process(target=begin_a_file, args=(tmp_path / "a b.mp4", said), daemon=True)
    sleeper.start()
    assert told.poll(60)
    theirs = told.recv()
    with atomic(tmp_path / "a b.mp4") as mine:
        mine.touch()
        numbers = (1, 999_999_999)  # process 1 is alive, but holds no lock
        names = [tmp_path / mine.name.replace(f"-{os.getpid()}.", f"-{pid}.") for pid in numbers]
        host = mine.name.split(".")[2].partition("-")[0]
        other, before = (
            tmp_path / mine.name.replace(host, "0123abcd"),
            tmp_path / ".a b.5.partial.mp4",
        )
        old = [tmp_path / f"{file.name.removesuffix('.mp4')}.gif" for file in (other, before)]
        foreign = [
            tmp_path / ".partial",
            tmp_path / "a.5.partial.mp4",
            tmp_path / ".a.partial.mp4",
            tmp_path / "b.mp4",
        ]
        for file in (*names, other, before, *old, *foreign):
            file.touch()
        for file in (*old, *foreign):
            os.utime(file, (1, 1))
        filled(tmp_path / "pred_x0.pth")
        kept = {mine, theirs, other, before, *foreign}
        assert set(tmp_path.iterdir()) == {
            *kept,
            tmp_path / "pred_x0.pth",
            tmp_path / "pred_x0.json",
        }
    sleeper.kill()
    sleeper.join(60)
    create(tmp_path / "pred_x0.pth").close()
    assert not theirs.exists() and other.exists()


def test_no_room_on_the_disk_is_said_before_the_start(tmp_path):
    with pytest.raises(InputError, match="GiB more disk"):
        create(tmp_path / "pred_x0.pth", rows=10**9)
    assert not list(tmp_path.iterdir())


def test_a_wrong_row_leaves_the_file_as_it_was(tmp_path):
    path = filled(tmp_path / "pred_x0.pth", rows=(1,))
    before = path.read_bytes()
    with create(path) as writer:
        for row, x0, named in (
            (ROWS, x0_of(0), "outside"),
            (0, x0_of(0)[:2], "shape"),
            (0, x0_of(0) / 0, "not finite"),
        ):
            with pytest.raises(InputError, match=named):
                writer.write_row(row, x0, {})
    assert path.read_bytes() == before and open_x0_file(path).rows == [1]


def test_a_batch_that_fails_counts_none_of_its_rows(tmp_path):
    with create(tmp_path / "pred_x0.pth") as writer:
        with pytest.raises(InputError, match="row 1 holds values"):
            writer.write_rows([0, 1], [x0_of(0), x0_of(1) / 0], [info_of(0), info_of(1)])
        assert writer.whole == set()
    assert open_x0_file(tmp_path / "pred_x0.pth").rows == []


def test_released_recordings_without_a_sidecar_are_whole(tmp_path):
    path = tmp_path / "pred_x0.pth"
    tensor = torch.randn(3, STEPS, *SHAPE)
    torch.save(tensor, path)
    x0 = open_x0_file(path)
    assert x0.rows == [0, 1, 2] and torch.equal(x0.tensor, tensor) and x0.meta == {}
    with pytest.raises(InputError, match="exists without pred_x0.json"):
        create(path, rows=3)


def test_what_it_refuses_to_open(tmp_path):
    path = tmp_path / "pred_x0.pth"
    with pytest.raises(InputError, match="no such file"):
        open_x0_file(path)
    for content, named in (
        (torch.zeros(2, 3, 4), r"shape \[2, 3, 4\]"),
        (torch.zeros((1,) * 6, dtype=torch.int32), "int32"),
        ([torch.zeros(1)], "holds a list"),
        (torch.zeros(0, 1, 1, 1, 1, 1), "shape"),
    ):
        torch.save(content, path)
        with pytest.raises(InputError, match=named):
            open_x0_file(path)
    path.write_bytes(b"no torch file")
    with pytest.raises(InputError, match="not a readable torch file"):
        open_x0_file(path)


def test_truncated_and_foreign_pairs_are_refused(tmp_path):
    path = filled(tmp_path / "pred_x0.pth")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    for use in (open_x0_file, create):
        with pytest.raises(InputError, match="not a readable torch file"):
            use(path)
    path.write_bytes(whole)
    sidecar = json.loads((tmp_path / "pred_x0.json").read_text())
    for change, named in (
        ({"shape": [9, STEPS, *SHAPE]}, "says shape"),
        ({"rows": {"7": {}}}, "row '7' is outside"),
        ({"rows": []}, r"rows: found \[\]"),
        ({"format": 99}, "format 99"),
    ):
        (tmp_path / "pred_x0.json").write_text(json.dumps({**sidecar, **change}))
        with pytest.raises(InputError, match=named):
            open_x0_file(path)
    (tmp_path / "pred_x0.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="not the sidecar"):
        open_x0_file(path)
    (tmp_path / "pred_x0.json").write_text('{"format": 1,')
    with pytest.raises(InputError, match="not valid JSON"):
        open_x0_file(path)


def test_reading_never_changes_a_recording(tmp_path):
    path = filled(tmp_path / "pred_x0.pth")
    os.chmod(path, 0o444)
    assert torch.equal(open_x0_file(path).tensor[1], x0_of(1))
