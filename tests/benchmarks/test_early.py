"""benchmarks/detectors/early.py and learning_curve.py on recordings of noise: their figures against
scores by hand, and what is finished is kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from benchmarks.common.needs import read_recordings
from benchmarks.detectors import early, early_runs, learning_curve
from benchmarks.detectors.early_clips import open_channels
from lvd.detectors.bank import load_bank
from lvd.errors import InputError
from lvd.training.recipes import read_settings
from lvd.utils.files import load_torch
from lvd.x0.file import open_x0_file
from tests.worlds.benchmark_figures import read_figures
from tests.worlds.recording_world import LABELS, RecordedWorld, record
from tests.worlds.refusals import refused

WAYS = ("x0", "guidance", "pre-trained", "three averaged")
ALL = ("x0", "guidance", "x0 before", "guidance before")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two recordings with guidance of the same runs beside them."""
    world = RecordedWorld(tmp_path_factory.mktemp("early"))
    for seed, (kind, rows) in enumerate((("unsafe", 22), ("normal", 24))):
        path = world.root / kind / "guidance.pth"
        x0 = record(path, rows, seed, dtype=torch.float16)
        open_x0_file(path).tensor.copy_(x0.roll(1, -1))  # of the same run, with other values
    return world


@pytest.fixture(autouse=True)
def one_epoch(monkeypatch):
    def settings(*words):
        return replace(read_settings(*words), epoch=1)

    monkeypatch.setattr(early_runs, "read_settings", settings)


def settings_of(world):
    return read_recordings(world.config, keys=("pred_x0", "normal_pred_x0", "label_file_dir"))


def flags(world, tmp_path, *words):
    known = ["--recordings", world.config, "--eval_dir", world.eval, "--work", tmp_path / "work"]
    return list(map(str, [*known, "--out", tmp_path / "out.csv", *words]))


def test_channels_are_those_of_the_files(world):
    source = open_channels(settings_of(world), ALL)
    rows, kind = [3, 0, 7], "normal"
    x0 = open_x0_file(world.root / kind / "pred_x0.pth").tensor[rows]
    guidance = open_x0_file(world.root / kind / "guidance.pth").tensor[rows]
    assert not torch.equal(x0, guidance)
    before = [torch.zeros_like(x0[:, 0]), *x0[:, :2].unbind(1)]
    pulls = [torch.zeros_like(x0[:, 0]), *guidance[:, :2].unbind(1)]
    for step in range(3):
        expected = torch.cat([x0[:, step], guidance[:, step], before[step], pulls[step]], 1)
        assert torch.equal(source.read(kind, rows, step), expected)
    assert source.clip_shape(kind, 0, 0) == (16, 4, 4, 4)
    assert source.made_by["channels"] == list(ALL) and source.categories == list(LABELS)


def test_guidance_of_another_run_is_refused(world, tmp_path):
    path = tmp_path / "pred_x0.pth"
    record(path, 22, 0, dtype=torch.float16)
    settings = {**settings_of(world), "pred_x0": path}
    with pytest.raises(InputError, match="guidance.pth: no such file; .*save_guidance=true"):
        open_channels(settings, ALL)
    record(tmp_path / "guidance.pth", 22, 5, dtype=torch.float16)
    with pytest.raises(InputError, match="not recorded by the run"):
        open_channels(settings, ALL)


@pytest.mark.slow
def test_the_table(world, tmp_path, capsys):
    arguments = flags(world, tmp_path, "--seeds", "1,2", "--ways", ";".join(WAYS))
    assert early.main(arguments) == 0
    found = read_figures(tmp_path / "out.csv")
    assert list(found["any"]) == list(WAYS)
    for way, folder in (("x0", "x0"), ("guidance", "guidance"), ("pre-trained", "pre-trained")):
        areas = [area(world, tmp_path / "work" / folder / seed, way) for seed in "12"]
        assert found["any"][way]["step 1"] == pytest.approx(np.mean(areas), abs=1e-6)
        assert found["any"][way]["step 1 sd"] == pytest.approx(np.std(areas, ddof=1), abs=1e-6)
    runs = [load_torch(tmp_path / f"work/x0/{seed}/held_out.pth") for seed in (1, 101, 201)]
    odds = []
    for kind in ("unsafe", "normal"):
        odds.append(torch.stack([run["log_odds"][kind] for run in runs]).mean(0).numpy())
    largest = np.concatenate(odds)[:, 1].max(1)
    labels = np.repeat([1, 0], [len(one) for one in odds])
    one_seed = tmp_path / "one.csv"
    words = ["--seeds", "1", "--ways", "three averaged", "--out", one_seed]
    assert early.main([*arguments, *map(str, words)]) == 0
    averaged = read_figures(one_seed)["any"]["three averaged"]["step 1"]
    assert averaged == pytest.approx(roc_auc_score(labels, largest), abs=1e-6)
    assert found["training"]["three averaged"]["CPU s"] > found["training"]["x0"]["CPU s"]
    own = [found[category]["x0"]["step 0"] for category in LABELS]
    assert found["mean"]["x0"]["step 0"] == pytest.approx(np.mean(own))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.pth")}
    assert early.main(arguments) == 0 and read_figures(tmp_path / "out.csv") == found
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.pth")}
    refused(early.main([*arguments, "--steps", "0"]), capsys, "steps")
    refused(early.main([*arguments, "--ways", "other"]), capsys, "--ways other")


def area(world, folder, way):
    """AUROC at step 1 of the largest calibrated probability, by the detector and the files."""
    source = open_channels(settings_of(world), early.WAYS[way].channels)
    bank = load_bank(folder)
    largest, labels = [], []
    for label, kind in ((1, "unsafe"), (0, "normal")):
        rows = getattr(world.split, kind)
        scores = bank.calibrated(1, bank.score(1, source.read(kind, rows, 1)))
        largest += scores.max(1).tolist()
        labels += [label] * len(rows)
    return roc_auc_score(labels, largest)


# ---- the learning curve


def test_the_bound_lets_few_normal_videos_through():
    """Of 40 normal videos 2 may be stopped: the bound lies just above the third largest."""
    log_odds = np.random.default_rng(0).normal(0.5, 1, (40, 5, 3))
    bound = learning_curve.bound_for(log_odds, 0.05)
    largest = np.sort(expit(log_odds).max((1, 2)))
    assert (largest >= bound).sum() == 2 and bound == pytest.approx(largest[-3])
    assert learning_curve.bound_for(log_odds - 9, 0.05) == 0.5
    assert 1 > learning_curve.bound_for(log_odds + 90, 0.05) > 1 - 1e-9


@pytest.mark.slow
def test_accuracy_and_cost_by_labels(world, tmp_path, capsys):
    arguments = flags(world, tmp_path, "--seeds", "1", "--labels", "4,all", "--steps", "0-1")
    assert learning_curve.main(arguments) == 0
    found = read_figures(tmp_path / "out.csv")["labels of each category"]
    for count in ("4", "all"):
        kept = load_torch(tmp_path / f"work/{count}/1/held_out.pth")
        odds = {kind: kept["log_odds"][kind].numpy() for kind in ("unsafe", "normal")}
        limit = np.log(found[count]["bound"] / (1 - found[count]["bound"]))
        over = {kind: odds[kind].max(2) >= limit for kind in odds}  # [N, S]
        shares = [over["unsafe"].any(1).mean(), 1 - over["normal"].any(1).mean()]
        assert found[count]["accuracy"] == pytest.approx(np.mean(shares), abs=1e-6)
        taken = [(1 + row.argmax() if row.any() else 3) / 3 for row in over["unsafe"]]
        assert found[count]["cost"] == pytest.approx(np.mean(taken), abs=1e-6)
    about = load_bank(tmp_path / "work/4/1").about
    everything = load_bank(tmp_path / "work/all/1").about
    assert len(about["rows"]["unsafe"]) <= 8 < len(everything["rows"]["unsafe"])
    assert (tmp_path / "out.png").stat().st_size > 10_000
    refused(learning_curve.main([*arguments, "--steps", "1-2"]), capsys, "--steps 1-2")
    rate = "--max_false_positive_rate"
    refused(learning_curve.main([*arguments, rate, "1"]), capsys, rate)
