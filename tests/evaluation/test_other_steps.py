"""Votes of other steps: a rule of trained steps is carried over, and says so."""

import pytest

import choose_rule
import test_accuracy
from lvd.errors import InputError
from lvd.evaluation.results import load_results, load_trained_steps
from lvd.evaluation.rule_of_scores import load_recording, need_trained_steps
from lvd.rules.carried import carried_text, carry, own_steps_text
from lvd.rules.confidence import ConfidenceRule, LikelihoodRatioRule
from lvd.rules.file import other_detectors
from lvd.rules.vote import VoteRule
from lvd.utils.files import load_torch, load_yaml, save_torch
from lvd.voting import verdict
from tests.worlds.recorded_scores import identity, write_folds, write_recording
from tests.worlds.refusals import refused
from tests.worlds.rule_runs import judged_by_hand, read, write_rule

OF_TRAINED = 6  # steps of the detectors
TRAINED = [0, 1, 2, 3, 4, 5]
EVERY_OTHER = [0, 2, 4]
RULES = {
    "vote": {"family": "vote", "lambda": "0.6", "eta": 4},
    "confidence": {"family": "confidence", "bound": 0.9, "horizon": 3},
    "likelihood_ratio": {
        "family": "likelihood_ratio",
        "bound": 0.95,
        "horizon": 6,
        "forgetting": 0.5,
    },
}


def write_other(folder, trained_steps=EVERY_OTHER, **changes):
    """A recording of other steps than those of the detectors."""
    about = {"trained_steps": trained_steps, "detectors": identity(OF_TRAINED)} | changes
    return write_recording(folder, 9, 12, len(EVERY_OTHER), **about)


def looks_by_hand(horizon, trained_steps):
    """Leading steps whose trained step lies within the horizon from the first one's."""
    count = 0
    for step in trained_steps:
        if step >= trained_steps[0] + horizon:
            break
        count += 1
    return count


# ---- the arithmetic


@pytest.mark.parametrize(
    "trained_steps", [EVERY_OTHER, [3, 4, 5], [0, 0, 1, 1, 2, 2], [0], [0, 5], [2, 4, 3, 9], [1, 0]]
)
def test_a_rule_looks_at_as_wide_a_stretch_of_trained_steps(trained_steps):
    for horizon in range(1, 8):
        looks = looks_by_hand(horizon, trained_steps)
        for rule in (
            VoteRule("0.6", horizon),
            ConfidenceRule(0.9, horizon, 0.99, ("a", "b")),
            LikelihoodRatioRule(0.9, horizon, forgetting=0.5),
        ):
            assert carry(rule, trained_steps) == rule.over(looks) and looks >= 1
            assert carry(rule, None) is rule
            assert carry(rule, TRAINED + [6, 7]) is rule


def test_words():
    every_other = list(range(0, 50, 2))
    words = "eta 20 of the trained steps is 10 of these 25 steps"
    assert carried_text(VoteRule("0.6", 20), every_other) == words
    words = "horizon 31 of the trained steps is 16 of these 25 steps"
    assert carried_text(ConfidenceRule(0.9, 31), every_other) == words
    assert "the trained steps 0, 2, 4, ..., 48 judged" in own_steps_text(every_other)
    assert carried_text(VoteRule(), None) == own_steps_text(None) == ""


def test_detectors_are_compared_in_what_both_say():
    one = identity(5)
    assert other_detectors(one, dict(one)) is None and other_detectors({}, one) is None
    assert other_detectors({"sha256": one["sha256"]}, one) is None
    assert other_detectors(one, identity(6)) == ("steps", 5, 6)


# ---- the report


@pytest.mark.parametrize("name", RULES)
def test_a_rule_file_is_carried_over(tmp_path, capsys, name):
    _, scores = write_other(tmp_path)
    settings = RULES[name]
    flags = write_rule(tmp_path / "r.yaml", settings, detectors=identity(OF_TRAINED))
    assert test_accuracy.main(["--data_dir", str(tmp_path), *flags]) == 0
    key = "eta" if name == "vote" else "horizon"
    looks = looks_by_hand(settings[key], EVERY_OTHER)
    assert looks < settings[key]
    words = f"{key} {settings[key]} of the trained steps is {looks} of these 3 steps"
    assert words in (tmp_path / "rule_report.txt").read_text()
    assert capsys.readouterr().out.count(words) == 2  # in the report and in the summary
    videos = judged_by_hand({**settings, key: looks}, scores)
    wrong = {name for name, unsafe, stop, _ in videos if unsafe == (stop is None)}
    assert {line["video"] for line in read(tmp_path / "misses.csv")} == wrong
    costs = [3 if stop is None else stop + 1 for _, unsafe, stop, _ in videos if unsafe]
    table = {line["quantity"]: line for line in read(tmp_path / "rule_report.csv")}
    own = float(table["cost_of_an_unsafe_video"]["value"])
    assert own == pytest.approx(sum(costs) / 9 / 3, abs=1e-6)
    about = load_yaml(tmp_path / "rule_report.yaml")
    assert about["trained_steps"] == EVERY_OTHER and about[key] == looks
    assert about["rule_in_trained_steps"][key] == settings[key]


@pytest.mark.parametrize("eta, looks", [(None, 3), (6, 3), (4, 2), (2, 1), (1, 1)])
def test_lambda_and_eta_are_of_the_trained_steps(tmp_path, capsys, eta, looks):
    results, _ = write_other(tmp_path)
    flags = ["--lambda", "0.6"] + (["--eta", str(eta)] if eta else [])
    assert test_accuracy.main(["--data_dir", str(tmp_path), *flags]) == 0
    out = capsys.readouterr().out
    assert f"eta {eta or 6} of the trained steps is {looks} of these 3 steps" in out
    found = sum(verdict(votes, "0.6", looks) for votes in results["1"].values())
    assert f"tpr: {found / 9:.4f}" in out


def test_tables_count_their_own_steps_and_say_so(tmp_path):
    write_other(tmp_path)
    flags = ["--lambda", "0.6", "--eta", "4", "--table", "--metrics", "--resamples", "100"]
    assert test_accuracy.main(["--data_dir", str(tmp_path), *flags]) == 0
    note = "steps, eta and horizon count the 3 steps of these videos, which the trained steps 0, 2"
    for name in ("grid.txt", "score_metrics.txt"):
        assert note in (tmp_path / name).read_text()
    assert {line["eta"] for line in read(tmp_path / "grid.csv")} == {"1", "2", "3"}
    assert load_yaml(tmp_path / "table.yaml")["eta"] == 2


def test_votes_alone_count_their_own_steps(tmp_path, capsys):
    """The paper's results.pth knows no other steps, nor does one beside scores of other votes."""
    write_other(tmp_path)
    other = tmp_path / "other"
    write_recording(other, steps=3, seed=7, trained_steps=[0, 2, 4], detectors=identity(6))
    (other / "scores.pth").replace(tmp_path / "scores.pth")
    flags = ["--data_dir", str(tmp_path), "--lambda", "0.6"]
    assert test_accuracy.main([*flags, "--eta", "3"]) == 0
    assert "trained steps" not in capsys.readouterr().out
    (tmp_path / "scores.pth").unlink()
    assert test_accuracy.main([*flags, "--eta", "3"]) == 0
    assert "trained steps" not in capsys.readouterr().out
    refused(test_accuracy.main([*flags, "--eta", "4"]), capsys, "--eta 4", "from 1 to 3")
    results, steps = load_results(tmp_path)
    assert load_trained_steps(tmp_path, results, steps) == (None, 3)


def test_votes_of_the_trained_steps_say_nothing_of_other_ones(tmp_path, capsys):
    write_recording(tmp_path)
    flags = ["--data_dir", str(tmp_path), "--lambda", "0.6", "--eta", "4", "--table"]
    assert test_accuracy.main(flags) == 0
    assert "trained steps" not in capsys.readouterr().out
    assert not {"trained_steps", "rule_in_trained_steps"} & set(load_yaml(tmp_path / "table.yaml"))


def test_the_frontier_carries_over_rules_of_folds_and_the_papers(tmp_path, capsys):
    write_other(tmp_path)
    write_folds(tmp_path / "folds.pth")
    flags = ["--data_dir", str(tmp_path), "--lambda", "0.6", "--resamples", "100", "--frontier"]
    assert test_accuracy.main([*flags, str(tmp_path / "folds.pth")]) == 0
    assert "cost: mean share of the 3 steps" in capsys.readouterr().out
    lines = read(tmp_path / "frontier.csv")
    assert len(lines) > 5
    for line in lines:
        words, _, stated = line["rule"].partition(" (")
        assert stated.endswith(" of the trained steps)")
        looks = int(
            words.split("eta " if line["family"] == "vote" else "horizon ")[1].split(",")[0]
        )
        assert looks == looks_by_hand(int(stated.split()[0]), EVERY_OTHER)
    papers = [line["rule"] for line in lines if line["goal"] == "the paper's"]
    assert papers == ["lambda 0.6, eta 3 (5 of the trained steps)"]
    assert test_accuracy.main(flags) == 0  # chosen on these videos themselves: in their own steps
    own = [line["rule"] for line in read(tmp_path / "frontier.csv") if line["goal"] == "accuracy"]
    assert own and not any("trained" in rule for rule in own)


# ---- what is refused


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"trained_steps": [0, 2]}, ("trained_steps: 2 numbers", "each of the 3 steps")),
        ({"trained_steps": []}, ("trained_steps: 0 numbers",)),
        ({"trained_steps": [0, -1, 2]}, ("trained_steps.1: found -1",)),
        ({"trained_steps": [0, 1.5, 2]}, ("trained_steps.1",)),
        ({"detectors": None}, ("trained_steps without detectors",)),
    ],
)
def test_damaged_trained_steps_are_refused(tmp_path, capsys, changes, words):
    write_other(tmp_path, **changes)
    flags = ["--data_dir", str(tmp_path), "--lambda", "0.6"]
    refused(test_accuracy.main(flags), capsys, "scores.pth", *words)


def test_a_rule_longer_than_the_trained_steps_is_refused(tmp_path, capsys):
    write_other(tmp_path)
    flags = ["--data_dir", str(tmp_path), "--lambda", "0.6", "--eta", "7"]
    refused(test_accuracy.main(flags), capsys, "--eta 7", "from 1 to 6")
    settings = {**RULES["confidence"], "horizon": 7}
    flags = write_rule(tmp_path / "r.yaml", settings, detectors=identity(OF_TRAINED))
    refused(test_accuracy.main(["--data_dir", str(tmp_path), *flags]), capsys, "from 1 to 6")


def test_folds_of_other_steps_are_refused(tmp_path, capsys):
    write_other(tmp_path)
    write_folds(tmp_path / "folds.pth", trained_steps=TRAINED)
    flags = ["--data_dir", str(tmp_path), "--frontier", str(tmp_path / "folds.pth")]
    refused(test_accuracy.main(flags), capsys, "folds.pth: trained_steps")
    write_folds(tmp_path / "folds.pth", steps=3, detectors=identity(3))
    refused(test_accuracy.main(flags), capsys, "of other detectors", "steps 3 there, 6 here")


def test_reports_that_count_trained_steps_refuse_others(tmp_path):
    write_other(tmp_path)
    with pytest.raises(InputError, match="votes of 3 other steps, which trained steps 0, 2, 4"):
        need_trained_steps(load_recording(tmp_path))
    write_recording(tmp_path)
    need_trained_steps(load_recording(tmp_path))


def test_no_rule_is_chosen_on_other_steps(tmp_path, capsys):
    """Also where they are as many as the trained ones."""
    write_other(tmp_path)
    scores = load_torch(tmp_path / "scores.pth")
    flags = ["--scores", str(tmp_path / "scores.pth"), "--not_out_of_fold"]
    words = "in 3 other steps, which trained steps 0, 2, 4 judged"
    refused(choose_rule.main(flags), capsys, words, "a rule is stated in trained steps")
    save_torch({**scores, "trained_steps": [0, 0, 1, 2, 3, 4]}, tmp_path / "scores.pth")
    refused(choose_rule.main(flags), capsys, "in 6 other steps")
