"""The shell scripts at the root, and the report that ends reproduce.sh."""

import os
import subprocess
import sys

import pytest
import torch

from lvd.utils.config import ROOT
from tools import closing_report


def bash(*words, folder=ROOT, **environment):
    return subprocess.run(
        ["bash", *map(str, words)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("script", ["reproduce.sh", "run_tests.sh", "tools/setup_env.sh"])
def test_the_syntax_is_right(script):
    assert bash("-n", script).returncode == 0


def test_reproduce_helps(tmp_path):
    done = bash(ROOT / "reproduce.sh", "--help", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: bash reproduce.sh")


@pytest.mark.parametrize(
    "words, error",
    [
        (["--scale"], "--scale needs a value"),
        (["--scale", "huge"], "--scale huge: quick or full"),
        (["--speed", "9"], "unknown argument --speed"),
        (["--prompts", "p.txt"], "--prompts and --normal_prompts go with --config"),
        (["--config", "c.yaml", "--scale", "full"], "--scale is for the tiny world"),
        (["--gpu_num", "one"], "--gpu_num one: a CUDA device"),
        (["--gpu_num", "-2"], "--gpu_num -2: a CUDA device"),
        (["--processes", "0"], "--processes 0: auto or a number"),
        (["--processes", "many"], "--processes many: auto or a number"),
    ],
)
def test_reproduce_refuses_in_one_line(words, error):
    done = bash("reproduce.sh", *words)
    assert done.returncode == 2
    assert error in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_reproduce_says_what_will_happen_before_it_does(tmp_path):
    """Without a usable Python nothing begins, but the outline is there."""
    done = bash("reproduce.sh", PYTHON="/nowhere/python")
    assert done.returncode == 2
    assert "Python 3.10 to 3.13 is needed" in done.stderr
    assert "3 min   sample 200 unsafe videos" in done.stdout
    assert "goes on where it was" in done.stdout


def test_tests_begin_with_the_style(tmp_path):
    """A repository of one badly formatted file: ruff's complaint and the command that mends it."""
    for name in ("run_tests.sh", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "setup_env.sh").write_text(f"setup_env() {{ PY={sys.executable}; }}\n")
    (tmp_path / "bad.py").write_text("x = ( 1 )\n")
    done = bash(tmp_path / "run_tests.sh", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("-m ruff format .\n")
    (tmp_path / "bad.py").write_text("import os\n")
    assert bash(tmp_path / "run_tests.sh", folder=tmp_path).stderr.endswith("ruff check --fix .\n")


def test_the_closing_report(tmp_path, capsys):
    """Ten lines. Of four unsafe videos two are stopped and two are missed."""
    unsafe = [[1] * 50, [0, 1] * 25, [0, 0] + [1] * 48, [0] * 50]
    results = {"1": dict(enumerate(unsafe)), "0": dict(enumerate([[0] * 50] * 3 + [[1] * 50]))}
    torch.save(results, tmp_path / "results.pth")
    rows = ["lambda,eta,accuracy,tpr,tnr", "0.6,5,0.625,0.5,0.75", "0.6,20,0.625,0.5,0.75"]
    (tmp_path / "grid.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "filmstrips").mkdir()
    for name in ("0001.png", "0000.png"):
        (tmp_path / "filmstrips" / name).touch()
    flags = {
        "--data_dir": tmp_path,
        "--filmstrips": tmp_path / "filmstrips",
        "--steps_csv": "s.csv",
    }
    argv = [str(word) for pair in flags.items() for word in pair]
    assert closing_report.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("4 unsafe and 4 normal videos")
    # eta 20: stopped after 12, never, 14, never; eta 5: after 3, never, 5, never.
    assert lines[2].split() == ["lambda", "0.6,", "eta", "20", "0.625", "0.500", "0.750", "37%"]
    assert lines[3].split() == ["lambda", "0.6,", "eta", "5", "0.625", "0.500", "0.750", "46%"]
    assert lines[6].strip().startswith(str(tmp_path / "filmstrips" / "0000.png"))
