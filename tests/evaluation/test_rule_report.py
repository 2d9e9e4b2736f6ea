"""test_accuracy.py --rule: rates, intervals, costs and mistakes of the rule of a rule.yaml."""

import pytest
from scipy.stats import beta

import test_accuracy
from lvd.detectors.bank import load_bank
from lvd.evaluation.intervals import interval, nothing_seen, rate_text
from lvd.rules.file import identity_of
from lvd.utils.files import load_torch, save_yaml
from tests.worlds.recorded_scores import identity, write_recording
from tests.worlds.refusals import refused
from tests.worlds.rule_runs import STEPS, judged_by_hand, read, write_rule

VOTE = {"family": "vote", "lambda": "0.5", "eta": 4}
CONFIDENCE = {"family": "confidence", "bound": {"warped": 0.9, "banner": 0.8}, "horizon": 5}
RATIO = {"family": "likelihood_ratio", "bound": 0.95, "horizon": 4, "forgetting": 0.5}


# ---- intervals


@pytest.mark.parametrize("count, total", [(0, 43), (43, 43), (1, 86), (81, 86), (3, 4)])
def test_intervals_are_those_of_clopper_and_pearson(count, total):
    low, high = interval(count, total)
    wanted = beta.ppf([0.025, 0.025], [count, total - count], [total - count + 1, count + 1])
    wanted_low = 0.0 if count == 0 else wanted[0]
    wanted_high = 1.0 if count == total else 1 - wanted[1]
    assert (low, high) == pytest.approx((wanted_low, wanted_high), abs=1e-9)


def test_none_of_43_still_allows_8_percent():
    high = interval(0, 43)[1]
    assert high == pytest.approx(1 - 0.025 ** (1 / 43))
    assert nothing_seen(43) == "none of 43 still allows a rate of 8.2%"
    assert rate_text(41, 43) == "0.953 [0.842, 0.994] (41 of 43)"
    assert interval(0, 0) == (0, 1)


# ---- the report against plain loops


@pytest.mark.parametrize("settings", [VOTE, CONFIDENCE, RATIO], ids=lambda one: one["family"])
def test_the_report_of_a_rule_against_plain_loops(tmp_path, capsys, settings):
    _, scores = write_recording(tmp_path, unsafe=9, normal=12, steps=STEPS)
    flags = write_rule(tmp_path / "r.yaml", settings)
    assert test_accuracy.main(["--data_dir", str(tmp_path), *flags]) == 0
    out = capsys.readouterr().out
    videos = judged_by_hand(settings, scores)
    found = [stop for _, unsafe, stop, _ in videos if unsafe and stop is not None]
    false = [name for name, unsafe, stop, _ in videos if not unsafe and stop is not None]
    costs = [STEPS if stop is None else stop + 1 for _, unsafe, stop, _ in videos if unsafe]
    looked_at = [looked for _, unsafe, stop, looked in videos if not unsafe and stop is None]
    assert 0 < len(found) < 9 and 0 < len(false) < 12  # this world tells something
    table = {line["quantity"]: line for line in read(tmp_path / "rule_report.csv")}
    wanted = {
        "accuracy": (len(found) + 12 - len(false)) / 21,
        "recall": len(found) / 9,
        "false_positive_rate": len(false) / 12,
        "cost_of_an_unsafe_video": sum(costs) / 9 / STEPS,
        "cost_of_a_found_one": (sum(found) + len(found)) / len(found) / STEPS,
        "steps_looked_at_of_a_safe_video": sum(looked_at) / len(looked_at),
    }
    for quantity, value in wanted.items():
        assert float(table[quantity]["value"]) == pytest.approx(value, abs=1e-6)
    ends = interval(len(false), 12)
    assert float(table["false_positive_rate"]["high"]) == pytest.approx(ends[1], abs=1e-6)
    cost = table["cost_of_an_unsafe_video"]
    assert float(cost["low"]) < float(cost["value"]) < float(cost["high"])
    assert "all 9 unsafe and 12 normal held-out videos, classes not balanced" in out
    assert (tmp_path / "rule_report.txt").read_text() in out
    wrong = {name for name, unsafe, stop, _ in videos if unsafe == (stop is None)}
    lines = read(tmp_path / "misses.csv")
    assert {line["video"] for line in lines} == wrong and len(lines) == len(wrong)
    for line in lines:
        kind, row = line["video"].split()
        own = "warped" if int(row) // 10 % 2 == 0 else "banner"
        assert line["categories"] == (own if kind == "unsafe" else "")
        assert bool(line["named"]) == bool(line["stopped_after"]) == (kind == "normal")
        assert line["why"] in out


def test_a_vote_needs_no_scores(tmp_path, capsys):
    """As many of each class: the rule's report is the one of --lambda and --eta."""
    write_recording(tmp_path, unsafe=9, normal=9, steps=STEPS)
    (tmp_path / "scores.pth").unlink()
    flags = write_rule(tmp_path / "r.yaml", VOTE, detectors=None)
    assert test_accuracy.main(["--data_dir", str(tmp_path), *flags]) == 0
    by_rule = capsys.readouterr().out
    flags = ["--lambda", "0.5", "--eta", "4", "--table"]
    assert test_accuracy.main(["--data_dir", str(tmp_path), *flags]) == 0
    by_flags = capsys.readouterr().out
    assert by_flags.split("\n\n")[:4] == by_rule.split("\n\n")[:3] + by_flags.split("\n\n")[3:4]
    text = (tmp_path / "grid.txt").read_text()
    assert "the cell asked for, lambda 0.5, eta 4: accuracy" in text
    assert "picked on the very videos that judge it" in text and "none of 9 still allows" in text


def test_scores_say_of_which_detectors_they_are(world):
    noted = load_torch(world.results / "scores.pth")["detectors"]
    assert noted == identity_of(load_bank(world.save))


# ---- refusals


OTHERS = identity(STEPS, "b" * 64)


@pytest.mark.parametrize(
    "settings, changes, scores, words",
    [
        (VOTE, {"detectors": OTHERS}, {}, ["other detectors than those of", "trained anew"]),
        (VOTE, {}, {"detectors": None}, ["certain detectors", "run embed_model.py again"]),
        (
            VOTE,
            {},
            {"detectors": {"kind": "grid"}},
            ["scores.pth: key 'detectors.sha256' is missing"],
        ),
        (VOTE, {"operating_point": "argmax"}, {}, ["operating point argmax", "validation"]),
        (VOTE | {"eta": 7}, {}, {}, ["eta 7", "1 to 6"]),
        (CONFIDENCE, {}, {"calibrated": None}, ["r.yaml: reads calibrated probabilities"]),
        (CONFIDENCE | {"bound": {"warped": 0.9}}, {}, {}, ["r.yaml", "'banner' has none"]),
        (CONFIDENCE | {"horizon": 9}, {}, {}, ["r.yaml", "9", "1 to 6"]),
    ],
)
def test_rules_that_do_not_fit(tmp_path, capsys, settings, changes, scores, words):
    write_recording(tmp_path, steps=STEPS, **scores)
    flags = write_rule(tmp_path / "r.yaml", settings, **changes)
    refused(test_accuracy.main(["--data_dir", str(tmp_path), *flags]), capsys, *words)
    assert not (tmp_path / "rule_report.txt").exists()


def test_older_scores_know_their_detectors_from_the_config(tmp_path, capsys):
    write_recording(tmp_path, steps=STEPS, detectors=None)
    flags = ["--data_dir", str(tmp_path), *write_rule(tmp_path / "r.yaml", CONFIDENCE)]
    save_yaml({"detectors_sha256": "a" * 64}, tmp_path / "config.yaml")
    assert test_accuracy.main(flags) == 0
    save_yaml({"detectors_sha256": "d" * 64}, tmp_path / "config.yaml")
    refused(test_accuracy.main(flags), capsys, "other detectors", "they were trained anew")


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--lambda", "0.6"], ["--lambda 0.6", "--rule"]),
        (["--eta", "3"], ["--eta 3", "--rule"]),
        (["--unsafe_diffusion"], ["--unsafe_diffusion", "--rule"]),
        (["--set_lambda"], ["--set_lambda", "--rule"]),
        (["--resamples", "5"], ["--resamples 5"]),
    ],
)
def test_flags_beside_a_rule(tmp_path, capsys, flags, words):
    write_recording(tmp_path, steps=STEPS)
    flags = [*write_rule(tmp_path / "r.yaml", VOTE), *flags]
    refused(test_accuracy.main(["--data_dir", str(tmp_path), *flags]), capsys, *words)


def test_a_rule_beside_the_grid(tmp_path):
    write_recording(tmp_path, steps=STEPS)
    flags = [*write_rule(tmp_path / "r.yaml", CONFIDENCE), "--table"]
    out = tmp_path / "out"
    command = ["--data_dir", str(tmp_path), *flags, "--resamples", "100", "--save_dir", str(out)]
    assert test_accuracy.main(command) == 0
    for name in ("rule_report.yaml", "table.yaml"):
        assert "family: confidence" in (out / name).read_text()
    assert "the cell asked for" not in (out / "grid.txt").read_text()
