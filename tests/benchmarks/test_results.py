"""Where benchmarks write, and what every result file says of the run that made it."""

import subprocess

import pytest
import torch

from benchmarks.common import machine, results
from benchmarks.common.report import Report
from benchmarks.detectors import shared
from benchmarks.guard import flops, pipelines


@pytest.mark.parametrize("module", [shared, flops, pipelines])
def test_committed_results_are_written_when_asked_for(module, tmp_path):
    def path_of(*flags):
        args = module.build_parser().parse_args(flags)
        return results.results_path(args, module.RESULT_FILE)

    assert path_of() == results.OUTPUTS / module.RESULT_FILE
    assert path_of("--commit_results") == results.COMMITTED / module.RESULT_FILE
    assert path_of("--out", str(tmp_path / "f.csv")) == tmp_path / "f.csv"
    ignored = (results.ROOT / ".gitignore").read_text().splitlines()
    assert f"{results.OUTPUTS.parent.relative_to(results.ROOT)}/" in ignored


def test_one_place_is_named(capsys):
    assert flops.main(["--out", "f.csv", "--commit_results"]) == 2
    assert "--commit_results" in capsys.readouterr().err


def test_both_files_begin_with_what_the_figures_were_taken_on(tmp_path):
    report = Report("A title", tmp_path / "f.csv")
    report.facts["steps"] = "all"
    report.add("part", "milliseconds", [("one", {"ms": 1.23456, "files": 7})])
    report.add("part", "milliseconds", [("two", {"ms": 20000.4, "hits": None})])
    text = (tmp_path / "f.txt").read_text().splitlines()
    assert text[0] == "A title" and text[1] == f"  commit: {report.facts['commit']}"
    for name in ("versions", "date", "cpu", "steps"):
        assert f"  {name}: {report.facts[name]}" in text[:9]
    for name in ("python", f"torch {torch.__version__}", "diffusers", "transformers", "lvd"):
        assert name in report.facts["versions"]
    shown = [line.split() for line in text[-3:]]
    assert shown == [["ms", "files", "hits"], ["one", "1.235", "7"], ["two", "20000"]]
    lines = (tmp_path / "f.csv").read_text().splitlines()
    assert lines[:2] == ["part,case,quantity,value", f"machine,,commit,{report.facts['commit']}"]
    assert lines[-4:] == [
        "part,one,ms,1.23456",
        "part,one,files,7",
        "part,two,ms,20000.4",
        "part,two,hits,",
    ]


def test_the_commit_is_named(tmp_path):
    def git(*words):
        own = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *own, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert machine.commit(tmp_path) == "unknown"
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    head = git("rev-parse", "--short", "HEAD")
    (tmp_path / "untracked").write_text("1")
    assert machine.commit(tmp_path) == head
    (tmp_path / "a").write_text("2")
    assert machine.commit(tmp_path) == f"{head}+changes"
