"""Detectors and votes that are not what they seem are refused; workers that die or are interrupted
end in one line."""

import csv
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

import test_accuracy
import train_mae
from lvd.data.split import Split, save_split
from lvd.utils.cli import Parser, run_command
from lvd.utils.files import load_torch, load_yaml, save_torch, save_yaml, sha256
from tests.worlds import forked
from tests.worlds.detector_world import CATEGORIES, copy_world, make_world
from tests.worlds.refusals import refused
from tests.worlds.scripts import FAST, embed, train

ROOT = Path(__file__).resolve().parents[2]
AS_TRAINED = [*FAST, "--epoch", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("checks"))
    assert train(world, "--epoch", "1") == 0
    return world


@pytest.fixture
def world(trained, tmp_path):
    return copy_world(trained, tmp_path / "world")


def change(world, **about):
    """Let all detectors say something else about themselves (None: nothing)."""
    for path in world.save.glob("*/*.pth"):
        found = load_torch(path)
        found["about"] = {k: v for k, v in {**found["about"], **about}.items() if v is not None}
        save_torch(found, path)


def test_a_missing_category_is_refused(world, capsys):
    about = load_torch(world.save / "1" / "0.pth")["about"]
    assert about["categories"] == list(CATEGORIES)
    shutil.move(world.save / "2", world.save / "kept")
    refused(embed(world), capsys, "--model_dir", "no detectors of group 2 (flicker)")
    change(world, categories=None)
    shutil.move(world.save / "1", world.save / "3")
    shutil.move(world.save / "kept", world.save / "1")
    change(world, categories=None, group=None, metrics=None, settings=None)
    refused(embed(world), capsys, "no detectors of group 2")  # nothing known, but there is a gap
    change(world, categories=["bright"])
    refused(embed(world), capsys, "detectors of group 3", "1 categories")
    assert not world.results.exists()


def test_a_detector_at_anothers_place_is_refused(world, capsys):
    shutil.copy(world.save / "1" / "0.pth", world.save / "1" / "2.pth")
    refused(embed(world), capsys, "1/2.pth", "step 0")
    refused(train(world, "--no-train"), capsys, "1/2.pth", "step 0")
    refused(train(world, "--epoch", "1"), capsys, "1/2.pth", "another step")
    shutil.copy(world.save / "2" / "2.pth", world.save / "1" / "2.pth")
    refused(embed(world), capsys, "1/2.pth", "group 2")


def test_detectors_of_other_recordings_are_refused(world, capsys):
    """The same eval.pth and labels, but rows of another sampling run."""
    other = {"pred_x0_made_by": "another run", "normal_pred_x0_made_by": "normal recording"}
    save_yaml(other, world.root / "eval_set" / "config.yaml")
    refused(
        embed(world), capsys, "1/0.pth", "more unsafe videos were recorded", "--allow_other_eval"
    )
    assert embed(world, "--allow_other_eval") == 0
    save_yaml({"categories": list(CATEGORIES), **other}, world.data / "config.yaml")
    refused(train(world, "--no-train"), capsys, "1/0.pth", "more unsafe videos")


@pytest.mark.parametrize(
    "threshold", [float("nan"), float("inf"), -0.1, 1.0000001, None, "0.5", True]
)
def test_a_threshold_that_is_no_probability_is_refused(world, capsys, threshold):
    """Of every comparison with nan the answer is no: all videos would pass."""
    path = world.save / "2" / "1.pth"
    save_torch({**load_torch(path), "threshold": threshold}, path)
    refused(
        embed(world, "--operating_point", "validation"),
        capsys,
        "2/1.pth",
        f"threshold {threshold!r}",
        "0 to 1",
    )
    refused(train(world, "--no-train"), capsys, "2/1.pth", "threshold")
    refused(train(world, "--epoch", "1"), capsys, "2/1.pth", "threshold")


def test_normal_clips_that_all_score_one(world, capsys):
    """What cannot be aimed at is said, in the table and in the summary."""
    for path in world.save.glob("1/*.pth"):
        found = load_torch(path)
        found["about"]["metrics"]["val_false_positives_met"] = False
        save_torch(found, path)
    assert train(world, "--epoch", "1") == 0
    assert (
        "more false positives than aimed at: 3 of 6 (group/step 1/0, 1/1, 1/2)"
        in capsys.readouterr().out
    )
    with open(world.save / "metrics.csv", newline="") as f:
        assert [row["val_false_positives_met"] for row in csv.DictReader(f)] == ["False"] * 3 + [
            "True"
        ] * 3


def test_finished_detectors_know_their_recordings_and_representation(world, capsys):
    """Also without train.yaml, which knows them too."""
    (world.save / "train.yaml").unlink()
    assert train(world, "--epoch", "1") == 0
    path = world.save / "2" / "2.pth"
    good = load_torch(path)
    save_torch({**good, "representation": "rgb"}, path)
    refused(train(world, "--epoch", "1"), capsys, "2/2.pth", "another representation")
    save_torch(good, path)
    config = load_yaml(world.data / "config.yaml")
    save_yaml({**config, "pred_x0_made_by": "another run"}, world.data / "config.yaml")
    refused(
        train(world, "--epoch", "1"),
        capsys,
        "1/0.pth",
        "after it was trained, more unsafe videos were recorded",
    )


def test_folders_that_only_look_like_detectors(world):
    for name in ("1_backup/0.pth", "3/x.pth", "3/1_old.pth"):
        (world.save / name).parent.mkdir(exist_ok=True)
        shutil.copy(world.save / "1" / "0.pth", world.save / name)
    assert train(world, "--epoch", "1") == 0
    with open(world.save / "metrics.csv", newline="") as f:
        assert [(row["group"], row["step"]) for row in csv.DictReader(f)] == [
            (g, s) for g in "12" for s in "012"
        ]


def test_evaluation_needs_normal_rows(world, tmp_path, capsys):
    save_torch([1, 5, 11, 14, 20], tmp_path / "list.pth")
    change(world, eval_sha256=sha256(tmp_path / "list.pth"))
    refused(
        train(world, "--no-train", "--eval_dir", str(tmp_path / "list.pth")),
        capsys,
        "list.pth",
        "no normal rows",
    )


def test_evaluation_of_scores_that_are_not_finite(world, capsys):
    path = world.save / "2" / "1.pth"
    found = load_torch(path)
    found["state_dict"]["classifier.bias"][0] = float("nan")
    save_torch(found, path)
    words = ("2/1.pth", "classifier.bias", "not finite")
    refused(train(world, "--no-train", base=AS_TRAINED), capsys, *words)
    refused(embed(world), capsys, *words)
    assert not (world.results / "unfinished" / "1.pth").exists()


def test_the_shared_detector_of_a_grid_is_not_evaluated(world, capsys):
    flags = [
        "--no-train",
        "--model",
        "shared",
        "--data_dir",
        str(world.data),
        "--eval_dir",
        str(world.eval),
        "--gpu_num",
        "-1",
    ]
    refused(
        train_mae.main([*flags, "--save_dir", str(world.save)]),
        capsys,
        "--model shared",
        "no shared.pth",
    )
    assert not (world.save / "evaluation.csv").exists()


def test_a_results_folder_holds_one_set_of_votes(world, capsys):
    assert embed(world, "--operating_point", "argmax") == 0
    before = {path: path.read_bytes() for path in world.results.iterdir()}
    refused(
        embed(world, "--operating_point", "validation"), capsys, "config.yaml", "operating_point"
    )
    change(world, seed=1)
    refused(
        embed(world, "--operating_point", "argmax"), capsys, "config.yaml", "detectors were trained"
    )
    assert {path: path.read_bytes() for path in world.results.iterdir()} == before


def test_scores_know_their_votes(world, tmp_path, capsys):
    assert embed(world) == 0
    table = [
        "--data_dir",
        str(world.results),
        "--eta",
        "2",
        "--table",
        "--save_dir",
        str(tmp_path / "t"),
    ]
    assert test_accuracy.main(table) == 0
    saved = load_yaml(tmp_path / "t" / "table.yaml")
    assert (saved["eta"], saved["lambda"], saved["etas"]) == (2, "0.6", [1, 2, 3])
    assert saved["votes_sha256"] == load_torch(world.results / "scores.pth")["votes_sha256"]
    votes = load_torch(world.results / "results.pth")
    votes["0"]["3"][0] ^= 1
    save_torch(votes, world.results / "results.pth")
    capsys.readouterr()
    refused(test_accuracy.main(table), capsys, "scores.pth", "does not belong")


def test_training_needs_a_finished_dataset(world, capsys):
    save = world.root / "new"
    (world.data / "normal" / "1" / "7.pt").unlink()
    refused(train(world, save=save), capsys, "normal/1", "23 of 24 clips")
    (world.data / "built.json").unlink()
    refused(train(world, save=save), capsys, "step 0", "run build_x0.py to the end")
    assert not save.exists()


def test_evaluation_drops_no_held_out_row(world, capsys):
    for name in ("built.json", "normal/1/8.pt"):
        (world.data / name).unlink()
    (world.data / "config.yaml").unlink()
    refused(train(world, "--no-train"), capsys, "normal/1", "held-out row 8")
    save_split(Split([1, 5], [0, 3], 2024), world.eval)  # rows of the first category alone
    refused(train(world, "--no-train", "--step_num", "0"), capsys, "another eval.pth")
    change(world, eval_sha256=sha256(world.eval))
    refused(
        train(world, "--no-train", "--step_num", "0", base=AS_TRAINED),
        capsys,
        "group2/0",
        "none of its rows is held out",
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    ],
)
def test_too_little_memory_is_one_line(error, capsys):
    def work(args):
        raise error

    assert run_command(Parser("", ""), work, []) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory")


def test_other_runtime_errors_stay_visible():
    def work(args):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_command(Parser("", ""), work, [])


def training_process(world):
    words = ["--data_dir", world.data, "--eval_dir", world.eval, "--save_dir", world.root / "new"]
    return forked.start(ROOT / "train_mae.py", *words, *FAST, "--epoch", "100000", "--workers", "2")


def worker_pids(process):
    """Its spawned workers, once they have loaded torch and train."""
    while process.poll() is None:
        (pid,) = process.pids
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        workers = [
            pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        if len(workers) == 2 and all(
            "libtorch_cpu" in Path(f"/proc/{pid}/maps").read_text() for pid in workers
        ):
            return list(map(int, workers))
        time.sleep(0.2)
    raise AssertionError(process.err.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "who, status, line",
    [
        ("all", 130, "interrupted; run the same command again"),
        ("worker", 2, "error: --workers 2: a training process was killed"),
    ],
)
def test_workers_that_end_early_leave_one_line(world, who, status, line):
    process = training_process(world)
    workers = worker_pids(process)
    if who == "all":
        for pid in (*process.pids, *workers):  # as Ctrl-C reaches the whole group
            os.kill(pid, signal.SIGINT)
    else:
        os.kill(workers[0], signal.SIGKILL)
    text = process.communicate(timeout=120)[1]
    assert process.returncode == status, text
    lines = [
        part
        for part in re.split(r"[\r\n]+", text)
        if part.strip() and "%|" not in part and "detectors:" not in part
    ]
    assert len(lines) == 1 and lines[0].startswith(line), text
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
