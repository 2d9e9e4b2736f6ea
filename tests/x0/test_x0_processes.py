"""Several processes of one run fill one x0 file: real processes, stepped by the test."""

import errno
import fcntl
import json
import multiprocessing
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lvd.errors import InputError
from lvd.x0 import shards
from lvd.x0.file import create_x0_file, open_x0_file
from tests.worlds.x0_rows import META, create, info_of, x0_of

ROWS = 12
FORK = multiprocessing.get_context("fork")  # starts at once


def obey(orders, path, rank, count):
    """A process of the run: opens the file, then does as it is told: a row to write, "count", or
    "close"."""
    torch.set_num_threads(1)
    orders.recv()
    with create(path, rows=ROWS, process=(rank, count)) as writer:
        orders.send(writer.whole)
        while (what := orders.recv()) != "close":
            if what != "count":
                writer.write_row(what, x0_of(what), info_of(what))
            orders.send(writer.count_whole() if what == "count" else what)


class Member:
    def __init__(self, folder, rank, count):
        self.orders, theirs = FORK.Pipe()
        self.process = FORK.Process(
            target=obey, args=(theirs, folder / "pred_x0.pth", rank, count), daemon=True
        )
        self.process.start()

    def tell(self, *orders):
        """Have it do all of `orders`, in the background."""
        for order in orders:
            self.orders.send(order)

    def answer(self):
        assert self.orders.poll(60)
        return self.orders.recv()

    def ask(self, order):
        self.tell(order)
        return self.answer()

    def leave(self):
        self.tell("close")
        self.process.join(60)
        assert self.process.exitcode == 0

    def kill(self):
        self.process.kill()  # SIGKILL
        self.process.join(60)


@contextmanager
def run_of(folder, count=2):
    """The processes of a run, with the file open: rank 0 first, as after a barrier."""
    members = [Member(folder, rank, count) for rank in range(count)]
    try:
        for member in members:
            member.ask("open")
        yield members
    finally:
        for member in members:
            member.kill()


def write(path, wanted, **kwargs):
    with create(path, rows=ROWS, **kwargs) as writer:
        for row in wanted:
            writer.write_row(row, x0_of(row), info_of(row))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Both files as one process writes them, as bytes."""
    folder = tmp_path_factory.mktemp("alone")
    write(folder / "pred_x0.pth", range(ROWS))
    return files(folder)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_processes_at_once_equal_one(tmp_path, alone):
    with run_of(tmp_path) as members:
        for member, first in zip(members, (0, 1)):
            member.tell(*range(first, ROWS, 2))
        for member, first in zip(members, (0, 1)):
            assert [member.answer() for _ in range(ROWS // 2)] == list(range(first, ROWS, 2))
        assert [member.ask("count") for member in members] == [ROWS] * 2
        for member in members:
            member.leave()
    assert files(tmp_path) == alone  # and no journal is left


def test_two_processes_fill_shards(tmp_path, monkeypatch):
    """Of five rows each; two of the shards are filled by both."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 5 * x0_of(0).numel() * 4)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    write(tmp_path / "one/pred_x0.pth", range(ROWS))
    with run_of(tmp_path / "two") as members:
        for member, rows in zip(members, ([0, 11, 4, 6, 1, 5], [10, 2, 7, 3, 9, 8])):
            member.tell(*rows)
        for member in members:
            [member.answer() for _ in range(6)]
        assert open_x0_file(tmp_path / "two/pred_x0.pth").rows == list(range(ROWS))
        for member in members:
            member.leave()
    assert files(tmp_path / "two") == files(tmp_path / "one") and len(files(tmp_path / "two")) == 4


def test_readers_see_the_rows_finished_so_far(tmp_path):
    with run_of(tmp_path) as (one, two):
        assert open_x0_file(tmp_path / "pred_x0.pth").rows == []
        one.ask(4)
        two.ask(2)
        x0 = open_x0_file(tmp_path / "pred_x0.pth")
        assert (
            x0.rows == [2, 4] and x0.info[2] == info_of(2) and torch.equal(x0.tensor[4], x0_of(4))
        )
        assert json.loads((tmp_path / "pred_x0.json").read_text())["rows"] == {}
        one.leave()
        two.ask(0)
        assert open_x0_file(tmp_path / "pred_x0.pth").rows == [0, 2, 4]
        two.leave()
    assert list(json.loads((tmp_path / "pred_x0.json").read_text())["rows"]) == ["0", "2", "4"]


def test_a_killed_process_loses_only_the_row_it_was_writing(tmp_path, alone):
    path = tmp_path / "pred_x0.pth"
    with run_of(tmp_path) as (one, two):
        one.ask(0)
        two.tell(*range(1, ROWS, 2))
        for _ in range(3):
            two.answer()
        two.kill()
        one.ask(2)
        one.leave()
    x0 = open_x0_file(path)
    assert {0, 1, 2, 3, 5} <= set(x0.rows) < set(range(ROWS))
    assert all(torch.equal(x0.tensor[row], x0_of(row)) for row in x0.rows)
    with run_of(tmp_path, 3) as members:  # another number of processes goes on
        for row in sorted(set(range(ROWS)) - set(x0.rows)):
            members[row % 3].ask(row)
        for member in members:
            member.leave()
    assert files(tmp_path) == alone


def test_all_killed(tmp_path, alone):
    with run_of(tmp_path) as members:
        for row, member in enumerate(members):
            member.ask(row)
        for member in members:
            member.kill()
    path = tmp_path / "pred_x0.pth"
    assert open_x0_file(path).rows == [0, 1]
    with create(path, rows=ROWS) as writer:
        assert writer.whole == {0, 1}  # merged already
        assert not list(tmp_path.glob("*.jsonl"))
    write(path, range(2, ROWS))
    assert files(tmp_path) == alone


def test_another_run_is_kept_out(tmp_path):
    path = tmp_path / "pred_x0.pth"
    with run_of(tmp_path) as (one, two):
        for process in ((0, 1), (0, 2)):
            with pytest.raises(InputError, match="another running process"):
                create(path, rows=ROWS, process=process)
        one.leave()
        with pytest.raises(InputError, match="another running process"):
            create(path, rows=ROWS)
        two.leave()
    create(path, rows=ROWS).close()


def begin(path, together, said):
    """One of several runs: open the file when all are ready, hold it until all have tried."""
    together.wait()
    try:
        with create(path, rows=ROWS) as writer:
            writer.write_row(3, x0_of(3), info_of(3))
            together.wait(30)
            said.put("in")
    except InputError as error:
        together.wait(30)
        said.put(str(error))


def test_of_runs_that_begin_at_once_one_gets_in(tmp_path):
    path, together, said = tmp_path / "pred_x0.pth", FORK.Barrier(4), FORK.Queue()
    runs = [FORK.Process(target=begin, args=(path, together, said)) for _ in range(4)]
    for run in runs:
        run.start()
    answers = [said.get(timeout=60) for _ in runs]
    for run in runs:
        run.join()
    assert (
        answers.count("in") == 1
        and sum("another running process" in answer for answer in answers) == 3
    )
    x0 = open_x0_file(path)
    assert x0.rows == [3] and torch.equal(x0.tensor[3], x0_of(3))


def test_the_others_need_the_file_of_rank_0(tmp_path):
    path = tmp_path / "pred_x0.pth"
    with pytest.raises(InputError, match="process 0 of the run has to make it first"):
        create(path, process=(1, 2))
    with create(path, process=(0, 2)):
        with pytest.raises(InputError, match="meta.x0_mode"):
            create(path, meta={**META, "x0_mode": "released"}, process=(1, 2))
        with pytest.raises(InputError, match="shape"):
            create(path, rows=9, process=(1, 2))


def journal(path, *lines):
    write(path, [0])
    (path.parent / "pred_x0.rows.1.jsonl").write_text("".join(lines))
    return path


def line(row):
    return json.dumps({"row": row, "info": info_of(row)}) + "\n"


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_last_line_is_no_row_and_no_error(tmp_path, cut):
    path = journal(tmp_path / "pred_x0.pth", line(3), line(5)[:-cut])
    assert open_x0_file(path).rows == [0, 3]
    with create(path, rows=ROWS, process=(0, 2)) as first:
        assert first.whole == {0, 3}
        (tmp_path / "pred_x0.rows.1.jsonl").write_text(
            line(7)[:-cut]
        )  # killed and started again beside it
        with create(path, rows=ROWS, process=(1, 2)) as writer:
            writer.write_row(6, x0_of(6), info_of(6))
        assert first.count_whole() == 3
    assert open_x0_file(path).rows == [0, 3, 6] and not list(tmp_path.glob("*.jsonl"))


@pytest.mark.parametrize(
    "bad, named",
    [
        ("{\n", "line 2 is damaged"),
        ("[]\n", "line 2 is damaged"),
        ("\n", "line 2 is damaged"),
        ('{"row": 1}\n', "line 2 is damaged"),
        (line(ROWS), "line 2: row 12 is outside"),
        (line(-1), "line 2: row -1 is outside"),
        (line(True), "line 2: row True is outside"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, bad, named):
    path = journal(tmp_path / "pred_x0.pth", line(3), bad, line(4))
    for use in (open_x0_file, lambda path: create(path, rows=ROWS)):
        with pytest.raises(InputError, match=f"pred_x0.rows.1.jsonl: {named}"):
            use(path)


def test_rows_folded_already_do_no_harm(tmp_path):
    """Killed after the sidecar was saved, before the journals were deleted."""
    path = journal(tmp_path / "pred_x0.pth", line(0))
    with create(path, rows=ROWS) as writer:
        assert writer.whole == {0}
    assert open_x0_file(path).rows == [0] and len(list(tmp_path.iterdir())) == 2


def test_without_locks_the_run_goes_on(tmp_path, monkeypatch, capsys):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    path = tmp_path / "pred_x0.pth"
    with (
        create(path, rows=ROWS, process=(0, 2)) as one,
        create(path, rows=ROWS, process=(1, 2)) as two,
    ):
        one.write_row(0, x0_of(0), info_of(0))
        two.write_row(1, x0_of(1), info_of(1))
        assert one.count_whole() == two.count_whole() == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "no file locks" in lines[0]
    assert open_x0_file(path).rows == [0, 1]
    write(path, [2])
    assert open_x0_file(path).rows == [0, 1, 2] and not list(tmp_path.glob("*.jsonl"))


def told(work, *args):
    """What a process of its own sends first, of work(pipe, *args)."""
    answers, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=work, args=(theirs, *args), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0 and answers.poll()
    return answers.recv()


def fill_the_disk(said, path):
    """The journal's file may not grow beyond one and a half lines: the second row is lost, the
    third gets in again."""
    with create(path, rows=ROWS) as writer:
        writer.write_row(0, x0_of(0), info_of(0))
        writer._file.close()  # of the data, whose file is larger than the limit below
        journal = writer._journal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = len(line(0)) * 3 // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            journal.append([1], [info_of(1)])
            said.send("written")
        except OSError as error:
            said.send(error.strerror)
        whole = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_FSIZE, whole)
        journal.append([2], [info_of(2)])


def test_a_full_disk_leaves_the_row_not_whole(tmp_path):
    path = tmp_path / "pred_x0.pth"
    assert told(fill_the_disk, path) == "File too large"
    assert open_x0_file(path).rows == [0, 2]


def write_few_and_many(said, folder):
    """Tell how many bytes this process handed to the kernel for 250 and for 2000 rows."""
    info = {"prompt": "p" * 80, "seed": 1, "timesteps": list(range(981, 0, -20))}
    counts = []
    for rows in (250, 2000):
        before = written()
        shape = (rows, 50, (1, 1, 1, 1))
        with create_x0_file(folder / f"{rows}.pth", *shape, torch.float16, {}) as writer:
            for row in range(rows):
                writer.write_row(row, torch.zeros(50, 1, 1, 1, 1), info)
                assert writer.count_whole() == row + 1
        counts.append(written() - before)
    said.send(counts)


def written():
    """Bytes that this process has written up to now."""
    return int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0])


def test_bytes_written_grow_with_the_rows_not_with_their_square(tmp_path):
    """A row is 2 of these bytes here, the rest is the sidecar's and journal's."""
    few, many = told(write_few_and_many, tmp_path)
    assert few < 400_000 and many / few == pytest.approx(2000 / 250, rel=0.2)
