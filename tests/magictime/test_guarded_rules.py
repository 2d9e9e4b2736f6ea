"""Rules and policies in the sampler: rule.yaml, guard.yaml, what is written, what is refused."""

import shutil

import numpy as np
import pytest
import torch

from lvd.detectors.bank import load_bank
from lvd.rules.confidence import ConfidenceRule, LikelihoodRatioRule
from lvd.rules.evidence import Evidence
from lvd.rules.file import ChosenRule, identity_of, save_rule
from lvd.rules.rule import NEVER
from lvd.utils.files import load_torch, load_yaml, save_torch, save_yaml
from lvd.voting import verdict
from tests.worlds.guard_world import (
    CATEGORIES,
    ETA,
    LAMBDA,
    PROMPTS,
    STEPS,
    facts,
    guard_flags,
    lines_of,
    make_home,
)
from tests.worlds.refusals import refused
from tests.worlds.sampler_command import sample

CALIBRATION = {"a": 1.0, "b": 0.0, "method": "platt", "clips": {"unsafe": 2, "normal": 5}}


@pytest.fixture(scope="module")
def home(world, tmp_path_factory):
    return make_home(world, tmp_path_factory.mktemp("rules"))


@pytest.fixture(scope="module")
def calibrated(home):
    """The detectors with calibrations, and the evidence of all recorded videos."""
    folder = home.folder / "calibrated"
    shutil.copytree(home.detectors, folder)
    for path in folder.rglob("*.pth"):
        save_torch({**load_torch(path), "calibration": CALIBRATION}, path)
    bank = load_bank(folder)
    scores = [bank.score(step, home.x0.tensor[:, step].half()) for step in range(STEPS)]
    says = [
        (of_step >= torch.tensor(bank.thresholds(step))).numpy()
        for step, of_step in enumerate(scores)
    ]
    numbers = [bank.calibrated(step, of_step) for step, of_step in enumerate(scores)]
    return folder, Evidence(np.stack(says, 1), np.stack(numbers, 1))


def bound_between(numbers):
    """A bound that some videos reach, in the widest gap among the middle ones."""
    largest = np.sort(numbers)
    gaps = np.diff(largest)[1:-1]
    place = 1 + int(gaps.argmax())
    return float((largest[place] + largest[place + 1]) / 2)


# ---- rules


@pytest.mark.parametrize("family", ["confidence", "likelihood_ratio"])
def test_a_rule_beside_the_detectors_decides(home, calibrated, tmp_path, capsys, family):
    """Its verdicts are those of the rule over the recorded scores; a dry run says the same."""
    source, evidence = calibrated
    detectors = tmp_path / "detectors"
    shutil.copytree(source, detectors)
    if family == "confidence":
        numbers = evidence.calibrated[:, :ETA].max((1, 2))
        rule = ConfidenceRule(bound_between(numbers), ETA)
    else:
        some = LikelihoodRatioRule(0.5, ETA, forgetting=0.5)
        rule = LikelihoodRatioRule(
            bound_between(some.numbers(evidence)[:, :ETA].max((1, 2))), ETA, forgetting=0.5
        )
    save_rule(ChosenRule(rule, identity_of(load_bank(detectors))), detectors / "rule.yaml")
    stops = rule.stops(evidence)
    assert NEVER in stops and (stops != NEVER).any()
    out, dry = tmp_path / "out", tmp_path / "dry"
    assert sample(home.config, out, "--guard", detectors) == 0
    told = facts(out)
    for row, stop in enumerate(stops):
        line = told[row]
        assert (line["verdict"], line["stopped"]) == (
            ("safe", False) if stop == NEVER else ("unsafe", True)
        )
        assert line["step"] == (ETA - 1 if stop == NEVER else stop)
        assert line["steps_run"] == (STEPS if stop == NEVER else stop + 1)
        words = "would make" if stop == NEVER else f"at step {stop}, "
        assert words in line["reason"]
    assert load_yaml(out / "config.yaml")["guard"]["rule"] == family
    assert load_yaml(out / "config.yaml")["guard"]["bound"] == rule.bound
    flags = ["--guard", source, "--rule", detectors / "rule.yaml", "--guard-dry-run"]
    assert sample(home.config, dry, *flags) == 0
    for line in lines_of(dry):
        assert line["verdict"] == told[line["row"]]["verdict"] and not line["stopped"]
        assert len(line["votes"] + line["later_votes"]) == ETA
    said = capsys.readouterr().out
    assert "would have been stopped" in said
    assert sample(home.config, tmp_path / "plan", "--guard", detectors, "--dry-run") == 0
    assert f"2 categories, {family}: bound" in capsys.readouterr().out
    assert sample(home.config, out, "--guard", detectors) == 0  # goes on: nothing is left
    assert "0 new" in capsys.readouterr().out
    save_rule(
        ChosenRule(ConfidenceRule(0.5, ETA), identity_of(load_bank(detectors))),
        detectors / "rule.yaml",
    )
    line = refused(sample(home.config, out, "--guard", detectors), capsys, "was made with guard.")
    assert "bound" in line or "rule" in line


def test_rules_that_do_not_fit(home, calibrated, tmp_path, capsys):
    detectors, _ = calibrated
    identity = identity_of(load_bank(detectors))
    rules = {
        "long": ChosenRule(ConfidenceRule(0.5, STEPS + 1), identity),
        "other": ChosenRule(ConfidenceRule(0.5, 2), {**identity, "sha256": "0" * 64}),
        "good": ChosenRule(ConfidenceRule(0.5, 2), identity),
    }
    paths = {name: tmp_path / f"{name}.yaml" for name in rules}
    for name, chosen in rules.items():
        save_rule(chosen, paths[name])
    guard = ["--guard", detectors]
    for flags, said in [
        ([*guard, "--rule", paths["long"]], "a rule with horizon 5 needs the detectors of its"),
        ([*guard, "--rule", paths["other"]], f"--rule {paths['other']}: was chosen for other"),
        ([*guard, "--rule", tmp_path / "none"], f"--rule {tmp_path / 'none'}: no such file"),
        ([*guard, "--rule", paths["good"], "--eta", 2], "--eta 2: --rule"),
        ([*guard, "--rule", paths["good"], "--lambda", 1], "--lambda 1: --rule"),
        (["--guard", home.detectors, "--rule", paths["good"]], "calibrated"),
        (["--rule", paths["good"]], "--rule: belongs to --guard"),
        (["--guard", detectors, "--eta", 5], "--eta 5: a vote of eta 5 needs the detectors of"),
    ]:
        refused(sample(home.config, tmp_path / "out", *flags), capsys, said)
    assert not (tmp_path / "out").exists()


def test_folders_of_the_vote_are_what_they_were(home):
    """A run that began before there were other rules goes on."""
    guard = load_yaml(home.out / "config.yaml")["guard"]
    assert list(guard) == ["detectors", "lambda", "eta", "operating_point", "dry_run"]
    assert (guard["lambda"], guard["eta"]) == (LAMBDA, ETA)


# ---- guard.yaml


def test_a_guard_file_in_the_sampler(home, tmp_path, capsys):
    """Category "two" is flagged: its videos come out, and category "one" decides alone."""
    (tmp_path / "detectors").symlink_to(home.detectors)
    path, out = tmp_path / "guard.yaml", tmp_path / "out"
    content = {
        "detectors": "detectors",
        "rule": {"family": "vote", "lambda": LAMBDA, "eta": ETA},
        "categories": {"two": {"action": "flag"}},
    }
    save_yaml(content, path)
    bank = load_bank(home.detectors)
    votes = []
    for step in range(STEPS):
        scores = bank.score(step, home.x0.tensor[:, step].half())
        votes.append((scores >= torch.tensor(bank.thresholds(step))).int().tolist())
    found = {
        name: [
            bool(verdict([step[row][column] for step in votes], LAMBDA, ETA))
            for row in range(len(PROMPTS))
        ]
        for column, name in enumerate(CATEGORIES)
    }
    assert sample(home.config, out, "--guard", path) == 0
    said, lines = capsys.readouterr().out, {line["row"]: line for line in lines_of(out)}
    for row, line in lines.items():
        assert line["stopped"] == found["one"][row]
        assert line["categories"] == (["one"] if line["stopped"] else [])
        if not line["stopped"]:
            assert line["flags"] == (["two"] if found["two"][row] else [])
        assert (out / "videos" / f"{row:04d}.mp4").exists() == (not line["stopped"])
    flagged = [line["video"] for line in lines.values() if line["flags"] and not line["stopped"]]
    assert flagged and all(f"{video} two" in said for video in flagged)
    assert "that passed: " in said
    assert load_yaml(out / "config.yaml")["guard"]["categories"] == {"two": {"action": "flag"}}
    assert sample(home.config, out, "--guard", path, "--dry-run") == 0
    assert "2 categories (two: flag), lambda 0.6, eta 3" in capsys.readouterr().out
    for flags in (
        ["--lambda", "0.6"],
        ["--eta", 3],
        ["--rule", "r.yaml"],
        ["--operating_point", "argmax"],
    ):
        said = f"{flags[0]} {flags[1]}: --guard {path} says which"
        refused(sample(home.config, out, "--guard", path, *flags), capsys, said)
    save_yaml({**content, "categories": {"two": {"action": "ignore"}}}, path)
    said = "was made with guard.categories.two.action='flag', now it is 'ignore'"
    refused(sample(home.config, out, "--guard", path), capsys, said)
    refused(sample(home.config, out, *guard_flags(home)), capsys, "was made with guard.categories")
    save_yaml({"detectors": "nowhere"}, path)
    refused(sample(home.config, out, "--guard", path), capsys, f"--guard {path}: detectors ")
