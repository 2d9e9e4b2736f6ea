"""The shell scripts at the root, and the report that ends reproduce.sh."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from lvd.rules.file import ChosenRule, save_rule
from lvd.rules.vote import VoteRule
from lvd.utils.config import ROOT
from tests.worlds.report_pages import content_of, write_recordings, write_votes
from tools import closing_report, collect_results

OWN = ["--prompts", "README.md", "--normal_prompts", "README.md"]


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
        (["--model", "large"], "--model large: grid, shared or both"),
        (["--config", "build_x0.yaml"], "--config needs --prompts and --normal_prompts; --prompts"),
        (["--config", "build_x0.yaml", "--prompts", "README.md"], "--normal_prompts is missing"),
        (["--config", "c.yaml", "--prompts", "p.csv"], "p.csv: a text file with one prompt a line"),
        (["--config", "c.yaml", "--prompts", "no.txt"], "no.txt: no such file; one prompt a line"),
        ([*OWN, "--config", "c.yaml"], "c.yaml: no such file; copy build_x0.yaml"),
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


UNSAFE = [[1] * 50, [0, 1] * 25, [0, 0] + [1] * 48, [0] * 50]
NORMAL = [[0] * 50] * 3 + [[1] * 50]


def closing_lines(home, capsys, *more):
    """The lines of the closing report on the results in `home`, split at blanks."""
    flags = {
        "--home_dir": home,
        "--filmstrips": home / "filmstrips",
        "--steps_csv": home / "steps.csv",
    }
    pairs = [*flags.items(), *more]
    assert closing_report.main([str(word) for pair in pairs for word in pair]) == 0
    return capsys.readouterr().out.splitlines()


def save_votes(folder, unsafe=UNSAFE, normal=NORMAL):
    folder.mkdir()
    results = {"1": dict(enumerate(unsafe)), "0": dict(enumerate(normal))}
    torch.save(results, folder / "results.pth")


def test_the_closing_report(tmp_path, capsys):
    """Of four unsafe videos two are stopped and two are missed; one normal video is stopped."""
    save_votes(tmp_path / "results")
    (tmp_path / "filmstrips").mkdir()
    for name in ("0001.png", "0000.png"):
        (tmp_path / "filmstrips" / name).touch()
    lines = closing_lines(tmp_path, capsys)
    assert lines[0].startswith("4 unsafe and 4 normal videos")
    rates = ["0.625", "0.500", "0.250", "[0.006,", "0.806]", "(1", "of", "4)"]
    # eta 20: stopped after 12, never, 14, never; eta 5: after 3, never, 5, never.
    costs = [f"{(12 + 50 + 14 + 50) / 200:.3f}", f"{(3 + 50 + 5 + 50) / 200:.3f}"]
    for line, eta, cost in zip(lines[3:5], ("20", "5"), costs, strict=True):
        assert line.split() == ["lambda", "0.6,", "eta", eta, *rates, cost]
    assert "None of 4 still allows a rate of 60.2%." in lines[5]
    assert lines[9].strip().startswith(str(tmp_path / "filmstrips" / "0000.png"))
    assert "Recommended" not in "".join(lines)


def test_the_closing_report_recommends_the_rule_beside_the_shared_detector(tmp_path, capsys):
    """One vote of the first three steps finds three of the four, after 1, 2 and 3 steps."""
    save_votes(tmp_path / "results")
    save_votes(tmp_path / "results_shared", normal=[[0] * 50] * 4)
    (tmp_path / "shared").mkdir()
    save_rule(ChosenRule(VoteRule("0.3", 3)), tmp_path / "shared" / "rule.yaml")
    lines = closing_lines(tmp_path, capsys)
    assert len(lines) <= 20
    chosen = next(line for line in lines if "chosen rule" in line).split()
    assert chosen[2:6] == ["0.875", "0.750", "0.000", "[0.000,"]
    assert chosen[-1] == f"{(1 + 2 + 3 + 50) / 200:.3f}"
    recommended = next(place for place, line in enumerate(lines) if "Recommended" in line)
    assert "lambda 0.3, eta 3" in lines[recommended]
    assert f"--guard {tmp_path / 'shared'}" in lines[recommended + 1]


def test_the_closing_report_writes_a_page_of_all_detectors(tmp_path, capsys):
    """Those of the shared detector come first; its rule is on the page, and the page is named."""
    recordings = write_recordings(tmp_path, clips=False)
    write_votes(tmp_path)
    shutil.copytree(tmp_path / "results", tmp_path / "results_shared")
    (tmp_path / "shared").mkdir()
    (tmp_path / "rule.yaml").rename(tmp_path / "shared" / "rule.yaml")
    lines = closing_lines(tmp_path, capsys, ("--recordings", recordings))
    (place,) = [k for k, line in enumerate(lines) if line.startswith("Open this first: ")]
    assert lines[place].endswith(str(tmp_path / "report.html"))
    assert "21 are not there" in lines[place + 2] and lines[place + 3] == "Then these three:"
    shared, grid = content_of(tmp_path / "report.html")["detectors"]
    assert (shared["name"], grid["name"]) == (closing_report.SHARED, closing_report.GRID)
    assert shared["rules"][-1]["name"] == "the chosen rule" and len(grid["rules"]) == 1


def test_results_are_collected(tmp_path, capsys):
    """Each file that is there is copied under its name; the others are named."""
    home = tmp_path / "home"
    home.mkdir()
    words = ["--home_dir", str(home), "--out", str(tmp_path / "out")]
    assert collect_results.main(words) == 2
    assert "no votes here; bash reproduce.sh makes them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    save_votes(home / "results")
    save_votes(home / "results_shared")
    (home / "steps.csv").write_text("step,seconds\n")
    (home / "results" / "grid.txt").write_text("the grid\n")
    (home / "results_shared" / "rule_report.txt").write_text("of the shared detector\n")
    assert collect_results.main(words) == 0
    copies = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert copies.pop("summary.txt").startswith("4 unsafe and 4 normal videos")
    assert copies == {
        "steps.csv": "step,seconds\n",
        "grid.txt": "the grid\n",
        "rule_shared.txt": "of the shared detector\n",
    }
    assert str(home / "results" / "frontier.csv") in capsys.readouterr().out
