"""benchmarks/detectors/shared.py and pretraining.py on recordings of noise: their figures against
the files that were made."""

import csv

import numpy as np
import pytest

from benchmarks.detectors import pretraining, shared
from lvd.utils.files import load_json, load_torch
from lvd.voting import verdict
from tests.worlds.benchmark_figures import read_figures
from tests.worlds.recording_world import RecordedWorld
from tests.worlds.refusals import refused


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return RecordedWorld(tmp_path_factory.mktemp("shared"))


def flags(world, tmp_path):
    return [
        "--recordings",
        str(world.config),
        "--eval_dir",
        str(world.eval),
        "--work",
        str(tmp_path / "work"),
        "--out",
        str(tmp_path / "out.csv"),
    ]


def accuracies(tmp_path, case, seeds, lambda_, eta):
    """[seed][video] of right verdicts, unsafe ones first."""
    found = []
    for seed in seeds:
        results = load_torch(tmp_path / f"work/{case}/{seed}/results/results.pth")
        found.append(
            [
                verdict(votes, lambda_, eta) == int(label)
                for label in "10"
                for votes in results[label].values()
            ]
        )
    return np.array(found, dtype=float)


@pytest.mark.slow
def test_one_detector_for_the_grid(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shared, "POINTS", ((0.6, 1), (0.6, 2)))
    monkeypatch.setattr(shared, "EARLY", 2)
    arguments = [*flags(world, tmp_path), "--seeds", "1,2", "--cases", "shared"]
    assert shared.main(arguments) == 0
    found = read_figures(tmp_path / "out.csv")
    for eta in (1, 2):
        over = accuracies(tmp_path, "shared", (1, 2), 0.6, eta).mean(1)
        assert found["accuracy"]["shared"][f"accuracy (0.6, {eta})"] == pytest.approx(over.mean())
        assert found["accuracy"]["shared"][f"accuracy (0.6, {eta}) sd"] == pytest.approx(
            over.std(ddof=1)
        )
    assert found["training"]["shared"]["files"] == 1
    before = load_json(tmp_path / "work/shared/1/times.json")
    assert (
        shared.main(arguments) == 0 and load_json(tmp_path / "work/shared/1/times.json") == before
    )  # nothing runs twice
    refused(
        shared.main([*arguments, "--size", "tiny"]), capsys, "size", "nano"
    )  # nor is taken for another's
    refused(shared.main([*arguments, "--cases", "other"]), capsys, "--cases other")


def test_intervals_follow_the_videos(monkeypatch):
    """Two detectors that differ in one of four videos, closed form: the mean of four draws with one
    hit in a class of two."""
    videos = [(1, [1]), (1, [1]), (0, [0]), (0, [0])]
    worse = [(1, [1]), (1, [0]), (0, [0]), (0, [0])]
    monkeypatch.setattr(shared, "POINTS", ((0.5, 1),))
    found = shared.difference_figures([{"videos": videos}], [{"videos": worse}])
    assert found == {"(0.5, 1)": -0.25, "(0.5, 1) from": -0.5, "(0.5, 1) to": 0.0}


@pytest.mark.slow
def test_few_labels(world, tmp_path, capsys):
    arguments = [
        *flags(world, tmp_path),
        "--seeds",
        "1",
        "--labels",
        "4",
        "--models",
        "grid",
        "--step_num",
        "0",
    ]
    assert pretraining.main(arguments) == 0
    found = read_figures(tmp_path / "out.csv")
    for case, folder in (("grid", "grid"), ("grid, pre-trained", "grid-pretrained")):
        with open(tmp_path / f"work/{folder}/4/1/evaluation.csv", newline="") as f:
            aurocs = [float(row["auroc"]) for row in csv.DictReader(f)]
        assert found["4 labelled videos per category"][case]["all"] == pytest.approx(
            np.mean(aurocs), abs=1e-6
        )
    # the labels that training saw: those of held-out videos, and four others of each category
    held = set(load_torch(world.eval)["unsafe"])
    with open(tmp_path / "work/labels/4-1/label.csv", newline="") as f:
        columns = list(zip(*list(csv.reader(f))[1:], strict=True))
    for column in columns:
        assert len([row for row in column if row and int(row) not in held]) == 4
    missing = tmp_path / "none.yaml"
    refused(pretraining.main([*arguments, "--recordings", str(missing)]), capsys, str(missing))
