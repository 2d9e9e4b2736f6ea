"""choose_rule.py as a user runs it: what it writes and prints, and what it refuses."""

import csv
from types import SimpleNamespace

import pytest

import choose_rule
from lvd.detectors.bank import load_bank
from lvd.rules.file import identity_of, load_rule
from lvd.utils.files import load_yaml, save_torch, sha256
from tests.worlds.detector_world import CATEGORIES, STEPS, make_detectors
from tests.worlds.fold_scores import calibrated_detectors, folds_content, made_up_videos
from tests.worlds.refusals import refused

LIMITS = ("--max_false_positive_rate", "0.1", "--max_cost", "0.7")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Detectors, and scores of 200 + 200 videos as train_mae.py --folds writes them."""
    folder = calibrated_detectors(tmp_path_factory.mktemp("choose") / "detectors")
    videos = made_up_videos(200, 200, STEPS, signal=7.0)
    identity = identity_of(load_bank(folder))
    content = folds_content(videos, CATEGORIES, identity)
    save_torch(content, folder / "folds.pth")
    return SimpleNamespace(folder=folder, videos=videos, identity=identity, content=content)


def run(world, *words):
    return choose_rule.main(["--model_dir", str(world.folder), *map(str, words)])


def with_changes(world, path, **changes):
    """A folds.pth with other keys."""
    save_torch(folds_content(world.videos, CATEGORIES, world.identity, **changes), path)
    return path


def test_the_rule_lies_beside_the_detectors_with_its_provenance(world, capsys):
    assert run(world, *LIMITS) == 0
    out = capsys.readouterr().out
    chosen = load_rule(world.folder / "rule.yaml")
    chosen.bound_to(load_bank(world.folder))
    assert chosen.rule.describe() in out and "<- written" in out
    assert chosen.detectors == world.identity and chosen.operating_point == "validation"
    about = chosen.chosen["videos"]
    assert about["sha256"] == sha256(world.folder / "folds.pth")
    assert (about["unsafe"], about["normal"], about["folds"]["count"]) == (200, 200, 5)
    assert about["out_of_fold"] is True and about["eval_sha256"] == "e" * 64
    limits = {"max_false_positive_rate": 0.1, "max_cost": 0.7, "confidence": 0.95}
    assert chosen.chosen["limits"] == {**limits, "best": "accuracy"}
    stops = chosen.rule.stops(world.videos.evidence)
    figures = chosen.chosen["figures"]
    assert figures["false_positives"] == (stops[200:] >= 0).sum()
    assert figures["recall"] == (stops[:200] >= 0).mean()
    assert figures["false_positive_rate_at_most"] <= 0.1
    with open(world.folder / "choose_rule.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    mine = [row for row in rows if row["rule"] == chosen.rule.describe()]
    assert mine and mine[0]["certified"] == "1"
    assert {row["family"] for row in rows} == {"confidence", "vote", "likelihood_ratio"}


def test_the_output_says_what_the_rate_means(world, capsys, tmp_path):
    assert run(world, *LIMITS, "--save_path", tmp_path / "a.yaml") == 0
    out = capsys.readouterr().out
    figures = load_yaml(tmp_path / "a.yaml")["chosen"]["figures"]
    stopped = 999 * figures["false_positives"] / 200
    assert f"of 1,000 videos about {stopped:.1f} are stopped by mistake" in out
    assert "prompts like those it was chosen on" in out
    assert "fold detectors, trained on 4/5 of the videos" in out


def test_the_same_command_writes_the_same_bytes(world, tmp_path):
    written = []
    for name in ("a", "b"):
        assert run(world, *LIMITS, "--save_path", tmp_path / name / "rule.yaml") == 0
        written.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert written[0] == written[1] and len(written[0]) == 2


def test_families_and_the_goal_are_kept(world, tmp_path):
    path = tmp_path / "rule.yaml"
    assert run(world, *LIMITS, "--families", "vote", "--save_path", path) == 0
    assert load_yaml(path)["family"] == "vote"
    recalls = {}
    for best in ("accuracy", "recall"):
        assert run(world, *LIMITS, "--best", best, "--save_path", path) == 0
        recalls[best] = load_yaml(path)["chosen"]["figures"]["recall"]
    assert recalls["recall"] >= recalls["accuracy"]


def test_without_calibration_only_votes_are_tried(world, tmp_path, capsys):
    plain = SimpleNamespace(folder=make_detectors(tmp_path / "plain"))
    scores = with_changes(world, tmp_path / "f.pth", detectors=identity_of(load_bank(plain.folder)))
    words = ("--scores", scores, *LIMITS)
    assert run(plain, *words) == 0
    assert "only votes are tried" in capsys.readouterr().out
    assert load_yaml(plain.folder / "rule.yaml")["family"] == "vote"
    refused(run(plain, *words, "--families", "vote,confidence"), capsys, "--families", "calibrated")


def test_scores_of_held_out_videos_are_refused_unless_asked_for(world, tmp_path, capsys):
    scores = with_changes(world, tmp_path / "scores.pth", folds=None, detectors=None)
    words = ("--scores", scores, *LIMITS, "--save_path", tmp_path / "rule.yaml")
    refused(run(world, *words), capsys, "--scores", "not out of fold", "--not_out_of_fold")
    assert not (tmp_path / "rule.yaml").exists()
    assert run(world, *words, "--not_out_of_fold") == 0
    assert "can't test the rule any more" in capsys.readouterr().out
    assert load_yaml(tmp_path / "rule.yaml")["chosen"]["videos"]["out_of_fold"] is False
    status = run(world, *LIMITS, "--not_out_of_fold")
    refused(status, capsys, "--not_out_of_fold", "is out of fold")


@pytest.mark.parametrize("key", ["sha256", "calibration_sha256", "categories", "kind"])
def test_scores_of_other_detectors_are_refused(world, tmp_path, capsys, key):
    other = {"categories": ["a", "b"], "kind": "shared"}.get(key, "0" * 64)
    detectors = {**world.identity, key: other}
    scores = with_changes(world, tmp_path / "folds.pth", detectors=detectors)
    said = {"sha256": "trained anew", "calibration_sha256": "calibrated anew"}.get(key, key)
    refused(run(world, "--scores", scores), capsys, "of other detectors", said, "--folds")


def test_too_few_normal_videos_say_how_many_are_needed(world, capsys):
    words = ("--max_false_positive_rate", "0.01", "--max_cost", "0.7")
    refused(run(world, *words), capsys, "200 normal videos", "at least 299 are needed")


def test_limits_that_no_rule_keeps_say_what_would_help(world, capsys):
    refused(run(world, "--max_cost", "0.1"), capsys, "--max_cost 0.1", "cheapest rule takes 0.3")
    words = ("--max_false_positive_rate", "0.05", "--max_cost", "0.36")
    line = refused(run(world, *words), capsys, "--max_cost 0.36", "false positives of 200")
    least = float(line.split()[-1])
    assert run(world, *words[:2], "--max_cost", str(least - 0.01)) == 2
    assert run(world, *words[:2], "--max_cost", str(least + 0.0001)) == 0


@pytest.mark.parametrize(
    "words, expected",
    [
        (("--max_false_positive_rate", "0"), ("--max_false_positive_rate 0", "between 0 and 1")),
        (("--confidence", "1"), ("--confidence 1",)),
        (("--confidence", "0.9999999999999"), ("--confidence 0.9999999999999", "0.999999 is")),
        (("--max_false_positive_rate", "1e-300"), ("--max_false_positive_rate 1e-300", "1e-06")),
        (("--max_cost", "nan"), ("--max_cost nan",)),
        (("--families", "vote,luck"), ("--families", "luck", "likelihood_ratio")),
        (("--families", "vote,,confidence"), ("--families", "an empty name")),
        (("--scores", "no/such.pth"), ("no/such.pth", "no such file")),
        (("--save_path", "."), ("--save_path .", "is a folder")),
    ],
)
def test_flags_that_cannot_be_used(world, capsys, words, expected):
    refused(run(world, *words), capsys, *expected)
