"""A disk that is full, a folder that cannot be written: one line that names the file and why."""

import errno
import os
import resource
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import build_eval_set
from lvd.data.clip_file import link_clip, write_clip
from lvd.utils import files, locks, partials
from lvd.utils.cli import Parser, run_command
from lvd.utils.config import ROOT
from lvd.utils.jsonl import append_lines, open_lines
from lvd.utils.plots import save_figure, subplots
from lvd.utils.video import write_mp4
from lvd.x0.sidecar import new_sidecar, save_sidecar
from MagicTime.utils.video import write_filmstrip, write_gif
from tests.worlds.detector_world import make_world
from tests.worlds.refusals import refused

FRAMES = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
RANDOM = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
SIDECAR = new_sidecar((1, 1, 1, 1, 1, 1), torch.float32, {"words": "x" * 9000})


def _figure(path):
    figure, axes = subplots()
    axes.plot([1, 2])
    save_figure(figure, path)


WRITERS = {
    "x.pth": lambda path: files.save_torch({"a": RANDOM, "b": [1] * 5000}, path),
    "x.json": lambda path: files.save_json(list(range(9000)), path),
    "x.yaml": lambda path: files.save_yaml(list(range(3000)), path),
    "x.csv": lambda path: files.save_csv([{"a": k} for k in range(9000)], path),
    "x.mp4": lambda path: write_mp4(path, FRAMES),
    "x.gif": lambda path: write_gif(path, FRAMES, 8),
    "strip.png": lambda path: write_filmstrip(path, [("a", FRAMES)]),
    "plot.png": _figure,
    "3.pt": lambda path: write_clip(path.with_suffix(""), RANDOM, "latent"),
    "pred_x0.json": lambda path: save_sidecar(SIDECAR, path),
}


@contextmanager
def largest_file(size):
    """No file of this process may become larger: writing ends as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_is_whole_or_named(name, tmp_path):
    path, write = tmp_path / name, WRITERS[name]
    write(path)
    whole = path.read_bytes()
    for share in (0, 0.01, 0.3, 0.5, 0.9, 0.99, 1):
        size = max(0, int(share * len(whole)) - 1)
        path.write_bytes(b"before")
        with pytest.raises(OSError) as caught, largest_file(size):
            write(path)
        assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path), share
        assert [each.name for each in tmp_path.iterdir()] == [name]  # no partial file
        assert path.read_bytes() == b"before"
    with largest_file(len(whole)):
        write(path)
    assert path.read_bytes() == whole


def test_lines_of_json_are_named_too(tmp_path):
    with open_lines(tmp_path / "x.jsonl") as file:
        append_lines(file, [1])
        with pytest.raises(OSError) as caught, largest_file(10):
            append_lines(file, ["x" * 100])
    assert caught.value.filename == str(tmp_path / "x.jsonl")
    assert (tmp_path / "x.jsonl").read_text() == "1\n"


@pytest.mark.parametrize(
    "number, words",
    [
        (errno.ENOSPC, "no space left on the disk"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "the disk failed"),
    ],
)
def test_what_was_wrong_is_said(number, words, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(partials.os, "fsync", refuse)
    status = run_command(_parser(), lambda _: files.save_json(1, tmp_path / "x.json"), [])
    line = refused(status, capsys, words, alone=True)
    assert line.startswith(f"error: {tmp_path / 'x.json'}: ")
    assert not list(tmp_path.iterdir())


def _parser():
    return Parser("a test", "none")


def test_a_copy_on_a_full_disk_names_the_copy(tmp_path, monkeypatch):
    """Not the clip that it is made from."""
    write_clip(tmp_path / "3", RANDOM, "latent")

    def no_links(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(OSError) as caught, largest_file(1000):
        link_clip(tmp_path / "3.pt", tmp_path / "copy" / "3.pt")
    assert caught.value.filename == str(tmp_path / "copy" / "3.pt")
    link_clip(tmp_path / "3.pt", tmp_path / "copy" / "3.pt")
    assert (tmp_path / "copy" / "3.pt").read_bytes() == (tmp_path / "3.pt").read_bytes()


def test_a_damaged_target_is_linked_anew(tmp_path):
    write_clip(tmp_path / "3", RANDOM, "latent")
    (tmp_path / "4.pt").write_bytes(b"x")
    for _ in range(2):
        link_clip(tmp_path / "3.pt", tmp_path / "4.pt")
        assert os.path.samefile(tmp_path / "3.pt", tmp_path / "4.pt")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("target, words", [("file/x", "file"), ("/proc/nowhere/x", "/proc")])
def test_a_folder_that_cannot_be_made(target, words, tmp_path, capsys):
    """A file in the folder's place; a file system that takes no files."""
    (tmp_path / "file").write_text("")
    path = os.path.join(tmp_path, target)
    status = run_command(_parser(), lambda _: files.save_json(1, path), [])
    refused(status, capsys, words, alone=True)


def test_a_folder_in_the_place_of_a_file(tmp_path, capsys):
    (tmp_path / "x.json").mkdir()
    status = run_command(_parser(), lambda _: files.save_json(1, tmp_path / "x.json"), [])
    refused(status, capsys, "x.json: is a folder", alone=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def test_scripts_say_it_in_one_line(world, tmp_path, capsys):
    """A file in the place of the folder of the results."""
    (tmp_path / "file").write_text("")
    words = ["--eval_dir", str(world.eval), "--data_dir", str(world.data)]
    status = build_eval_set.main([*words, "--save_dir", str(tmp_path / "file")])
    refused(status, capsys, str(tmp_path / "file"))


def run_to(stdout, code):
    """A command whose output goes there: (exit status, stderr)."""
    code = f"from lvd.utils.cli import *\nsys.exit(run_command(Parser('', ''), {code}, []))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    return done.returncode, done.stderr


def test_a_full_disk_under_the_output():
    with open("/dev/full", "w") as full:
        status, said = run_to(full, "lambda _: summary('done', {}, [])")
    assert status == 2
    assert said == "error: standard output: no space left on the disk\n"


def test_output_that_nobody_reads():
    ours, theirs = os.pipe()
    os.close(ours)
    status, said = run_to(theirs, "lambda _: summary('done', {}, [])")
    os.close(theirs)
    assert status == 2 and said == "error: standard output: nobody reads it any more\n"


def test_a_lock_that_is_waited_for_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "SHORT", 0.1)
    free = threading.Event()

    def hold(entered):
        with locks.folder_lock(tmp_path):
            entered.set()
            free.wait(30)

    entered = threading.Event()
    holder = threading.Thread(target=hold, args=(entered,))
    holder.start()
    entered.wait(30)
    threading.Timer(0.5, free.set).start()
    with locks.folder_lock(tmp_path):
        holder.join()
    assert f"{tmp_path}: waiting for another process" in capsys.readouterr().err


def test_json_of_another_locale(tmp_path):
    """A file is UTF-8 whatever the process's locale says."""
    code = (
        "from lvd.utils.files import *; save_yaml({'a': 'ü'}, 'x.yaml'); "
        "save_csv([{'a': 'ü'}], 'x.csv')"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0", "LC_ALL": "C"}
    environment |= {"PYTHONCOERCECLOCALE": "0"}
    (tmp_path / "code.py").write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, "code.py"], cwd=tmp_path, env=environment)
    assert done.returncode == 0
    assert files.load_yaml(tmp_path / "x.yaml") == {"a": "ü"}
    assert (tmp_path / "x.csv").read_text(encoding="utf-8") == "a\nü\n"
