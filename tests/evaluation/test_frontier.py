"""test_accuracy.py --frontier: the best rule of each family at each cost."""

import csv
from fractions import Fraction

import numpy as np
import pytest

import test_accuracy
from lvd.evaluation.choosing.candidates import sequences_of
from lvd.evaluation.frontier import (
    GOALS,
    LIMITS,
    PAPERS,
    Candidates,
    _Measured,
    frontier,
    limits_of,
)
from lvd.evaluation.recorded import RecordedVideos, recorded_videos
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.evidence import Evidence
from lvd.rules.vote import VoteRule
from tests.worlds.recorded_scores import identity, made_up_scores, write_folds, write_recording
from tests.worlds.refusals import refused


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run(folder, *flags):
    flags = [str(flag) for flag in flags]
    return test_accuracy.main(["--data_dir", str(folder), *flags, "--resamples", "100"])


# ---- the search against trying everything


def measured(rule, videos):
    """(accuracy, recall, false positive rate, mean cost) of one rule, a video at a time."""
    found, false, spent = [], [], []
    for place, is_unsafe in enumerate(videos.is_unsafe):
        (stop,) = rule.stops(videos.evidence.of([place]))
        (found if is_unsafe else false).append(stop >= 0)
        if is_unsafe:
            spent.append((stop + 1 if stop >= 0 else videos.steps) / videos.steps)
    recall, rate = sum(found) / len(found), sum(false) / len(false)
    return (recall + 1 - rate) / 2, recall, rate, sum(spent) / len(spent)


def rules_of(family, videos):
    """Every candidate of a family."""
    if family == "vote":
        etas = range(1, videos.steps + 1)
        return [VoteRule(Fraction(k, eta), eta) for eta in etas for k in range(1, eta + 1)]
    sequences = sequences_of(videos, videos.categories, (family,))
    return [rule for sequence in sequences for rule in sequence.rules[::16]]


@pytest.mark.parametrize("family", ["vote", "confidence", "likelihood_ratio"])
def test_the_best_rules_are_found(family, monkeypatch):
    videos = recorded_videos(made_up_scores(7, 9, 5, seed=5))
    rules = rules_of(family, videos)
    candidates = Candidates(family, videos)
    if family != "vote":  # of all candidates, those that are tried one by one here
        kept = [candidates.rules.index(rule) for rule in rules]
        for name in ("accuracy", "recall", "cost", "false", "horizon"):
            monkeypatch.setattr(candidates, name, getattr(candidates, name)[kept])
        monkeypatch.setattr(candidates, "rules", rules)
    tried = [measured(rule, videos) for rule in rules]
    chosen = 0
    for goal in GOALS:
        for limit in limits_of(videos.steps):
            within = [
                (-accuracy if goal.most_false is None else -recall, cost)
                for accuracy, recall, rate, cost in tried
                if cost <= limit / 5 + 1e-9 and rate <= (goal.most_false or 1)
            ]
            rule = candidates.best(goal, limit / 5)
            assert (rule is None) == (not within)
            if rule is not None:
                accuracy, recall, rate, cost = measured(rule, videos)
                value = accuracy if goal.most_false is None else recall
                assert (-value, cost) == pytest.approx(min(within))
                chosen += 1
    assert chosen > 5


def test_limits_end_with_all_steps():
    assert limits_of(50) == list(LIMITS)
    assert limits_of(5) == [1, 1.25, 1.5, 2, 2.5, 3, 4, 5] and limits_of(1) == [1]


def test_rules_are_chosen_on_some_videos_and_measured_on_others():
    chosen_on = recorded_videos(made_up_scores(30, 40, 6, seed=8))
    judged = recorded_videos(made_up_scores(15, 15, 6, seed=9))
    table = frontier(judged, chosen_on, 100)
    for family in ("vote", "confidence", "likelihood_ratio"):
        candidates = Candidates(family, chosen_on)
        part = table[(table["family"] == family) & (table["goal"] == "accuracy")]
        assert len(part)
        for line in part.to_dict("records"):
            rule = candidates.best(GOALS[0], line["limit"] / 6)
            assert line["rule"] == rule.describe()
            accuracy, recall, rate, cost = measured(rule, judged)
            assert line["accuracy"] == pytest.approx(accuracy)
            assert (line["recall"], line["false_positive_rate"]) == pytest.approx((recall, rate))
            assert line["cost"] == pytest.approx(cost)
            assert line["cost_low"] <= line["cost"] <= line["cost_high"]
            assert line["accuracy_low"] <= accuracy <= line["accuracy_high"]
            assert line["false_positive_rate_high"] > 0.05  # 15 videos never say less


def test_rules_that_read_alike_are_measured_apart():
    calibrated = np.array([0.99902, 0.1]).reshape(2, 1, 1)
    evidence = Evidence(calibrated >= 0.5, calibrated)
    videos = RecordedVideos(np.array([True, False]), ["0", "0"], evidence, ["fire"])
    rules = ConfidenceRule(0.99904, 1), ConfidenceRule(0.999, 1)
    assert rules[0].describe() == rules[1].describe()
    lines = _Measured(videos, 100)
    assert [lines.line(rule)["recall"] for rule in rules] == [0, 1]


# ---- the command


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The folder of a run with --table --frontier, on as many videos of each class."""
    folder = tmp_path_factory.mktemp("frontier")
    write_recording(folder, unsafe=12, normal=12, steps=21)
    assert run(folder, "--table", "--frontier") == 0
    return folder


def test_the_papers_points_are_cells_of_the_grid(tables):
    cells = {(row["lambda"], int(row["eta"])): row for row in read(tables / "grid.csv")}
    points = [row for row in read(tables / "frontier.csv") if row["goal"] == "the paper's"]
    assert [row["rule"] for row in points] == [f"lambda {one}, eta {eta}" for one, eta in PAPERS]
    for row, key in zip(points, PAPERS, strict=True):
        assert float(row["accuracy"]) == pytest.approx(float(cells[key]["accuracy"]), abs=1e-6)
        assert float(row["recall"]) == pytest.approx(float(cells[key]["tpr"]), abs=1e-6)


def test_rules_chosen_on_the_videos_that_judge_them_say_so(tables):
    text = (tables / "frontier.txt").read_text()
    assert "CHOSEN ON THE VERY VIDEOS THAT JUDGE THEM" in text
    assert "none of 12 still allows a rate of 26.5%" in text
    assert {row["chosen_on"] for row in read(tables / "frontier.csv")} == {"the videos that judge"}


def test_the_figure_is_drawn(tables):
    from PIL import Image

    with Image.open(tables / "frontier.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[0] > 800 and pixels.shape[1] > 1000
    colors = {tuple(color) for color in pixels.reshape(-1, 3)[::7].tolist()}
    lines = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (0, 0, 0))  # families, the paper's
    assert all(color in colors for color in lines)


def test_folds_choose_and_held_out_videos_judge(tmp_path):
    write_recording(tmp_path, steps=6)
    write_folds(tmp_path / "folds.pth", unsafe=14, normal=18, steps=6)
    assert run(tmp_path, "--frontier", tmp_path / "folds.pth") == 0
    text = (tmp_path / "frontier.txt").read_text()
    assert "chosen on 14 unsafe and 18 normal training videos" in text
    assert "measured on all 9 unsafe and 12 normal held-out videos" in text
    assert "VERY VIDEOS" not in text
    assert {row["chosen_on"] for row in read(tmp_path / "frontier.csv")} == {"folds"}
    assert "folds.pth" in (tmp_path / "frontier.yaml").read_text()


def test_votes_alone_have_a_frontier_too(tmp_path):
    write_recording(tmp_path, steps=6, calibrated=None)
    assert run(tmp_path, "--frontier") == 0
    rows = read(tmp_path / "frontier.csv")
    assert {row["family"] for row in rows} == {"vote"}
    assert "confidence and likelihood ratio: not told" in (tmp_path / "frontier.txt").read_text()
    assert (tmp_path / "frontier.png").exists()


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"detectors": identity(6, "b" * 64)},
            ["of other detectors than the votes", "they were trained anew"],
        ),
        ({"operating_point": "argmax"}, ["operating_point 'argmax'", "'validation'"]),
        ({"categories": {"1": "banner", "2": "warped"}}, ["categories ['banner', 'warped']"]),
    ],
)
def test_folds_that_do_not_belong(tmp_path, capsys, changes, words):
    write_recording(tmp_path, steps=6)
    write_folds(tmp_path / "folds.pth", steps=6, **changes)
    status = run(tmp_path, "--frontier", tmp_path / "folds.pth")
    refused(status, capsys, "--frontier", "folds.pth", *words)
    assert not (tmp_path / "frontier.csv").exists()


def test_folds_of_other_steps(tmp_path, capsys):
    write_recording(tmp_path, steps=6)
    write_folds(tmp_path / "folds.pth", steps=5)
    refused(run(tmp_path, "--frontier", tmp_path / "folds.pth"), capsys, "folds.pth", "steps")
