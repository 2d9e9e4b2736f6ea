"""Calibrated probabilities: the fit against known maps and another implementation, in detector
files, votes and scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import train_mae
from lvd.data.clip_file import read_clip
from lvd.detectors.calibration import (
    IDENTITY,
    Calibration,
    check_operating_point,
    fit_calibration,
    log_odds,
    raw_threshold,
)
from lvd.detectors.detector import build_detector, load_detector, predict, save_detector
from lvd.errors import InputError
from lvd.utils.files import load_torch, save_torch
from tests.worlds.detector_world import HELD_NORMAL, HELD_UNSAFE, STEPS, make_world
from tests.worlds.scripts import embed


def draw(rng, unsafe, normal, slope=1.0, shift=0.0, apart=1.5):
    """(raw probabilities, labels) of a detector whose true log-odds at balanced classes, 2 apart x,
    it reports as z = slope x true + shift."""
    labels = np.repeat([1, 0], [unsafe, normal])
    x = rng.normal(np.where(labels == 1, apart, -apart))
    return expit(slope * 2 * apart * x + shift), labels


@pytest.mark.parametrize("unsafe, normal", [(3000, 3000), (1500, 9000)])
def test_a_known_map_is_found_whatever_the_class_balance(unsafe, normal):
    raw, labels = draw(np.random.default_rng(0), unsafe, normal, slope=2.5, shift=-2.0)
    found = fit_calibration(raw, labels)
    assert found.a == pytest.approx(1 / 2.5, abs=0.03) and found.b == pytest.approx(
        2.0 / 2.5, abs=0.1
    )
    assert found.clips == {"unsafe": unsafe, "normal": normal} and found.fitted
    # against scikit-learn's logistic regression, whose intercept holds the classes' share
    z = log_odds(raw)[:, None]
    other = LogisticRegression(C=1e6).fit(z, labels)
    assert found.a == pytest.approx(float(other.coef_[0, 0]), rel=0.01)
    assert found.b == pytest.approx(float(other.intercept_[0]) - np.log(unsafe / normal), abs=0.02)


def test_few_clips_told_apart_without_an_error_do_not_make_it_sure_of_everything():
    raw = expit(np.concatenate([np.linspace(2, 12, 7), np.linspace(-12, -3, 31)]))
    found = fit_calibration(raw, np.repeat([1, 0], [7, 31]))
    assert 0.2 < found.a < 1.5
    assert 0.55 < found(expit(2.0)) < 0.99 and 0.01 < found(expit(-3.0)) < 0.45


def test_the_map_never_turns_the_order_round():
    """Even for a detector that is worse than chance on its validation clips."""
    raw = np.concatenate([np.full(7, 0.1), np.full(31, 0.9)])
    found = fit_calibration(raw, np.repeat([1, 0], [7, 31]))
    grid = np.concatenate([[0.0, 1e-6], np.linspace(0.01, 0.99, 99), [1 - 1e-6, 1.0]]).astype(
        np.float32
    )
    assert found.a > 0 and (np.diff(found(grid)) > 0).all() and np.isfinite(found(grid)).all()


def test_on_new_clips_it_is_better_than_the_raw_probability_and_than_the_likelihood_alone():
    """Over many detectors with 7 + 31 clips each, overconfident as small networks are."""
    rng, losses = np.random.default_rng(1), {"raw": [], "map": [], "likelihood": []}
    for _ in range(60):
        raw, labels = draw(rng, 7, 31, slope=2.5, shift=-2.0)
        new, truth = draw(rng, 200, 200, slope=2.5, shift=-2.0)
        other = LogisticRegression(C=1e6).fit(log_odds(raw)[:, None], labels)
        alone = other.coef_[0, 0] * log_odds(new) + other.intercept_[0] - np.log(7 / 31)
        for name, p in (
            ("raw", new),
            ("map", fit_calibration(raw, labels)(new)),
            ("likelihood", expit(alone)),
        ):
            losses[name].append(log_loss(truth, np.clip(p, 1e-12, 1 - 1e-12)))
    mean = {name: np.mean(values) for name, values in losses.items()}
    assert mean["map"] < 0.8 * mean["raw"] and mean["map"] < 0.8 * mean["likelihood"]


def test_identity_and_missing_classes():
    p = np.float32([0.0, 0.25, 0.5, 1.0])
    assert (
        IDENTITY(p) == pytest.approx(p, abs=1e-6)
        and not IDENTITY.fitted
        and IDENTITY(p).dtype == np.float64
    )
    assert IDENTITY(p.reshape(2, 2)).shape == (2, 2)
    assert fit_calibration([0.2, 0.3], [0, 0]) == IDENTITY and fit_calibration([], []) == IDENTITY
    with pytest.raises(InputError, match="not finite"):
        fit_calibration([0.2, float("nan")], [0, 1])


def test_raw_threshold_makes_the_votes_of_the_calibrated_probability():
    calibration = Calibration(0.4, 1.1, "platt", {"unsafe": 7, "normal": 31})
    scores = np.random.default_rng(2).random(1000)
    for point, level in (("calibrated", 0.5), (0.9, 0.9), (0.01, 0.01)):
        threshold = raw_threshold(point, 0.7, calibration, "x.pth")
        assert ((scores >= threshold) == (calibration(scores) >= level)).all()
        assert float(calibration(threshold)) == pytest.approx(level)
    assert raw_threshold("argmax", 0.7, calibration, "x.pth") == 0.5
    assert raw_threshold("validation", 0.7, IDENTITY, "x.pth") == 0.7
    for point in ("calibrated", 0.9):
        with pytest.raises(InputError, match="x.pth is not calibrated"):
            raw_threshold(point, 0.7, IDENTITY, "x.pth")


@pytest.mark.parametrize(
    "value, expected",
    [("argmax", "argmax"), ("calibrated", "calibrated"), ("0.9", 0.9), (0.25, 0.25)],
)
def test_operating_points(value, expected):
    assert check_operating_point(value) == expected


@pytest.mark.parametrize("value", ["platt", "0", "1", 1.5, "nan", True, None])
def test_operating_points_that_are_none(value):
    with pytest.raises(InputError, match="operating_point"):
        check_operating_point(value)


# --- detector files ---


def test_detector_files_with_and_without_a_calibration(tmp_path):
    detector = build_detector("nano", (4, 4, 4, 4), "latent", 0)
    detector.calibration = Calibration(0.4, 1.1, "platt", {"unsafe": 7, "normal": 31})
    save_detector(detector, tmp_path / "new.pth")
    assert load_detector(tmp_path / "new.pth").calibration == detector.calibration
    content = load_torch(tmp_path / "new.pth")
    assert content["calibration"] == {
        "a": 0.4,
        "b": 1.1,
        "method": "platt",
        "clips": {"unsafe": 7, "normal": 31},
    }
    del content["calibration"]
    save_torch(content, tmp_path / "old.pth")
    old = load_detector(tmp_path / "old.pth")
    clips = torch.randn(3, 4, 4, 4, 4)
    assert old.calibration == IDENTITY and torch.equal(
        predict(old, clips), predict(detector, clips)
    )
    for broken in (
        {"a": 0.4},
        {"a": 0, "b": 1, "method": "", "clips": {}},
        [1, 2],
        {"a": float("nan"), "b": 1, "method": "", "clips": {}},
    ):
        save_torch({**content, "calibration": broken}, tmp_path / "broken.pth")
        with pytest.raises(InputError, match="broken.pth: .*calibration"):
            load_detector(tmp_path / "broken.pth")


# --- through the scripts ---


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("calibrated"))
    assert (
        train_mae.main(
            [
                "--data_dir",
                str(world.data),
                "--eval_dir",
                str(world.eval),
                "--save_dir",
                str(world.save),
                "--size",
                "nano",
                "--epoch",
                "4",
                "--batch_size",
                "8",
                "--workers",
                "1",
                "--gpu_num",
                "-1",
            ]
        )
        == 0
    )
    return world


def test_training_calibrates_on_the_validation_clips(world):
    """a and b are where the posterior is largest, by a search over a grid; the clips are those not
    trained on."""
    detector = load_detector(world.save / "1" / "1.pth")
    rows, settings = detector.about["rows"], detector.about["settings"]
    rng, held = np.random.default_rng(settings["seed"]), {}
    for kind, first in (("unsafe", 0), ("normal", len(rows["unsafe"]))):
        count = max(1, int(settings["validation"] * len(rows[kind]) + 0.5))
        held[kind] = sorted(
            rng.choice(np.arange(first, first + len(rows[kind])), count, replace=False) - first
        )
    assert detector.calibration.clips == {kind: len(found) for kind, found in held.items()}
    folders = {"unsafe": world.data / "group1" / "1", "normal": world.data / "normal" / "1"}
    z = np.concatenate(
        [
            logit(
                predict(
                    detector,
                    torch.stack([read_clip(folders[kind] / f"{rows[kind][k]}.pt") for k in found]),
                )
                .double()
                .numpy()
            )
            for kind, found in held.items()
        ]
    )
    y = np.repeat([1, 0], [len(held["unsafe"]), len(held["normal"])])

    def posterior(log_a, b):
        v = np.exp(log_a) * z + b + np.log(y.sum() / (1 - y).sum())
        return (
            np.where(y == 1, np.log(expit(v)), np.log(expit(-v))).sum()
            - ((log_a + 1) / 0.7) ** 2 / 2
            - (b / 4) ** 2 / 2
        )

    best = max(
        (posterior(log_a, b), log_a, b)
        for log_a in np.arange(-3, 1.5, 0.02)
        for b in np.arange(-5, 5, 0.05)
    )
    assert np.log(detector.calibration.a) == pytest.approx(best[1], abs=0.03)
    assert detector.calibration.b == pytest.approx(best[2], abs=0.06)


def test_scores_and_votes_by_calibrated_probability(world, tmp_path):
    assert embed(world, "--operating_point", "argmax", save=tmp_path / "argmax") == 0
    found = load_torch(tmp_path / "argmax" / "scores.pth")
    assert set(found["calibrated"]) == {"1", "0"} and set(found["calibrated"]["1"]) == {"1", "2"}
    maps = {
        (g, s): load_detector(world.save / str(g) / f"{s}.pth").calibration
        for g in (1, 2)
        for s in range(STEPS)
    }
    for label, rows in (("1", HELD_UNSAFE), ("0", HELD_NORMAL)):
        for group in (1, 2):
            for row in map(str, rows):
                raw, got = (
                    found["scores"][label][str(group)][row],
                    found["calibrated"][label][str(group)][row],
                )
                by_hand = [
                    expit(maps[group, s].a * logit(p) + maps[group, s].b) for s, p in enumerate(raw)
                ]
                assert got == pytest.approx(by_hand, abs=1e-6) and all(
                    type(p) is float for p in got
                )
    for point, level in (("calibrated", 0.5), ("0.9", 0.9)):
        assert embed(world, "--operating_point", point, save=tmp_path / point) == 0
        votes = load_torch(tmp_path / point / "results.pth")
        for label in "10":
            for row, got in votes[label].items():
                p = np.array([found["calibrated"][label][g][row] for g in "12"])
                assert got == (p >= level).any(0).astype(int).tolist()
    assert load_torch(tmp_path / "0.9" / "scores.pth")["operating_point"] == 0.9


def test_detectors_without_a_calibration_vote_as_before_and_say_so(world, tmp_path, capsys):
    for path in world.save.glob("*/*.pth"):
        save_detector(
            replace(load_detector(path), calibration=IDENTITY),
            tmp_path / "old" / path.parent.name / path.name,
        )
    old = ["--model_dir", str(tmp_path / "old")]
    for point in ("argmax", "validation"):
        flags = ["--operating_point", point]
        assert embed(world, *flags, save=tmp_path / point) == 0
        assert embed(world, *flags, *old, save=tmp_path / f"{point}_old") == 0
        assert load_torch(tmp_path / point / "results.pth") == load_torch(
            tmp_path / f"{point}_old" / "results.pth"
        )
    assert "calibrated" not in load_torch(tmp_path / "argmax_old" / "scores.pth")
    capsys.readouterr()
    for point, word in (
        ("calibrated", "0.pth is not calibrated"),
        ("platt", "point 'platt'"),
        ("2", "between 0 and"),
    ):
        assert embed(world, "--operating_point", point, *old, save=tmp_path / "no") == 2
        assert word in capsys.readouterr().err and not (tmp_path / "no" / "results.pth").exists()
