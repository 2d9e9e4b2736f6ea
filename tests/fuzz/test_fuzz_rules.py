"""Damaged rules, guard.yaml, scores out of fold, and networks and scores of names."""

import pytest
import torch

import choose_rule
import lvd
from lvd.detectors.bank import load_bank
from lvd.evaluation.naming import naming_tables
from lvd.evaluation.results import load_folds, load_results, load_scores
from lvd.rules.vote import VoteRule
from lvd.x0.file import open_x0_file
from lvd.x0.provenance import recorded_sampling
from tests.fuzz import shapes as s
from tests.fuzz.campaign import TORCH, YAML, Kind, campaign
from tests.fuzz.oracle import run_loader, run_script
from tests.fuzz.test_fuzz_detectors import OF_ALL_STEPS, SHAPE, WORDS
from tests.fuzz.worlds import LABELS, STEPS

BOUND = s.both(s.number(0, 1), lambda bound: 0 < bound < 1)
DETECTORS = s.mapping(
    {
        "kind": s.one_of("shared"),
        "sha256": s.name,
        "calibration_sha256": s.name,
        "categories": s.list_of(s.one_of(*LABELS), 2, unique=True),
        "steps": s.one_of(STEPS),
    }
)
NOTE = s.maybe(s.mapping(rest=s.anything))
POINT = s.either(s.one_of("validation", "argmax", "calibrated"), s.number(0, 1))
RULE = s.mapping(
    {
        "format": s.one_of("lvd rule 1"),
        "family": s.one_of("confidence"),
        "bound": s.either(BOUND, s.mapping(dict.fromkeys(LABELS, BOUND))),
        "horizon": s.whole(1, STEPS),
        "detectors": DETECTORS,
    },
    {"first_bound": BOUND, "operating_point": s.maybe(POINT), "chosen": NOTE, "versions": NOTE},
)
CATEGORY = s.mapping({}, {"action": s.one_of("stop", "flag", "ignore"), "bound": BOUND})
GUARD = s.mapping(
    {"detectors": s.text},
    {
        "rule": s.maybe(s.either(s.text, s.mapping(rest=s.anything))),
        "operating_point": s.maybe(POINT),
        "categories": s.maybe(s.mapping({}, dict.fromkeys(LABELS, CATEGORY))),
    },
)
SCALAR = s.both(s.tensor(), lambda one: one.dim() == 0 and bool(0 <= one <= 1))
ROW = s.mapping(rest=s.list_of(s.either(s.number(0, 1), SCALAR), STEPS))
BY_GROUP = s.mapping(dict.fromkeys("10", s.mapping(rest=ROW)))
SAYS = s.mapping(rest=s.list_of(s.one_of(0, 1), STEPS))
FOLDS = s.mapping(
    {
        "scores": BY_GROUP,
        "says": s.mapping(dict.fromkeys("10", s.mapping(rest=SAYS))),
        "categories": s.mapping(rest=s.name),
        "members": s.mapping(rest=s.list_of(s.text)),
        "detectors": DETECTORS,
        "folds": s.mapping({"count": s.whole(2), "seed": s.whole(-(2**63))}, rest=s.anything),
        "part": s.mapping(dict.fromkeys(("unsafe", "normal"), s.mapping(rest=s.whole(1)))),
    },
    {
        "calibrated": s.maybe(BY_GROUP),
        "thresholds": s.maybe(s.mapping(rest=s.list_of(s.number()))),
        "operating_point": s.maybe(s.either(s.text, s.number(0, 1))),
        "eval_sha256": s.maybe(s.text),
    },
    rest=s.anything,
)
NAMED_SCORES = s.mapping(
    {"scores": BY_GROUP, "votes_sha256": s.text},
    {"calibrated": s.maybe(BY_GROUP), "names": s.maybe(BY_GROUP)},
    rest=s.anything,
)
# Nothing looks at the sampling of names.pth: that of its detectors counts.
NAMES = s.mapping({**OF_ALL_STEPS, "about": s.mapping(rest=s.anything)})


def guarded(world, guard):
    """A guard that has seen the recording it is for: its rule's settings."""
    guard.check(recorded_sampling(open_x0_file(world.unsafe / "pred_x0.pth")))
    return guard.rule.as_dict()


def by_rule(world):
    def load():
        return guarded(world, lvd.Guard(world.shared, device="cpu", rule=world.rule))

    return run_loader(load)


def by_guard_yaml(world):
    return run_loader(lambda: guarded(world, lvd.Guard.from_file(world.guard_yaml, "cpu")))


def chosen(world):
    """The rule that is chosen on folds.pth, after all that may be asked of that file."""
    outcome = run_loader(lambda: load_folds(world.shared))
    return outcome if outcome.status else run_script(choose_rule, world.commands("choose_rule"))


def asked_for_names(world):
    def load():
        clips = torch.linspace(-1, 1, 512).reshape(2, *SHAPE)
        bank = load_bank(world.shared)
        return [bank.names(step, clips) for step in range(STEPS)]

    return run_loader(load)


def names_measured(world):
    """How right the names are that stand in scores.pth."""

    def load():
        results, steps = load_results(world.results_shared)
        scores = load_scores(world.results_shared, results, steps)
        tables = naming_tables(scores, VoteRule("0.1", STEPS)) if scores else None
        return tables and tables.text

    return run_loader(load)


def as_written(world, content, outcome, sound):
    """The guard has the bound and the horizon of the file."""
    for key in ("bound", "horizon"):
        if outcome.value[key] != content[key]:
            return f"{key} {outcome.value[key]!r}, the file says {content[key]!r}"


def probabilities(world, content, outcome, sound):
    if not all(bool(((one >= 0) & (one <= 1)).all()) for one in outcome.value):
        return "names that are no probabilities"


KINDS = [
    (
        Kind("rule.yaml", "rule.yaml", YAML, ("shared", "unsafe"), by_rule, RULE, right=as_written),
        60,
    ),
    (
        Kind(
            "guard.yaml",
            "guard.yaml",
            YAML,
            ("shared", "unsafe", "rule.yaml"),
            by_guard_yaml,
            GUARD,
            words={"first": ("categories",), "second": ("categories",)},
        ),
        60,
    ),
    (Kind("folds.pth", "shared/folds.pth", TORCH, ("shared",), chosen, FOLDS), 50),
    (
        Kind(
            "names.pth",
            "shared/names.pth",
            TORCH,
            ("shared",),
            asked_for_names,
            s.maybe(NAMES),
            words=WORDS,
            right=probabilities,
        ),
        80,
    ),
    (
        Kind(
            "scores.pth with names",
            "results_shared/scores.pth",
            TORCH,
            ("results_shared/results.pth",),
            names_measured,
            s.maybe(NAMED_SCORES),
        ),
        50,
    ),
]


@pytest.mark.parametrize("kind, count", KINDS, ids=[kind.name for kind, _ in KINDS])
def test_damaged(cases, kind, count):
    campaign(kind, cases, count)
