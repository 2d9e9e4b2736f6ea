"""benchmarks/README.md names every benchmark, flags that exist and files that they write."""

import importlib
import re
import shlex

import pytest

from lvd.utils.config import ROOT

PAGE = (ROOT / "benchmarks" / "README.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `python benchmarks/")]
COMMANDS = [re.match(r"\| `python benchmarks/(\S+)\.py ?([^`]*)`", row).groups() for row in ROWS]


def module_of(script):
    return importlib.import_module(f"benchmarks.{script.replace('/', '.')}")


def test_every_benchmark_stands_there():
    scripts = set()
    for path in (ROOT / "benchmarks").rglob("*.py"):
        if path.parent.name != "common" and "def build_parser" in path.read_text():
            scripts.add(path.relative_to(ROOT / "benchmarks").with_suffix("").as_posix())
    assert scripts == {script for script, _ in COMMANDS}


@pytest.mark.parametrize(("script", "flags"), COMMANDS)
def test_its_flags_exist(script, flags):
    module_of(script).build_parser().parse_args(shlex.split(flags))


@pytest.mark.parametrize(("script", "row"), [(c[0], row) for c, row in zip(COMMANDS, ROWS)])
def test_its_result_file_is_the_one_named(script, row):
    module = module_of(script)
    keys = ("RESULT_FILE", "FULL_RESULT_FILE", "SHARDS_FILE")
    names = [getattr(module, key, None) for key in keys]
    named = row.split("|")[4]
    assert any(f"`{name}`" in named for name in names if name) or script == "detectors/recipes"
