"""rule.yaml: what is written is read again; what is damaged is refused in one line; whose rule it
is."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest

from lvd.detectors.calibration import IDENTITY, Calibration
from lvd.errors import InputError, shorten
from lvd.rules.choice import choose
from lvd.rules.confidence import ConfidenceRule, LikelihoodRatioRule
from lvd.rules.file import ChosenRule, identity_of, load_rule, save_rule
from lvd.rules.vote import VoteRule

FITTED = Calibration(0.5, 0.1, "platt", {"unsafe": 3, "normal": 4})


def bank_of(calibration=FITTED, sha256="a" * 64, categories=("fire", "blood"), kind="grid"):
    """What a rule looks at of a bank, of two steps."""
    groups = range(1, len(categories) + 1)
    members = {
        (group, step): SimpleNamespace(calibration=calibration)
        for group in groups
        for step in range(2)
    }
    return SimpleNamespace(
        about={"kind": kind},
        sha256=lambda: sha256,
        groups=list(groups),
        steps=[0, 1],
        categories=dict(zip(groups, categories)),
        members=members,
        all_calibrated=calibration.fitted,
    )


def text_of(**changes):
    """The text of a good rule.yaml with other settings; None leaves one out."""
    content = {
        "format": "lvd rule 1",
        "family": "confidence",
        "bound": "0.9912",
        "horizon": "30",
        "detectors": "{kind: grid, sha256: a, calibration_sha256: b, categories: [x], steps: 2}",
        **changes,
    }
    return "".join(f"{key}: {value}\n" for key, value in content.items() if value is not None)


RULES = [
    VoteRule("0.6", 5),
    VoteRule(Fraction(2, 3), 7),
    VoteRule("0." + "3" * 300, 7),
    ConfidenceRule(0.1 + 0.2, 30),
    ConfidenceRule({"fire": 0.99, "blood": 0.9}, 3, first_bound=0.999),
    LikelihoodRatioRule(0.99, 3, forgetting=1),
    LikelihoodRatioRule(0.99, 3, first_bound=0.9, forgetting=0.25),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.family)
def test_what_is_written_is_read(tmp_path, rule):
    bank = bank_of()
    chosen = ChosenRule(rule, identity_of(bank), {"videos": 12}, 0.7)
    save_rule(chosen, tmp_path / "rule.yaml", versions={"python": "3"})
    found = load_rule(tmp_path / "rule.yaml")
    assert found.rule.as_dict() == rule.as_dict() and type(found.rule) is type(rule)
    assert (found.detectors, found.chosen) == (chosen.detectors, chosen.chosen)
    assert found.operating_point == 0.7
    assert found.bound_to(bank).rule.horizon == rule.horizon
    save_rule(found, tmp_path / "again.yaml", versions={"python": "3"})
    assert (tmp_path / "again.yaml").read_bytes() == (tmp_path / "rule.yaml").read_bytes()


def test_a_vote_by_hand(tmp_path):
    path = tmp_path / "rule.yaml"
    path.write_text("format: lvd rule 1\nfamily: vote\nlambda: 0.14\neta: 2\n")
    found = load_rule(path)
    assert found.rule == VoteRule(0.14, 2) and found.rule.needed == 1
    assert found.bound_to(bank_of(IDENTITY)).rule == found.rule


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "mapping|dictionary|needed"),
        ("[1, 2]", "needed"),
        ("bound: [", "YAML"),
        ("\0", "YAML"),
        (text_of(format=None), "key 'format' is missing"),
        (text_of(format="lvd rule 2"), "format: found 'lvd rule 2'"),
        (text_of(family=None), "key 'family' is missing"),
        (text_of(family="guess"), "family: found 'guess'"),
        (text_of(bound=None), "key 'bound' is missing, family confidence needs it"),
        (text_of(horizon=None), "key 'horizon' is missing"),
        (text_of(bound="yes"), "bound"),
        (text_of(bound=".nan"), "bound"),
        (text_of(bound="1.0"), "bound 1.0: a probability between 0 and 1 is needed"),
        (text_of(bound="0"), "bound"),
        (text_of(bound="{x: 2.0}"), "bound of 'x' 2.0"),
        (text_of(bound="{}"), "bound"),
        (text_of(bound="{1: 0.5}"), "bound"),
        (text_of(bound="9" * 5000), "line 3: .*64 bits"),
        (text_of(horizon="true"), "horizon: found True"),
        (text_of(horizon="0"), "horizon 0"),
        (text_of(horizon="2.5"), "horizon: found 2.5"),
        (text_of(horizon="9" * 5000), "line 4: .*64 bits"),
        (text_of(first_bound="0.0"), "first_bound 0.0"),
        (text_of(first_bound="{x: 0.5}"), "first_bound"),
        (text_of(forgetting="0.5"), "forgetting: no setting of family confidence"),
        (text_of(eta="5"), "eta: no setting of family confidence"),
        (text_of(bounds="0.5"), "unknown key 'bounds'"),
        (text_of(operating_point="fair"), "operating_point 'fair'"),
        (text_of(operating_point="2.0"), "operating_point 2.0"),
        (text_of(detectors=None), "key 'detectors' is missing"),
        (text_of(detectors="{kind: grid}"), "key 'detectors.sha256' is missing"),
        (text_of(detectors="5"), "detectors"),
        (text_of(chosen="5"), "chosen"),
        (text_of(family="likelihood_ratio"), "key 'forgetting' is missing"),
        (text_of(family="likelihood_ratio", forgetting="2"), "forgetting 2"),
        (text_of(family="vote", bound=None, horizon=None), "key 'lambda' is missing"),
        (text_of(family="vote", bound=None, horizon=None, **{"lambda": 2, "eta": 3}), "lambda 2"),
        (text_of(family="vote", bound=None, horizon=None, **{"lambda": 1, "eta": 0}), "eta 0"),
        (text_of() + "bound: 0.5\n", "bound"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "rule.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as error:
        load_rule(path, "--rule ")
    message = str(error.value)
    assert message.startswith(f"--rule {path}: ") and "\n" not in message
    assert len(message) < 300 + len(str(path)) and "--lambda" not in message


def test_files_that_are_none(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00rule")
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path / "bytes.yaml", "not UTF-8"),
    ):
        with pytest.raises(InputError, match=f"^--rule {path}: {said}"):
            load_rule(path, "--rule ")


@pytest.mark.parametrize(
    "other, key",
    [
        ({"kind": "shared"}, "kind grid"),
        ({"sha256": "b" * 64}, "trained anew"),
        ({"calibration": Calibration(0.6, 0.1, "platt", {"unsafe": 3})}, "calibrated anew"),
        ({"categories": ("fire", "smoke")}, "categories"),
    ],
)
def test_a_rule_of_other_detectors_is_refused(tmp_path, other, key):
    save_rule(ChosenRule(ConfidenceRule(0.9, 2), identity_of(bank_of())), tmp_path / "rule.yaml")
    found = load_rule(tmp_path / "rule.yaml", "rule=")
    assert found.bound_to(bank_of()).rule.categories == ("fire", "blood")
    with pytest.raises(InputError, match="chosen for other detectors") as error:
        found.bound_to(bank_of(**other))
    assert key in str(error.value) and str(error.value).startswith(f"rule={tmp_path}")


def test_detectors_that_are_not_calibrated():
    for rule in (ConfidenceRule(0.9, 2), LikelihoodRatioRule(0.9, 2)):
        with pytest.raises(InputError, match="^rule: reads calibrated probabilities"):
            ChosenRule(rule).bound_to(bank_of(IDENTITY))
    assert ChosenRule(VoteRule()).bound_to(bank_of(IDENTITY)).rule == VoteRule()


# ---- which rule a guard takes


def test_the_rule_that_is_given_wins_then_the_one_beside_then_the_papers(tmp_path):
    beside = tmp_path / "rule.yaml"
    assert choose(tmp_path).rule == VoteRule("0.6", 5)
    assert choose(tmp_path, "0.3").rule == VoteRule("0.3", 5)
    save_rule(ChosenRule(ConfidenceRule(0.9, 2), identity_of(bank_of())), beside)
    (tmp_path / "shared.pth").touch()
    for model_dir in (tmp_path, str(tmp_path), tmp_path / "shared.pth"):
        assert choose(model_dir).rule == ConfidenceRule(0.9, 2)
        assert choose(model_dir, eta=7).rule == VoteRule("0.6", 7)
        assert choose(model_dir, "0.2").rule == VoteRule("0.2", 5)
        assert choose(model_dir, rule=VoteRule("0.1", 2)).rule == VoteRule("0.1", 2)
    chosen = load_rule(beside)
    assert choose("nowhere", rule=chosen) is chosen
    assert choose("nowhere", rule=beside).rule == choose("nowhere", rule=str(beside)).rule


def a_folder(path):
    path.mkdir()


def a_link_to_nowhere(path):
    path.symlink_to("gone.yaml")


def a_link_to_itself(path):
    path.symlink_to(path)


@pytest.mark.parametrize("damage", [a_folder, a_link_to_nowhere, a_link_to_itself, Path.touch])
def test_the_paper_does_not_decide_where_the_rule_beside_is_damaged(tmp_path, damage):
    damage(tmp_path / "rule.yaml")
    with pytest.raises(InputError, match="rule.yaml: "):
        choose(tmp_path)
    assert choose(tmp_path, "0.5").rule == VoteRule("0.5", 5)  # it is not asked for


def test_two_rules_are_one_too_many():
    for given, said in (
        ({"lambda_": "0.5", "rule_flag": "--rule "}, "--lambda 0.5: --rule r.yaml is given too"),
        ({"eta": 3, "rule_flag": "--rule "}, "--eta 3: --rule r.yaml is given too"),
        ({"lambda_": 2}, "lambda_=2: rule=r.yaml is given too"),
        ({"eta": 0}, "eta=0: rule=r.yaml is given too"),
        ({"eta": 3, "rule": VoteRule()}, "eta=3: rule=VoteRule is given too"),
    ):
        with pytest.raises(InputError, match=f"^{said}"):
            choose("detectors", **{"rule": "r.yaml", **given})


@pytest.mark.parametrize(
    "rule", [3, True, [], {}, b"rule.yaml", 10**5000, "x" * 100_000, "", "\0"], ids=shorten
)
def test_what_is_no_rule(rule):
    with pytest.raises(InputError, match="^rule=") as error:
        choose("detectors", rule=rule)
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


def test_a_path_object(tmp_path):
    with pytest.raises(InputError, match="^rule=.*none.yaml: no such file"):
        choose("detectors", rule=Path(tmp_path / "none.yaml"))
