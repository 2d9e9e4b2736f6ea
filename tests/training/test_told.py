"""What the summary says of detectors: beside their accuracy that of the constant answer, and which
are no better than chance."""

from itertools import combinations

import numpy as np
import pytest
import torch

from lvd.evaluation.metrics import auroc, beats_chance, constant_accuracy
from lvd.training.told import validation_facts
from lvd.utils.files import load_torch, save_torch
from tests.worlds.detector_world import STEPS, make_world
from tests.worlds.scripts import train


def row(group=1, step=0, unsafe=7, normal=31, tpr=0.2, tnr=0.8, area=0.49, **more):
    accuracy = (tpr * unsafe + tnr * normal) / (unsafe + normal)
    counts = {"val_unsafe_clips": unsafe, "val_normal_clips": normal}
    rates = {"val_accuracy": accuracy, "val_tpr": tpr, "val_tnr": tnr, "val_auroc": area}
    return {"group": group, "step": step, **counts, **rates, **more}


def test_the_constant_answer_and_the_balanced_accuracy_are_told():
    facts = validation_facts([row()])
    told = 'always answering "normal": 0.816'  # 31 of 38
    assert facts["mean validation accuracy"] == f"0.689 ({told})"
    assert facts["mean balanced accuracy"].startswith("0.500 ")
    assert "1 of 1 (group/step 1/0)" in facts["WARNING: no better than chance"]
    assert "7 unsafe clips" in facts["WARNING: no better than chance"]
    both = validation_facts([row(unsafe=3, normal=1), row(unsafe=6, normal=1)])
    assert 'always answering "unsafe": 0.804' in both["mean validation accuracy"]


def test_good_detectors_are_not_warned_of():
    good = row(area=1.0, tpr=1.0, tnr=1.0, val_false_positives_met=True)
    assert list(validation_facts([good])) == ["mean validation accuracy", "mean balanced accuracy"]
    many = [row(step=step, area=0.5) for step in range(7)] + [good]
    told = validation_facts(many)["WARNING: no better than chance"]
    assert told.startswith("7 of 8 (group/step 1/0, 1/1, 1/2, 1/3, 1/4, ...)")
    over = validation_facts([{**good, "val_false_positives_met": False}])
    assert over["more false positives than aimed at"].startswith("1 of 1 (group/step 1/0)")


def test_detectors_of_earlier_versions():
    old = {key: value for key, value in row().items() if not key.endswith("_clips")}
    facts = validation_facts([old, row(area=0.9)])
    assert facts["mean validation accuracy"] == "0.689" and len(facts) == 2


@pytest.mark.parametrize("unsafe, normal", [(3, 5), (4, 4), (2, 6), (1, 4)])
def test_chance_beats_chance_in_one_of_twenty_draws(unsafe, normal):
    """Over all orders of the clips, counted: the normal approximation is near the exact 5%."""
    beaten, orders = [], list(combinations(range(unsafe + normal), unsafe))
    for places in orders:
        labels = np.zeros(unsafe + normal)
        labels[list(places)] = 1
        beaten.append(beats_chance(auroc(np.arange(len(labels)), labels), unsafe, normal))
    assert np.mean(beaten) <= 0.08
    assert any(beaten) == (unsafe > 1) and constant_accuracy(unsafe, normal) >= 0.5


@pytest.mark.parametrize("model", ["grid", "shared"])
def test_shuffled_labels_are_told(tmp_path, capsys, model):
    """Clips that hold nothing to learn: every one is the same noise."""
    world = make_world(tmp_path / "world")
    draw = torch.Generator().manual_seed(3)
    for path in sorted(world.data.glob("*/*/*.pt")):
        if not path.is_symlink():
            clip = load_torch(path)
            save_torch(torch.randn(clip.shape, generator=draw).to(clip.dtype), path)
    flags = ["--model", "shared"] if model == "shared" else ["--workers", "1"]
    assert train(world, *flags, base=["--epoch", "2", "--batch_size", "8"]) == 0
    out = capsys.readouterr().out
    assert 'always answering "normal"' in out and "mean balanced accuracy" in out
    assert "processes: 1" in out
    (line,) = [line for line in out.splitlines() if "WARNING: no better than chance" in line]
    assert int(line.split(": ")[2].split(" of ")[0]) >= STEPS and f"of {2 * STEPS} (" in line


def test_good_labels_are_not(tmp_path, capsys):
    world = make_world(tmp_path / "world")
    assert train(world, "--step_num", "0") == 0
    assert "WARNING" not in capsys.readouterr().out
