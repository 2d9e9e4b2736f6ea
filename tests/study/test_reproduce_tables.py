"""python reproduce_tables.py: it makes what is missing, goes on where it was stopped, refuses what
it cannot use."""

import shutil
import signal
import subprocess
import time

import pandas as pd
import psutil
import pytest

from lvd.utils.config import ROOT
from tests.worlds.study_world import SEEDS, command

LAST = f"votes shared {SEEDS[-1]} on held out"  # a task that nothing else needs


@pytest.fixture(scope="module")
def tables(study_world):
    """The study world with table a."""
    assert study_world.reproduce("--tables", "a") == 0
    return study_world


def test_table_a(tables):
    rules = pd.read_csv(tables.tables / "a_rules.csv")
    assert set(rules["seeds"]) == {len(SEEDS)}
    assert rules["accuracy"].between(rules["accuracy_low"], rules["accuracy_high"]).all()
    assert rules["accuracy"].max() > 0.7  # the recordings' signal is found
    assert "| one shared detector | chosen rule |" in tables.page("a")
    index = (tables.tables / "README.md").read_text()
    assert "(a.md)" in index and "(b.md)" not in index


def test_what_is_done_is_not_done_again(tables, capsys):
    assert tables.reproduce("--tables", "a", "--dry-run") == 0
    assert capsys.readouterr().out == "0 tasks missing\n"


def pages_of(world):
    """The pages and tables, without the load and the date at their ends."""
    files = [*world.tables.glob("a*.csv"), world.tables / "a.md"]
    return {path.name: path.read_text().partition("- commit:")[0] for path in files}


def forget(world, name):
    """Let a task and its output be missing again; returns the path of its log."""
    slug = name.replace(" ", "_")
    (world.work / "done" / f"{slug}.json").unlink()
    shutil.rmtree(world.work / "votes" / f"shared_{SEEDS[-1]}" / "held_out")
    log = world.work / "logs" / f"{slug}.log"
    log.unlink()
    return log


def children_of(process):
    """The running processes that another has started."""
    found = psutil.Process(process.pid).children()
    return [child for child in found if "embed_model.py" in child.cmdline()]


def start(world, *flags, **options):
    """reproduce_tables.py as a process of its own, running."""
    words = command(*world.words("--tables", "a", *flags))
    return subprocess.Popen(words, text=True, cwd=ROOT, **options)


def wait_until(is_so, seconds=60):
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_killed_and_run_again(tables, sign):
    before = pages_of(tables)
    log = forget(tables, LAST)
    process = start(tables, stderr=subprocess.PIPE)
    wait_until(lambda: log.exists() and children_of(process))
    child = children_of(process)[0]
    process.send_signal(sign)
    said = process.communicate(timeout=60)[1]
    child.wait(10)  # it ends, too
    if sign == signal.SIGTERM:
        last = "interrupted; run the same command again to go on"
        assert process.returncode == 143 and said.splitlines()[-1] == last
    assert not (tables.work / "done" / f"{log.stem}.json").exists()
    if sign == signal.SIGKILL:
        assert tables.reproduce("--tables", "a") == 0
    else:
        again = start(tables, stdout=subprocess.DEVNULL)
        assert again.wait(120) == 0
    assert pages_of(tables) == before
