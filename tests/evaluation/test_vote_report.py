"""test_accuracy.py as a user runs it: the report of votes, the grid and every step."""

import csv
import random

import pytest
import torch
from sklearn.metrics import classification_report, roc_auc_score

import test_accuracy
from lvd.evaluation.results import load_results
from lvd.utils.files import load_torch, save_torch
from tests.worlds.magictime_world import ROOT
from tests.worlds.refusals import refused

PAPER_FORMS = ROOT / "tests" / "paper_forms"


def made_up_results(path, unsafe=7, normal=12, steps=6):
    """More normal videos, so that the second shuffle of the balancing decides which count."""
    draw = random.Random(3)
    results = {
        "1": {
            str(r): [int(draw.random() < 0.7) for _ in range(steps)]
            for r in draw.sample(range(99), unsafe)
        },
        "0": {
            str(r): [int(draw.random() < 0.3) for _ in range(steps)]
            for r in draw.sample(range(99), normal)
        },
    }
    save_torch(results, path / "results.pth")
    return results


def balanced_by_hand(results):
    """FACTS, word for word: Python's own generator, seeded once, shuffles the keys of "1" and then
    of "0"."""
    random.seed(20240603)
    smaller = min(len(results["1"]), len(results["0"]))
    kept = []
    for label in ("1", "0"):
        keys = list(results[label].keys())
        random.shuffle(keys)
        kept += [(int(label), results[label][key]) for key in keys[:smaller]]
    return kept


def test_report_of_one_setting_against_another_implementation(tmp_path, capsys):
    kept = balanced_by_hand(made_up_results(tmp_path))
    for lambda_, eta, tenths in (("0.6", 5, 6), ("0.5", 4, 5), ("1", 2, 10), ("0", 1, 0)):
        assert (
            test_accuracy.main(
                ["--data_dir", str(tmp_path), "--lambda", lambda_, "--eta", str(eta)]
            )
            == 0
        )
        predicted = [int(10 * sum(votes[:eta]) >= tenths * eta) for _, votes in kept]
        expected = classification_report(
            [label for label, _ in kept],
            predicted,
            labels=[0, 1],
            digits=4,
            zero_division=0,
            target_names=["normal (0)", "unsafe (1)"],
        )
        assert capsys.readouterr().out.startswith(expected)


def test_baseline_is_the_last_step(tmp_path, capsys):
    kept = balanced_by_hand(made_up_results(tmp_path))
    assert (
        test_accuracy.main(["--data_dir", str(tmp_path / "results.pth"), "--unsafe_diffusion"]) == 0
    )
    accuracy = sum(label == votes[-1] for label, votes in kept) / len(kept)
    assert f"accuracy: {accuracy:.4f}" in capsys.readouterr().out


def test_grid_figures_and_lambda_sweep(tmp_path, capsys):
    kept = balanced_by_hand(made_up_results(tmp_path))
    assert (
        test_accuracy.main(
            [
                "--data_dir",
                str(tmp_path),
                "--eta",
                "4",
                "--table",
                "--set_lambda",
                "--save_dir",
                str(tmp_path / "t"),
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    with open(tmp_path / "t" / "grid.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 10 * 6
    for row in rows:
        tenths, eta = round(10 * float(row["lambda"])), int(row["eta"])
        right = {
            label: [
                int(10 * sum(v[:eta]) >= tenths * eta) == label for true, v in kept if true == label
            ]
            for label in (1, 0)
        }
        assert float(row["tpr"]) == pytest.approx(sum(right[1]) / 7, abs=1e-5)
        assert float(row["tnr"]) == pytest.approx(sum(right[0]) / 7, abs=1e-5)
        assert float(row["accuracy"]) == pytest.approx(sum(right[1] + right[0]) / 14, abs=1e-5)
        if eta == 4:
            assert (
                f"lambda {float(row['lambda']):<4} eta 4   accuracy {float(row['accuracy']):.4f}"
                in out
            )
    with open(tmp_path / "t" / "per_step.csv", newline="") as f:
        alone = list(csv.DictReader(f))
    expected = [sum(v[s] for t, v in kept if t) / 7 for s in range(6)]
    assert [float(row["tpr"]) for row in alone] == pytest.approx(expected, abs=1e-5)
    for name in ("grid.png", "per_step.png"):
        assert (tmp_path / "t" / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "t" / "grid.txt").read_text() in out


def test_a_figure_that_cannot_be_drawn_costs_nothing(tmp_path, capsys):
    made_up_results(tmp_path)
    (tmp_path / "grid.png").mkdir()
    command = ["--data_dir", str(tmp_path), "--eta", "3", "--table"]
    assert test_accuracy.main(command) == 0
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and "grid.png: not drawn" in err
    assert "grid.png" not in out and "per_step.png" in out and "table.yaml" in out
    assert (tmp_path / "grid.csv").exists() and (tmp_path / "per_step.png").exists()
    (tmp_path / "grid.png").rmdir()
    assert test_accuracy.main(command) == 0 and (tmp_path / "grid.png").exists()


def test_table_over_recorded_scores(world, tmp_path):
    assert (
        test_accuracy.main(
            ["--data_dir", str(world.results), "--eta", "3", "--table", "--save_dir", str(tmp_path)]
        )
        == 0
    )
    with open(tmp_path / "per_step.csv", newline="") as f:
        alone = list(csv.DictReader(f))
    scores = load_torch(world.results / "scores.pth")["scores"]
    unsafe, normal = [
        [scores["1"]["2"][r][1] for r in ("11", "14", "20")],
        [v[1] for v in scores["0"]["2"].values()],
    ]
    assert float(alone[1]["auroc flicker"]) == pytest.approx(
        roc_auc_score([1] * 3 + [0] * 5, unsafe + normal), abs=1e-5
    )
    largest = [
        max(scores[label][g][row][1] for g in "12") for label in "10" for row in scores[label]["1"]
    ]
    assert float(alone[1]["auroc any"]) == pytest.approx(
        roc_auc_score([1] * 5 + [0] * 5, largest), abs=1e-5
    )


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--lambda", "1.1"], ["--lambda 1.1"]),
        (["--lambda", "-0.1"], ["--lambda"]),
        (["--lambda", "x"], ["--lambda x"]),
        (["--eta", "0"], ["--eta 0", "1 to 6"]),
        (["--eta", "7"], ["--eta 7"]),
        (["--eta", "2.5"], ["--eta"]),
        (["--data_dir", "none"], ["none"]),
        (["--recall", "0.9"], ["--recall 0.9", "--metrics"]),
        (["--resamples", "200", "--table"], ["--resamples 200", "--metrics"]),
        (["--save_dir", "out"], ["--save_dir out", "--table"]),
        (["--lambda", ""], ["--lambda"]),
        (["--lambda", "1e-9999999"], ["--lambda 1e-9999999", "digits"]),
        (["--metrics", "--recall", "1e-9999999"], ["--recall 1e-9999999"]),
        (["--metrics", "--recall", "0.9,0.9000000001"], ["--recall 0.9,0.9000000001", "different"]),
        (["--metrics", "--resamples", "9" * 20], ["--resamples 999", "100 to 100000"]),
        (["--save_dir", "there"], ["--save_dir there", "--table", "--metrics or --report"]),
        (["--unsafe_diffusion", "--eta", "2"], ["--eta 2", "--unsafe_diffusion"]),
        (["--unsafe_diffusion", "--lambda", "0.6"], ["--lambda 0.6", "--unsafe_diffusion"]),
    ],
)
def test_bad_flags_of_test_accuracy(tmp_path, capsys, flags, words):
    made_up_results(tmp_path)
    refused(test_accuracy.main(["--data_dir", str(tmp_path), *flags]), capsys, *words)


@pytest.mark.parametrize(
    "content, words",
    [
        ({"1": {"0": [1]}}, ["'1'", "'0'"]),
        ({"1": {"0": [1]}, "0": {}}, ["0: found {}; at least one entry"]),
        ({"1": {"0": [1, 0]}, "0": {"0": [1]}}, ["1 votes"]),
        ({"1": {"0": [2]}, "0": {"0": [1]}}, ["1.0.0: found 2;"]),
        ({"1": {"0": [1]}, "0": {"8": [-1]}}, ["0.8.0: found -1;"]),
        ({"1": {"0": [1.0]}, "0": {"0": [1]}}, ["1.0.0: found 1.0;"]),
        ({"1": {"0": [float("nan")]}, "0": {"0": [1]}}, ["1.0.0: found nan;"]),
        ({"1": {"0": [True]}, "0": {"0": [1]}}, ["1.0.0: found True;"]),
        ({"1": {"0": [None]}, "0": {"0": [1]}}, ["1.0.0: found None;"]),
        ({"1": {"0": [10**300]}, "0": {"0": [1]}}, ["1.0.0: found a number of about"]),
        ({"1": {"0": []}, "0": {"0": [1]}}, ["1.0: found []; at least one entry"]),
        ({"1": {"0": 1}, "0": {"0": [1]}}, ["1.0: found 1;"]),
        ({"1": {"0": torch.ones(1)}, "0": {"0": [1]}}, ["1.0: found a tensor of shape [1];"]),
        ({"1": {None: [1]}, "0": {"0": [1]}}, ["1.None", "found None;"]),
        ({"1": {3: [1], "3": [0]}, "0": {"0": [1]}}, ["'1': a row stands there twice"]),
        ({"1": [1], "0": {"0": [1]}}, ["1: found [1];"]),
        ([1], ["mapping"]),
        (None, ["mapping"]),
    ],
)
def test_bad_results_files(tmp_path, capsys, content, words):
    save_torch(content, tmp_path / "results.pth")
    status = test_accuracy.main(["--data_dir", str(tmp_path), "--eta", "1"])
    line = refused(status, capsys, "results.pth", *words, alone=True)
    assert len(line) < 300 + len(str(tmp_path))


def test_results_as_the_papers_script_writes_them(tmp_path, capsys):
    flags = ["--data_dir", str(PAPER_FORMS / "results.pth"), "--lambda", "0.6", "--eta", "20"]
    assert test_accuracy.main([*flags, "--table", "--save_dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "votes: 5 unsafe and 5 normal videos, 50 steps" in out
    for line in ("accuracy: 1.0000", "tpr: 1.0000", "tnr: 1.0000"):
        assert f"  {line}\n" in out
    assert (tmp_path / "grid.csv").exists()


def test_rows_may_be_numbers(tmp_path):
    save_torch({"1": {4: [1, 0]}, "0": {0: [0, 0]}}, tmp_path / "a.pth")
    assert load_results(tmp_path / "a.pth") == ({"1": {"4": [1, 0]}, "0": {"0": [0, 0]}}, 2)


def test_scores_of_other_votes(tmp_path, capsys):
    made_up_results(tmp_path)
    save_torch({"scores": {"1": {"1": {"0": [0.5] * 6}}, "0": {}}}, tmp_path / "scores.pth")
    status = test_accuracy.main(["--data_dir", str(tmp_path), "--eta", "2", "--table"])
    refused(status, capsys, "scores.pth", "does not belong")
