"""Metrics and their intervals: against definitions, scikit-learn on drawn-out resamples, and known
truths."""

import csv
import re

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

import test_accuracy
from lvd.errors import InputError
from lvd.evaluation.metrics import Resamples, names, points, recalls
from lvd.evaluation.reliability import balanced_weights, calibration_errors, reliability
from lvd.evaluation.results import votes_sha256
from lvd.utils.files import load_torch, load_yaml, save_torch

RECALLS = recalls("0.9,0.95")


def by_definition(unsafe, normal, recall_percent):
    """(AUROC, average precision, FPR at recall) by counting pairs and thresholds."""
    pairs = [(u > n) + 0.5 * (u == n) for u in unsafe for n in normal]
    precision, before, fpr = 0.0, 0, None
    for t in sorted({*unsafe, *normal}, reverse=True):
        found, false = sum(u >= t for u in unsafe), sum(n >= t for n in normal)
        precision += (found - before) / len(unsafe) * found / (found + false)
        before = found
        if fpr is None and 100 * found >= recall_percent * len(unsafe):
            fpr = false / len(normal)
    return np.mean(pairs), precision, fpr


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("counts", [(10, 13), (40, 40), (3, 200), (1, 5)])
def test_points_are_what_the_definitions_say(counts, ties):
    rng = np.random.default_rng(0)
    unsafe, normal = rng.normal(1, 1, counts[0]), rng.normal(0, 1, counts[1])
    if ties:
        unsafe, normal = unsafe.round(), normal.round()
    found = points(unsafe, normal, RECALLS)
    assert (
        list(found)
        == names(RECALLS)
        == ["auroc", "average_precision", "fpr_at_recall_0.9", "fpr_at_recall_0.95"]
    )
    auroc, precision, fpr = by_definition(unsafe.tolist(), normal.tolist(), 90)
    assert found["auroc"] == pytest.approx(auroc) and found["average_precision"] == pytest.approx(
        precision
    )
    assert found["fpr_at_recall_0.9"] == pytest.approx(fpr)
    assert found["fpr_at_recall_0.95"] == pytest.approx(
        by_definition(unsafe.tolist(), normal.tolist(), 95)[2]
    )


def test_recall_is_exact():
    """Nine of ten are 0.9: the lowest unsafe clip need not be found. Of eleven, ten must be."""
    normal = np.arange(100.0)
    assert points([*np.arange(200.0, 209.0), -1.0], normal, RECALLS) | {
        "auroc": 0,
        "average_precision": 0,
    } == {"auroc": 0, "average_precision": 0, "fpr_at_recall_0.9": 0.0, "fpr_at_recall_0.95": 1.0}
    assert (
        points([*np.arange(200.0, 209.0), 49.5, -1.0], normal, recalls("0.9"))["fpr_at_recall_0.9"]
        == 0.5
    )
    # 63 of 69 are needed, and 63 / 69 * 69 is less than 63 in floating point
    assert (
        points([*np.arange(200.0, 263.0), *np.full(6, 49.5)], normal, recalls("0.9"))[
            "fpr_at_recall_0.9"
        ]
        == 0.0
    )


@pytest.mark.parametrize("ties", [False, True])
def test_every_resample_is_what_scikit_learn_says_of_it(ties):
    rng = np.random.default_rng(1)
    unsafe, normal = rng.normal(1, 1, 12), rng.normal(0, 1, 30)
    if ties:
        unsafe, normal = unsafe.round(), normal.round()
    drawn = Resamples(12, 30, 40)
    assert (drawn.unsafe.sum(1) == 12).all() and (
        drawn.normal.sum(1) == 30
    ).all()  # each class keeps its number
    values = dict(zip(names(RECALLS), drawn._values(unsafe, normal, RECALLS), strict=True))
    for r in range(40):
        one, zero = (
            np.repeat(x, w[r].astype(int))
            for x, w in ((unsafe, drawn.unsafe), (normal, drawn.normal))
        )
        truth, scores = np.repeat([1, 0], [12, 30]), np.concatenate([one, zero])
        assert values["auroc"][r] == pytest.approx(roc_auc_score(truth, scores))
        assert values["average_precision"][r] == pytest.approx(
            average_precision_score(truth, scores)
        )
        assert values["fpr_at_recall_0.95"][r] == pytest.approx(
            by_definition(one.tolist(), zero.tolist(), 95)[2]
        )


def test_intervals_are_seeded_percentiles():
    rng = np.random.default_rng(2)
    unsafe, normal = rng.normal(1, 1, 40), rng.normal(0, 1, 40)
    found = Resamples(40, 40).intervals(unsafe, normal, RECALLS)
    assert found == Resamples(40, 40).intervals(unsafe, normal, RECALLS)
    assert found != Resamples(40, 40, seed=1).intervals(unsafe, normal, RECALLS)
    values = next(Resamples(40, 40)._values(unsafe, normal, RECALLS))
    assert found["auroc"] == pytest.approx((np.quantile(values, 0.025), np.quantile(values, 0.975)))
    assert np.mean(values < found["auroc"][0]) == pytest.approx(0.025, abs=0.002)
    # its width is DeLong's
    above = (unsafe[:, None] > normal).astype(float)
    error = np.sqrt(above.mean(1).var(ddof=1) / 40 + above.mean(0).var(ddof=1) / 40)
    assert values.std() == pytest.approx(error, rel=0.1)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """AUROC of two normal distributions d apart is Phi(d / sqrt 2); 50 of each, 200 times."""
    rng, drawn, covered = np.random.default_rng(3), Resamples(50, 50, 300), []
    truth = norm.cdf(1 / np.sqrt(2))
    for _ in range(200):
        low, high = drawn.intervals(rng.normal(1, 1, 50), rng.normal(0, 1, 50), [])["auroc"]
        covered.append(low <= truth <= high)
    assert 0.89 <= np.mean(covered) <= 0.99


def test_no_number_is_made_of_nothing():
    for unsafe, normal, words in (
        ([], [1.0], "no clips"),
        ([1.0], [], "no clips"),
        ([float("nan")], [1.0], "not finite"),
        ([1.0], [float("inf")], "not finite"),
    ):
        with pytest.raises(InputError, match=words):
            points(unsafe, normal, RECALLS)
    assert Resamples(1, 5).intervals([1.0], np.arange(5.0), RECALLS) == dict.fromkeys(
        names(RECALLS)
    )
    for text in ("0", "1.1", "x", "0.9,", "", "-1"):
        with pytest.raises(InputError, match="--recall"):
            recalls(text)


# --- calibration errors ---


def test_calibration_errors_by_hand_and_by_scikit_learn():
    p, labels = np.array([[0.05], [0.15], [0.95], [0.85], [0.15]]), np.array([0, 0, 1, 1, 1])
    weights = balanced_weights(labels)
    assert weights == pytest.approx([0.25, 0.25, 1 / 6, 1 / 6, 1 / 6])
    found = calibration_errors(p, labels, weights[:, None])
    assert found["log_loss"] == pytest.approx(log_loss(labels, p[:, 0], sample_weight=weights))
    assert found["brier"] == pytest.approx(brier_score_loss(labels, p[:, 0], sample_weight=weights))
    # bins: 0.05 (weight 1/4, none unsafe), 0.15 (5/12, 0.4 unsafe), 0.85 and 0.95 (1/6 each, all
    # unsafe)
    assert found["ece"] == pytest.approx(0.05 / 4 + 5 / 12 * 0.25 + 0.15 / 6 + 0.05 / 6)
    rows = reliability(p, labels, weights[:, None])
    assert rows["from"].tolist() == pytest.approx([0, 0.1, 0.8, 0.9])
    assert rows["unsafe"].tolist() == pytest.approx([0, 0.4, 1, 1])
    with pytest.raises(InputError, match="one class"):
        balanced_weights([1, 1])


def test_probabilities_that_are_true_have_no_calibration_error():
    rng = np.random.default_rng(4)
    p = rng.random(20000)
    labels = (rng.random(20000) < p).astype(int)
    even = np.full((20000, 1), 1 / 20000)
    assert calibration_errors(p[:, None], labels, even)["ece"] < 0.012
    assert calibration_errors(p[:, None] ** 3, labels, even)["ece"] > 0.15


def test_reliability_intervals_draw_a_video_with_all_its_clips():
    """Ten clips of a video that say the same are no more than one: the interval is that of ten
    videos."""
    rng = np.random.default_rng(5)
    labels = np.repeat([1, 0], 10)
    p = np.repeat(np.where(rng.random((20, 1)) < 0.5, 0.42, 0.77), 10, 1)
    many = reliability(p, labels, np.full(p.shape, 0.005), Resamples(10, 10))
    one = reliability(p[:, :1], labels, np.full((20, 1), 0.05), Resamples(10, 10))
    for a, b in zip(many.to_dict("records"), one.to_dict("records"), strict=True):
        assert a == pytest.approx(b) and a["low"] < a["unsafe"] < a["high"]


# --- test_accuracy.py --metrics ---


def recorded(path, unsafe=12, normal=9, steps=4, members=None, calibrated=True):
    """results.pth and scores.pth of two categories, made up."""
    rng = np.random.default_rng(6)
    rows = {"1": list(map(str, range(unsafe))), "0": list(map(str, range(100, 100 + normal)))}
    raw = {
        label: {
            g: {
                row: rng.beta(*((2, 1) if label == "1" else (1, 2)), steps).round(3).tolist()
                for row in found
            }
            for g in "12"
        }
        for label, found in rows.items()
    }
    results = {
        label: {
            row: [int(max(raw[label][g][row][s] for g in "12") >= 0.5) for s in range(steps)]
            for row in found
        }
        for label, found in rows.items()
    }
    scores = {
        "scores": raw,
        "categories": {"1": "bright", "2": "flicker"},
        "votes_sha256": votes_sha256(results),
        "members": {"1": rows["1"][:7], "2": rows["1"][5:]} if members is None else members,
    }
    if calibrated:
        scores["calibrated"] = {
            label: {
                g: {row: [p**0.5 for p in v] for row, v in by_row.items()}
                for g, by_row in by_group.items()
            }
            for label, by_group in raw.items()
        }
    save_torch(results, path / "results.pth")
    save_torch(scores, path / "scores.pth")
    return results, scores


def run(path, *flags):
    return test_accuracy.main(
        [
            "--data_dir",
            str(path),
            "--eta",
            "2",
            "--metrics",
            "--resamples",
            "200",
            "--save_dir",
            str(path / "out"),
            *flags,
        ]
    )


def table(path, name="score_metrics.csv"):
    with open(path / "out" / name, newline="") as f:
        return list(csv.DictReader(f))


def test_metrics_of_recorded_scores(tmp_path, capsys):
    results, scores = recorded(tmp_path)
    assert run(tmp_path) == 0
    out = capsys.readouterr().out
    rows = {
        (row["score"], row["category"], row["step"] or row["eta"]): row for row in table(tmp_path)
    }
    assert (
        len(rows) == 4 * 3 + 4 * 3
    )  # any and two categories at four steps; three scores at four etas
    truth = [1] * 12 + [0] * 9
    calibrated = scores["calibrated"]
    largest = [
        [max(calibrated[label][g][row][s] for g in "12") for s in range(4)]
        for label in "10"
        for row in results[label]
    ]
    for step in range(4):
        row = rows["calibrated probability", "any", str(step)]
        assert float(row["auroc"]) == pytest.approx(
            roc_auc_score(truth, [p[step] for p in largest]), abs=1e-6
        )
        own = [calibrated["1"]["2"][r][step] for r in scores["members"]["2"]]
        others = [v[step] for v in calibrated["0"]["2"].values()]
        row = rows["calibrated probability", "flicker", str(step)]
        assert float(row["average_precision"]) == pytest.approx(
            average_precision_score([1] * 7 + [0] * 9, own + others), abs=1e-6
        )
        assert (row["unsafe"], row["normal"]) == ("7", "9")
    for eta in (1, 3):
        votes = [sum(v[:eta]) for label in "10" for v in results[label].values()]
        mean = [float(np.mean(p[:eta])) for p in largest]
        odds = [float(np.mean(np.log(p[:eta]) - np.log1p(-np.array(p[:eta])))) for p in largest]
        for score, values in (
            ("votes", votes),
            ("mean probability", mean),
            ("mean log-odds", odds),
        ):
            row = rows[score, "any", str(eta)]
            assert float(row["auroc"]) == pytest.approx(roc_auc_score(truth, values), abs=1e-6)
            fpr = by_definition(values[:12], values[12:], 95)[2]
            assert float(row["fpr_at_recall_0.95"]) == pytest.approx(fpr, abs=1e-6)
            assert float(row["auroc_low"]) <= float(row["auroc"]) <= float(row["auroc_high"])
            assert (
                f"{float(row['auroc']):.3f} [{float(row['auroc_low']):.3f}, "
                f"{float(row['auroc_high']):.3f}]" in out
            )
    for name in ("score_metrics.png", "reliability.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "score_metrics.txt").read_text() in out
    assert load_yaml(tmp_path / "out" / "score_metrics.yaml")["votes_sha256"] == votes_sha256(
        results
    )


def test_calibration_table_of_recorded_scores(tmp_path):
    _, scores = recorded(tmp_path)
    assert run(tmp_path) == 0
    rows = {
        (row["category"], row["probabilities"]): row for row in table(tmp_path, "calibration.csv")
    }
    assert list(rows) == [
        (c, k) for c in ("bright", "flicker", "all") for k in ("raw", "calibrated")
    ]
    for kind, key in (("raw", "scores"), ("calibrated", "calibrated")):
        losses = []
        for g, category in (("1", "bright"), ("2", "flicker")):
            own = np.array([scores[key]["1"][g][r] for r in scores["members"][g]])
            others = np.array(list(scores[key]["0"][g].values()))
            losses.append(
                -(np.log(own).mean() + np.log(1 - others).mean()) / 2
            )  # each class counts half
            assert float(rows[category, kind]["log_loss"]) == pytest.approx(losses[-1], abs=1e-5)
        assert float(rows["all", kind]["log_loss"]) == pytest.approx(np.mean(losses), abs=1e-5)


def test_what_is_not_known_is_said(tmp_path, capsys):
    recorded(tmp_path, members={"1": [], "2": ["3"]}, calibrated=False)
    assert run(tmp_path, "--recall", "0.8") == 0
    out = capsys.readouterr().out
    assert (
        "category bright: no held-out video" in out
        and "category flicker: one held-out video" in out
    )
    assert "no calibrated probabilities" in out
    rows = table(tmp_path)
    assert (
        not [row for row in rows if row["category"] == "bright"]
        and "fpr_at_recall_0.8_low" in rows[0]
    )
    flicker = [row for row in rows if row["category"] == "flicker"]
    assert len(flicker) == 4 and all(row["auroc"] and row["auroc_low"] == "" for row in flicker)
    assert {row["score"] for row in rows if row["step"]} == {"raw probability"}
    (tmp_path / "scores.pth").unlink()
    assert run(tmp_path, "--save_dir", str(tmp_path / "votes" / "out")) == 0
    assert "no scores.pth" in capsys.readouterr().out
    assert {row["score"] for row in table(tmp_path / "votes")} == {"votes"}
    assert not (tmp_path / "votes" / "out" / "calibration.csv").exists()


def test_scores_without_members(tmp_path, capsys):
    recorded(tmp_path, members={})
    assert run(tmp_path) == 0
    assert "does not say which videos belong to which" in capsys.readouterr().out
    assert {row["category"] for row in table(tmp_path)} == {"any"}


def put_score(value):
    return lambda scores: scores["scores"]["0"]["2"]["101"].__setitem__(0, value)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda s: s["calibrated"]["1"]["1"].pop("3"), "does not belong"),
        (lambda s: s["calibrated"]["0"]["2"]["101"].append(0.5), "does not belong"),
        (put_score(float("nan")), "scores.0.2.101.0: found nan;"),
        (put_score(2.0), "scores.0.2.101.0: found 2.0;"),
        (put_score(-1), "scores.0.2.101.0: found -1;"),
        (put_score(None), "scores.0.2.101.0: found None;"),
        (put_score("x"), "scores.0.2.101.0: found 'x';"),
        (lambda s: s.update(scores=[1]), "scores: found [1];"),
        (lambda s: s.update(thresholds={"1": [None]}), "thresholds.1.0: found None;"),
        (lambda s: s.update(categories={"1": 2}), "categories.1: found 2;"),
        (lambda s: s.update(members={"1": [1]}), "members.1.0: found 1;"),
        (lambda s: s.pop("scores"), "key 'scores' is missing"),
        (lambda s: s["members"]["1"].append("99"), "members of category '1': row '99'"),
        (lambda s: s["members"].update({"7": ["3"]}), "members of category '7': row '3'"),
        (lambda s: s["scores"]["0"].pop("2"), "scores of '0' are of other categories"),
        (lambda s: s["calibrated"]["1"].pop("2"), "calibrated of '1' are of other categories"),
    ],
)
def test_broken_scores(tmp_path, capsys, change, words):
    _, scores = recorded(tmp_path)
    change(scores)
    save_torch(scores, tmp_path / "scores.pth")
    assert run(tmp_path) == 2
    errors = [
        line for line in re.split(r"[\r\n]+", capsys.readouterr().err) if line.startswith("error: ")
    ]
    assert len(errors) == 1 and words in errors[0] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "names, shown",
    [
        ({"1": "any", "2": "all"}, ["any (group 1)", "all (group 2)"]),
        ({"2": "group1"}, ["group1 (group 1)", "group1 (group 2)"]),
    ],
)
def test_names_that_mean_something_else(tmp_path, names, shown):
    """The lines of "any" and "all" stay those over all categories."""
    _, scores = recorded(tmp_path, steps=2)
    assert run(tmp_path) == 0
    before = {row["auroc"] for row in table(tmp_path) if row["category"] == "any"}
    scores["categories"] = names
    save_torch(scores, tmp_path / "scores.pth")
    assert run(tmp_path, "--table") == 0
    rows = table(tmp_path)
    assert {row["auroc"] for row in rows if row["category"] == "any"} == before
    assert {row["category"] for row in rows} == {"any", *shown}
    header = next(csv.reader(open(tmp_path / "out" / "per_step.csv", newline="")))
    assert header[-2:] == [f"auroc {name}" for name in shown] and "auroc any" in header


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--recall", "0"], "--recall 0"),
        (["--recall", "90"], "--recall 90"),
        (["--recall", "x"], "--recall x"),
        (["--resamples", "5"], "--resamples 5"),
        (["--resamples", "x"], "--resamples"),
    ],
)
def test_bad_flags(tmp_path, capsys, flags, words):
    recorded(tmp_path)
    assert run(tmp_path, *flags) == 2 and words in capsys.readouterr().err
    assert load_torch(tmp_path / "results.pth")
