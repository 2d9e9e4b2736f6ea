"""Scripts that are stopped, and run again to the end: the campaign of benchmarks/robustness, a
small part of it."""

import signal

import pytest

from benchmarks.robustness.result_file import write_section
from lvd.utils.config import ROOT
from lvd.utils.partials import atomic, forget_sweeps, sweep_partials
from tests.worlds import forked
from tests.worlds.served import until

CASES = "gen_eval_set,build_x0,build_eval_set,train grid,embed"
KINDS = "SIGKILL,SIGTERM,file size limit,two at once"
CAMPAIGN = ROOT / "benchmarks" / "robustness" / "kills.py"


@pytest.mark.slow
def test_stopped_scripts_make_what_unbroken_ones_make(tmp_path):
    """Of the signals, limits and pairs of each command, those of a seed."""
    out, flags = tmp_path / "counts.txt", ["--launched", "0", "--seed", "7"]
    flags += ["--trials", "20", "--cases", CASES, "--kinds", KINDS]
    flags += ["--out", out, "--work", tmp_path / "work"]
    done = forked.run(CAMPAIGN, *flags, timeout=600)
    assert done.returncode == 0, done.stderr + done.stdout
    total = out.read_text().splitlines()[-1].split()
    assert total[0] == "all" and int(total[1]) == 20
    trials, stopped, faults, partials = map(int, total[1:5])
    assert stopped > trials / 2 and faults == partials == 0


INTERRUPTED = """
import sys, time, torch
from lvd.utils.cli import Parser, run_command
from lvd.utils.partials import atomic
def work(args):
    with atomic("result") as partial:
        print(partial, flush=True)
        time.sleep(60)
sys.exit(run_command(Parser("", ""), work, []))
"""


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_terminated_command_ends_as_an_interrupted_one(name, status, tmp_path):
    command = forked.start_code(INTERRUPTED, folder=tmp_path)
    until(command.out.read_text)
    command.send_signal(signal.Signals[name])
    _, said = command.communicate(timeout=30)
    assert command.returncode == status
    assert said == "interrupted; run the same command again to go on\n"
    assert not list(tmp_path.iterdir())


def test_a_signal_while_torch_writes_is_no_error_of_torch(tmp_path):
    """torch.save answers an interrupted write with a RuntimeError of its own."""
    code = """
import os, signal, torch
from benchmarks.robustness.operations import Operations
from lvd.utils.cli import Parser, run_command
from lvd.utils.files import save_torch
content = {"a": torch.ones(20000), "b": torch.ones(9)}
for at in range(1, 9):
    child = os.fork()
    if child == 0:
        Operations(at, signal.SIGTERM).install()
        os._exit(run_command(Parser("", ""), lambda _: save_torch(content, "x.pth"), []))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = forked.run_code(code, folder=tmp_path)
    assert done.stdout.split() == ["143"] * 8 and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_the_next_write_into_a_folder_sweeps_it(tmp_path):
    code = """
import os, sys
from lvd.utils.partials import atomic
with atomic(sys.argv[1]) as partial:
    partial.write_text("half")
    os._exit(1)
"""
    assert forked.run_code(code, tmp_path / "b.pth", folder=ROOT).returncode == 1
    assert [path.suffixes[-2:] for path in tmp_path.iterdir()] == [[".partial", ".pth"]]
    forget_sweeps()
    with atomic(tmp_path / "c") as partial:
        partial.write_text("whole")
        sweep_partials(tmp_path)  # its own is held
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_living_process_keeps_its_file(tmp_path):
    """Whatever its number is, and however old the file."""
    code = """
import os, sys, time
from lvd.utils.partials import atomic
with atomic(sys.argv[1]) as partial:
    os.utime(partial, (1, 1))
    print(partial, flush=True)
    sys.stdin.read()
"""
    living = forked.start_code(code, tmp_path / "a", folder=ROOT)
    until(living.out.read_text)
    forget_sweeps()
    for _ in range(20):
        with atomic(tmp_path / "b"):
            sweep_partials(tmp_path)
    assert living.wait(30) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_sections_of_a_file_of_counts(tmp_path):
    path = tmp_path / "r.txt"
    write_section(path, "kills", "one\n\ntwo")
    write_section(path, "fuzz", "three")
    write_section(path, "kills", "four\n")
    assert path.read_text() == "== kills ==\nfour\n\n== fuzz ==\nthree\n"


def test_what_the_campaign_would_find(tmp_path):
    """A changed, a missing, a foreign and a partial file; times alone are no difference."""
    from benchmarks.robustness.trials import Ended, differences, faults_of

    one, two = tmp_path / "one", tmp_path / "two"
    for folder, seconds in ((one, 1.0), (two, 2.0)):
        folder.mkdir()
        (folder / "same").write_text("x")
        (folder / "times.csv").write_text(f"a,seconds\n3,{seconds}\n")
    assert differences(one, two) == ([], 1, ["times.csv"])
    (one / "times.csv").write_text("a,seconds\n4,1.0\n")
    (one / ".x.12-3.partial").write_text("")
    (two / "more").write_text("")
    (one / "foreign").write_text("")
    faults, *_ = differences(one, two)
    assert len(faults) == 4
    assert faults_of(Ended(2, "error: a\n"), {0, 2}) == []
    assert len(faults_of(Ended(1, "Traceback (most\n"), {0, 2})) == 2
    assert len(faults_of(Ended(2, "error: a\nerror: b\n"), {0, 2})) == 1
