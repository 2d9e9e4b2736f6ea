"""Processes that train: whoever started them, and how they end."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lvd.training.workers import _how_it_ended, _no_script
from lvd.utils.files import load_torch, save_torch
from tests.worlds.detector_world import make_world
from tests.worlds.magictime_world import ROOT
from tests.worlds.refusals import refused
from tests.worlds.scripts import train

UNGUARDED = "import sys, train_mae; sys.exit(train_mae.main())"


def test_an_unguarded_script_from_stdin_trains_with_workers(tmp_path):
    world = make_world(tmp_path)
    flags = ["--data_dir", world.data, "--eval_dir", world.eval, "--save_dir", world.save]
    flags += ["--epoch", 1, "--batch_size", 8, "--workers", 2, "--together", 1, "--gpu_num", -1]
    done = subprocess.run(
        [sys.executable, "-", *map(str, flags), "--step_num", "0-1", "--group_num", "1"],
        input=UNGUARDED,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and done.stdout.count("detectors trained") == 1, done.stderr
    assert {path.name for path in (world.save / "1").iterdir()} == {"0.pth", "1.pth"}


def test_the_script_is_hidden_from_workers_for_a_moment():
    script = sys.modules["__main__"]
    before = dict(vars(script))
    with pytest.raises(KeyError), _no_script():
        assert script.__file__ is None and script.__spec__ is None
        raise KeyError
    assert vars(script) == before


@pytest.mark.parametrize(
    "codes, words",
    [
        ([-signal.SIGKILL, -signal.SIGTERM], "was killed, as happens when memory runs out"),
        ([None], "was killed"),
        ([-signal.SIGTERM, 1], "failed with status 1 (its own message is above)"),
        ([0, -signal.SIGSEGV, -signal.SIGTERM], "was ended by SIGSEGV"),
        ([-signal.SIGTERM], "was ended by SIGTERM"),
    ],
)
def test_what_is_true_of_a_worker_that_ended(codes, words):
    processes = [SimpleNamespace(exitcode=code, join=lambda wait: None) for code in codes]
    assert words in _how_it_ended(processes)


@pytest.mark.parametrize("flags", [["--workers", "1"], ["--workers", "2"], ["--model", "shared"]])
def test_too_few_rows_are_told_before_anything_is_trained(tmp_path, capsys, flags):
    """Of 12 rows of the second category 11 are held out."""
    world = make_world(tmp_path)
    content = load_torch(world.eval)
    content["unsafe"] = [1, *range(10, 21)]
    save_torch(content, world.eval)
    words = ["group2/0: 1 clip not held out", "2 or more are needed to train"]
    refused(train(world, *flags, base=["--epoch", "1"]), capsys, *words)
    assert not world.save.exists()
    content["unsafe"], content["normal"] = [1], [*range(24)]
    save_torch(content, world.eval)
    refused(train(world, *flags, base=["--epoch", "1"]), capsys, "normal/0: 0 clips not held out")
    assert not world.save.exists()
