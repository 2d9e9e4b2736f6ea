"""benchmarks/full_size.py, which needs a GPU: the same code at tiny size on the CPU."""

import json
import time

import pytest

from benchmarks import full_size
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figures import Figures
from tests.worlds.refusals import refused

PARTS = [name for name in full_size.PARTS if name != "compile"]  # it takes a compiler


@pytest.mark.slow
def test_every_part_runs_and_everything_holds(tmp_path):
    out = tmp_path / "full_size.txt"
    parts = ["--parts", ",".join(PARTS)]
    assert full_size.main(["--smoke", *parts, "--out", str(out), "--note", "by hand"]) == 0
    machine, *cases = map(json.loads, out.with_suffix(".jsonl").read_text().splitlines())
    assert {"commit", "versions", "date", "gpu", "cuda", "note"} <= set(machine["machine"])
    assert list(dict.fromkeys(case["part"] for case in cases)) == PARTS
    for case in cases:
        figures = case["figures"]
        assert not {"error", "skipped", "stopped"} & set(figures), case
        assert False not in [value for value in figures.values() if value is False], case
    told = out.read_text()
    assert "by hand" in told and "same bits as unguarded yes" in told
    again = tmp_path / "again.txt"
    lines = out.with_suffix(".jsonl")
    assert full_size.main(["--from_jsonl", str(lines), "--out", str(again)]) == 0
    assert again.read_text() == told


@pytest.fixture
def bench(tmp_path):
    import torch

    made = Bench(torch.device("cpu"), None, tmp_path, Figures(tmp_path / "found.txt"))
    made.part, made.deadline = "part", time.monotonic() + 60
    return made


def test_a_case_that_fails_or_takes_too_long_stops_no_other(bench):
    def fails():
        raise ValueError("no such kernel")

    def waits():
        try:
            time.sleep(60)
        except Exception:  # what the guard does with errors of detectors
            pytest.fail("the end of the time was taken for an error")

    bench.measure("fails", fails)
    assert bench.measure("holds not", lambda: {"ms": 1.5, "same bits": False})
    bench.deadline = time.monotonic() + 4
    bench.measure("waits", waits)
    assert time.monotonic() - bench.deadline < 3
    bench.measure("late", lambda: {})
    found = {case["case"]: case["figures"] for case in bench.figures.cases}
    assert found["fails"]["error"] == "ValueError: no such kernel"
    assert "test_full_size.py" in found["fails"]["traceback"]
    assert found["waits"] == {"stopped": "out of time"}
    assert found["late"] == {"skipped": "no time left"}
    assert [case["case"] for case in bench.figures.errors] == ["fails"]
    assert bench.figures.broken == ["part, holds not: same bits"]
    text = bench.figures.text.read_text()
    assert "same bits NO" in text and "fails: error ValueError: no such kernel" in text
    assert "skipped, no time left: 1 case" in text and "Traceback" not in text


def test_a_part_that_fails_ends_alone(bench):
    def part():
        raise RuntimeError("no weights")

    bench.whole(part)
    (case,) = bench.figures.errors
    assert case["figures"]["error"] == "RuntimeError: no weights"


def test_refusals(tmp_path, capsys):
    out = ["--out", str(tmp_path / "full_size.txt"), "--smoke"]
    refused(full_size.main([*out, "--parts", "sampler,odd"]), capsys, "--parts odd", "compile")
    refused(full_size.main([*out, "--seconds", "0"]), capsys, "--seconds 0")
    refused(full_size.main(["--from_jsonl", str(tmp_path / "no"), *out]), capsys, "no such file")
