"""The guard in MagicTime's sampler: killed runs, several processes, one file of verdicts."""

import signal
import time

import pytest
import torch

from lvd.x0.file import open_x0_file
from MagicTime.utils.verdicts import Verdicts
from tests.worlds import forked
from tests.worlds.guard_world import SCRIPT, facts, guard_flags, lines_of, make_home
from tests.worlds.sampler_command import command, sample


@pytest.fixture(scope="module")
def home(world, tmp_path_factory):
    return make_home(world, tmp_path_factory.mktemp("guarded"))


@pytest.mark.slow
def test_resume_after_a_kill(home, tmp_path):
    out = tmp_path / "out"
    process = forked.start(SCRIPT, *command(home.config, out, *guard_flags(home)))
    deadline = time.time() + 60
    while (
        not (out / "verdicts.jsonl").exists() and time.time() < deadline and process.poll() is None
    ):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert sample(home.config, out, *guard_flags(home)) == 0
    assert facts(out) == facts(home.out)
    assert (out / "pred_x0.pth").read_bytes() == (home.out / "pred_x0.pth").read_bytes()


@pytest.mark.slow
def test_two_processes_say_the_same(home, tmp_path):
    """One thread each, as the run beside them: sums of other numbers of threads differ in the last
    bits."""
    runs = {"two": 2, "one": 1}
    for name, count in runs.items():
        words = command(home.config, tmp_path / name, *guard_flags(home))
        found = forked.run(SCRIPT, *words, processes=count)
        assert found.returncode == 0, found.stderr
    assert (
        facts(tmp_path / "two") == facts(tmp_path / "one") and len(lines_of(tmp_path / "two")) == 7
    )
    one, two = (open_x0_file(tmp_path / name / "pred_x0.pth") for name in runs)
    assert torch.equal(one.tensor, two.tensor) and one.rows == two.rows
    videos = [sorted(p.name for p in (tmp_path / name / "videos").iterdir()) for name in runs]
    assert videos[0] == videos[1]


APPEND_FIFTY = """
import sys
from MagicTime.utils.verdicts import Verdicts
folder, number = sys.argv[1], int(sys.argv[2])
for k in range(number * 50, number * 50 + 50):
    line = {"row": k, "verdict": "safe", "stopped": False, "filler": "x" * 9000}
    Verdicts(folder).append([line])
"""


def test_lines_of_many_processes_stay_whole(tmp_path):
    script = tmp_path / "append_fifty.py"
    script.write_text(APPEND_FIFTY)
    several = [forked.start(script, tmp_path, number) for number in range(3)]
    assert [process.wait() for process in several] == [0, 0, 0]
    assert (
        sorted(Verdicts(tmp_path).read()) == list(range(150)) and Verdicts(tmp_path).count() == 150
    )
