"""Which process of a launch this is: from the launcher's environment, and nothing from a stray
variable."""

import os
import subprocess

import pytest

import embed_model
import pretrain_mae
from lvd.errors import InputError
from lvd.utils.processes import OTHER_LAUNCHERS, Processes, need_one_process, pick_device, processes
from tests.worlds.launcher import LAUNCH, quick_python
from tests.worlds.refusals import refused

LAUNCHER = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}


@pytest.mark.parametrize(
    "stray",
    [{}, {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "abc"}, {**LAUNCHER, "WORLD_SIZE": "1", "RANK": "0"}],
)
def test_one_process(monkeypatch, stray):
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    for name, value in stray.items():
        monkeypatch.setenv(name, value)
    assert processes() == Processes(0, 1, 0) and processes().is_main
    processes().barrier()
    with processes().main_first():
        pass


@pytest.mark.parametrize(
    "variables, words",
    [
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"}, "asked for several"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "WORLD_SIZE=2"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4"),
        ({**LAUNCHER, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "PMI_SIZE": "2"}, "PMI"),
        ({"SLURM_STEP_NUM_TASKS": "9" * 5000}, "SLURM_STEP_NUM_TASKS=999"),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, None),
        ({"MASTER_ADDR": "127.0.0.1"}, None),
        ({"SLURM_STEP_NUM_TASKS": "1", "WORLD_SIZE": "1"}, None),
        ({}, None),
    ],
)
def test_one_process_of_several_is_told(monkeypatch, capsys, variables, words):
    without_launcher(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert processes() == Processes()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (words is not None)
    for line in lines:
        assert words in line and "works alone" in line and "--multi_gpu" in line and len(line) < 300


def without_launcher(monkeypatch):
    for name in [*LAUNCHER, *OTHER_LAUNCHERS, *os.environ]:
        if name in LAUNCHER or name in OTHER_LAUNCHERS or name.startswith("ACCELERATE_"):
            monkeypatch.delenv(name, raising=False)


def test_accelerate_without_multi_gpu_starts_one_process(tmp_path):
    script = tmp_path / "count.py"
    script.write_text("from lvd.utils.processes import processes; print(processes().count)")
    command = [quick_python(), "-m", LAUNCH, "--num_processes", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert "asked for several processes and started one: this process works alone" in done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "2", "LOCAL_RANK": "0"},
        {"RANK": "0", "LOCAL_RANK": "1"},
        {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "1"},
        {"WORLD_SIZE": "0"},
    ],
)
def test_ranks_that_contradict_each_other(monkeypatch, variables):
    without_launcher(monkeypatch)
    for name, value in {**LAUNCHER, **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="below WORLD_SIZE"):
        processes()


def test_a_script_of_one_process(monkeypatch, capsys):
    monkeypatch.setattr("lvd.utils.processes.processes", lambda: Processes(1, 2, 1))
    with pytest.raises(SystemExit) as ended:
        need_one_process("x.py")
    assert ended.value.code == 2
    monkeypatch.setattr("lvd.utils.processes.processes", lambda: Processes(0, 2, 0))
    for script in (pretrain_mae, embed_model):
        refused(script.main([]), capsys, f"{script.__name__}.py", "2 processes", "one is needed")
    monkeypatch.setattr("lvd.utils.processes.processes", Processes)
    need_one_process("x.py")


def test_a_launcher_that_counts_in_words(monkeypatch):
    for name, value in {**LAUNCHER, "RANK": "first"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="RANK='first'"):
        processes()


def test_shares_are_all_and_none_twice():
    items = list(range(11))
    shares = [Processes(rank, 3, rank).share(items) for rank in range(3)]
    assert sorted(sum(shares, [])) == items and {len(share) for share in shares} == {3, 4}


def test_a_gpu_for_each_on_each_machine(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    devices = [Processes(rank, 4, rank % 2).device(0).index for rank in range(4)]
    assert devices == [0, 1, 0, 1]


def test_a_gpu_for_each():
    assert Processes(1, 2, 1).device(-1).type == "cpu"
    with pytest.raises(
        InputError, match="--gpu_num 1: each of the 2 processes has a GPU of its own"
    ):
        Processes(1, 2, 1).device(1)
    with pytest.raises(InputError, match="--gpu_num -2: a CUDA device from 0, or -1"):
        pick_device(-2)
