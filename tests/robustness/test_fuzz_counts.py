"""benchmarks/robustness/fuzz.py: what it makes of the report of tests/fuzz."""

import subprocess
from types import SimpleNamespace

import pytest

from benchmarks.robustness import fuzz
from tests.worlds.refusals import refused

REPORT = (
    "eval.pth\t80 cases\t1 faults\n"
    "eval.pth\t1 x\taccepted, though no such content is sound\tseed: text | seed: null\n"
    "guard, copy=deepcopy\t3 cases\t0 faults\n"
    "guard\t24 cases\t0 faults\n"
)


@pytest.fixture
def pytest_ends(monkeypatch):
    """function of (status, report): pytest writes that report and ends with that status."""

    def ends(status, report):
        def run(command, cwd, env):
            run.command, run.env = command, env
            with open(env["LVD_FUZZ_REPORT"], "a") as file:
                file.write(report)
            return subprocess.CompletedProcess(command, status)

        monkeypatch.setattr(fuzz, "subprocess", SimpleNamespace(run=run))
        return run

    return ends


def test_counts_and_faults_are_a_section_of_the_result_file(tmp_path, pytest_ends):
    out = tmp_path / "robustness.txt"
    out.write_text("== kills ==\n4 trials\n")
    run = pytest_ends(1, REPORT)
    with pytest.raises(SystemExit):
        fuzz.main(["--out", str(out), "--cases", "20", "--parts", "results,guard"])
    assert run.env["LVD_FUZZ_CASES"] == "20"
    assert run.command[-2:] == ["tests/fuzz/test_fuzz_results.py", "tests/fuzz/test_fuzz_guard.py"]
    kills, counts = out.read_text().split("== fuzz ==\n")
    assert kills == "== kills ==\n4 trials\n\n"
    table = [line.split() for line in counts.splitlines()]
    assert ["eval.pth", "80", "1"] in table and ["guard,", "copy=deepcopy", "3", "0"] in table
    assert ["all", "104", "1"] in table  # the guard's situations are counted once
    assert "eval.pth: 1 x accepted, though no such content is sound (such as seed: text)" in counts
    assert "some failed" in counts and "seconds: " in counts


def test_without_faults_the_status_is_0(tmp_path, pytest_ends):
    pytest_ends(0, "eval.pth\t80 cases\t0 faults\n")
    assert fuzz.main(["--out", str(tmp_path / "r.txt")]) == 0
    assert "all passed" in (tmp_path / "r.txt").read_text()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--cases", "0"], ["--cases 0"]),
        (["--processes", "-1"], ["--processes -1"]),
        (["--parts", "all,none"], ["--parts all", "settings"]),
        ([], ["no case was run", "status 4"]),
    ],
)
def test_what_is_refused(tmp_path, capsys, pytest_ends, flags, words):
    pytest_ends(4, "")
    refused(fuzz.main(["--out", str(tmp_path / "r.txt"), *flags]), capsys, *words)
    assert not (tmp_path / "r.txt").exists()
