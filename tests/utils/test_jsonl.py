"""Lines of JSON are whole or absent: after a kill, on a full disk, while others write."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from lvd.utils.jsonl import append_lines, cut_half_line, open_lines, read_lines

ENTRIES = [{"row": 1, "text": "ä\u2028\n"}, {"row": 2, "text": ""}]


def parsed(path):
    return [json.loads(line) for line in read_lines(path)[0]]


def test_what_is_appended_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    with open_lines(path) as file:
        append_lines(file, ENTRIES[:1])
        append_lines(file, ENTRIES[1:])
        append_lines(file, [])
    assert parsed(path) == ENTRIES
    assert path.read_bytes().count(b"\n") == 2


def test_reading_goes_on_from_an_offset(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n2\n3")
    assert read_lines(path) == ([b"1", b"2"], 4)
    assert read_lines(path, 4) == ([], 4)
    path.write_bytes(b"1\n2\n33\n\n4")
    assert read_lines(path, 4) == ([b"33", b""], 8)


@pytest.mark.parametrize("there, kept", [(b"", b""), (b"1", b""), (b"1\n2", b"1\n"), (b"1\n",) * 2])
def test_half_a_line_is_taken_away(tmp_path, there, kept):
    path = tmp_path / "a.jsonl"
    path.write_bytes(there)
    with open_lines(path) as file:
        cut_half_line(file)
        assert path.read_bytes() == kept
        append_lines(file, [3])
    assert path.read_bytes() == kept + b"3\n"


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    """The error comes after half of the bytes were written."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n")

    def full(_):
        raise OSError(errno.ENOSPC, "full")

    with open_lines(path) as file, monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="full"):
            append_lines(file, ENTRIES)
    assert path.read_bytes() == b"1\n"


def test_a_killed_writer_leaves_whole_lines(tmp_path):
    """A process that appends for ever is killed; another goes on in its file."""
    path = tmp_path / "a.jsonl"
    endless = (
        "import itertools, sys\n"
        "from lvd.utils.jsonl import append_lines, open_lines\n"
        "file = open_lines(sys.argv[1])\n"
        "for k in itertools.count():\n"
        "    append_lines(file, [{'row': k, 'text': 'x' * 5000}])\n"
        "    if k == 20:\n"
        "        print('running', flush=True)\n"
    )
    command = [sys.executable, "-c", endless, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    rows = [entry["row"] for entry in parsed(path)]
    assert rows == list(range(len(rows))) and len(rows) > 20
    with open_lines(path) as file:
        cut_half_line(file)
        append_lines(file, [{"row": -1}])
    assert [entry["row"] for entry in parsed(path)] == [*rows, -1]
