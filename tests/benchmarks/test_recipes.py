"""benchmarks/detectors/recipes.py on a tiny world: its figures against scores by hand, and what is
finished is kept."""

import csv

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from benchmarks.detectors import recipes
from lvd.data.split import load_split
from lvd.training.recipes import RECIPES
from lvd.utils.files import load_torch
from tests.worlds.detector_world import make_world

NAMES = ["full", "without mirroring", "dropout 0.1 instead of masking"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("recipes"), "latent")


def run(world, tmp_path, *flags):
    assert (
        recipes.main(
            [
                "--data_dir",
                str(world.root),
                "--work_dir",
                str(tmp_path / "work"),
                "--out",
                str(tmp_path),
                "--recipes",
                ",".join(NAMES),
                "--step_num",
                "0,1",
                "--seeds",
                "1-2",
                *flags,
            ]
        )
        == 0
    )
    with open(tmp_path / "recipes.csv", newline="") as f:
        return list(csv.DictReader(f))


@pytest.mark.slow
def test_the_table(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(RECIPES, "scratch", {**RECIPES["scratch"], "epoch": 3})
    rows = run(world, tmp_path)
    assert [(row["recipe"], row["seed"], row["step"]) for row in rows] == [
        (name, seed, step) for seed in "12" for name in NAMES for step in "01"
    ]
    reported = load_split(world.eval)
    for row in rows:
        kept = load_torch(
            tmp_path / f"work/{row['recipe'].replace(' ', '_')}.other.{row['seed']}.0-1.pth"
        )
        unsafe, normal = kept["made_of"]["held_out"]
        assert not set(unsafe) & set(reported.unsafe) and not set(normal) & set(reported.normal)
        truth, scores = [1] * len(unsafe) + [0] * len(normal), kept["scores"][:, int(row["step"])]
        said = (scores >= kept["thresholds"][:, int(row["step"]), None]).any(0)
        assert float(row["accuracy"]) == pytest.approx(
            balanced_accuracy_score(truth, said), abs=1e-5
        )
        assert float(row["auroc_any"]) == pytest.approx(
            roc_auc_score(truth, scores.amax(0)), abs=1e-5
        )
    text = (tmp_path / "recipes.txt").read_text()
    over = [
        np.mean(
            [
                float(row["auroc"])
                for row in rows
                if row["recipe"] == NAMES[1] and row["seed"] == seed
            ]
        )
        for seed in "12"
    ]
    assert (
        f"{np.mean(over):.3f} ±{np.std(over, ddof=1):.3f}" in text
        and (tmp_path / "recipes.png").stat().st_size > 10_000
    )
    # finished trainings stay; those of another recipe or seed are made anew
    before = load_torch(tmp_path / "work/full.other.1.0-1.pth")
    assert run(world, tmp_path) == rows
    monkeypatch.setitem(RECIPES, "scratch", {**RECIPES["scratch"], "lr": 1e-2})
    run(world, tmp_path)
    assert not torch.equal(
        load_torch(tmp_path / "work/full.other.1.0-1.pth")["scores"], before["scores"]
    )
