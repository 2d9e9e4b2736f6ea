"""Damaged splits, votes, scores, verdicts and config.yaml beside outputs."""

import re
from sys import float_info

import pytest

import build_eval_set
import build_x0
import embed_model
import test_accuracy
from lvd.evaluation.metrics import recalls
from lvd.evaluation.results import load_results, load_scores
from lvd.evaluation.score_report import score_report
from lvd.evaluation.score_text import report_text
from MagicTime import inference_magictime
from MagicTime.utils.verdicts import Verdicts, tell
from tests.fuzz import shapes as s
from tests.fuzz.campaign import LINES, TORCH, YAML, Kind, campaign
from tests.fuzz.oracle import run_loader, run_script

HASH = s.both(s.text, lambda text: len(text) == 64)
ROWS = s.list_of(s.whole(0, 9), unique=True)
SPLIT = s.mapping(
    {"unsafe": s.both(ROWS, len), "normal": ROWS},
    {
        "seed": s.maybe(s.whole(0)),
        "fraction": s.maybe(s.number(0, 1)),
        "label_sha256": s.maybe(s.text),
        "normal_rows": s.maybe(s.whole(0)),
    },
)
VOTES = s.mapping(rest=s.list_of(s.one_of(0, 1), 3))
RESULTS = s.both(s.mapping({"1": VOTES, "0": VOTES}), lambda r: all(map(len, r.values())))
BY_ROW = s.mapping(rest=s.list_of(s.number(0, 1), 3))
BY_GROUP = s.mapping({"1": s.mapping(rest=BY_ROW), "0": s.mapping(rest=BY_ROW)})
SCORES = s.mapping(
    {"scores": BY_GROUP, "votes_sha256": HASH},
    {
        "calibrated": s.maybe(BY_GROUP),
        "thresholds": s.maybe(s.mapping(rest=s.list_of(s.number(0, 1), 3))),
        "categories": s.maybe(s.mapping(rest=s.name)),
        "members": s.maybe(s.mapping(rest=s.list_of(s.text))),
        "operating_point": s.maybe(s.either(s.text, s.number(0, 1))),
        "eval_sha256": s.maybe(s.text),
        "trained_steps": s.maybe(s.list_of(s.whole(0), 3)),
        "detectors": s.maybe(
            s.mapping(
                {
                    "kind": s.one_of("grid", "shared"),
                    "sha256": s.name,
                    "calibration_sha256": s.name,
                    "categories": s.list_of(s.name, unique=True),
                    "steps": s.whole(1),
                }
            )
        ),
    },
)
VERDICT = s.mapping(
    {"row": s.whole(0), "verdict": s.one_of("safe", "unsafe", "unchecked"), "stopped": s.boolean},
    {
        "step": s.maybe(s.whole(0)),
        "steps_total": s.whole(0),
        "steps_saved": s.whole(0),
        "seconds_saved": s.number(0, float_info.max),
        "dry_run": s.boolean,
        "video": s.text,
        "categories": s.list_of(s.text),
    },
    rest=s.anything,
)
PART = s.mapping(rest=s.list_of(s.number(0, 1), 1))
UNFINISHED = s.mapping(
    {
        "config": s.text,
        "found": s.mapping(
            {
                "scores": s.mapping({"1": PART, "0": PART}),
                "thresholds": s.mapping(rest=s.number(0, 1)),
            },
            rest=s.anything,
        ),
    },
    rest=s.anything,
)
DATA = ("build_yaml", "label_csv", "data")


def build_eval(world):
    return run_script(build_eval_set, world.commands("build_eval_set"))


def embed(world, *words):
    return run_script(embed_model, world.commands("embed_model", *words))


def accuracy(world, *words):
    return run_script(test_accuracy, world.commands("test_accuracy", *words))


def metrics(world):
    """What test_accuracy.py --metrics makes of the scores, without its figures."""

    def load():
        results, steps = load_results(world.results)
        scores = load_scores(world.results, results, steps)
        return report_text(score_report(results, scores, steps, recalls("0.9"), 100), {1}, {0})

    return run_loader(load)


def verdicts(world):
    """What a run that goes on makes of the lines: its summary."""

    def load():
        lines = Verdicts(world.guarded).read()
        return tell(lines.values()) if lines else None

    return run_loader(load)


def built_again(world):
    return run_script(build_x0, world.commands("build_x0", "--steps", "0"))


def embedded_again(world):
    return embed(world, "--save_dir", world.half, "--operating_point", "validation")


def sampled_again(world):
    """A guarded run that goes on, as far as its plan and verdicts."""
    words = world.commands("sample", "--save-path", world.guarded, "--guard", world.grid)
    words += ["--eta", "2", "--guard-allow-unknown", "--dry-run"]
    return run_script(inference_magictime, words)


def same_output(world, content, outcome, sound):
    """A script that does without this file, or makes it anew, says what it said before."""
    here, there = _said(outcome), _said(sound)
    if here != there:
        return f"another result: {here!r}, not {there!r}"


def _said(outcome):
    """The summary's lines, without the space on the disk, and without what changed since: a
    dataset whose config.yaml is damaged is compared with its sources and brought up to date."""
    text = re.sub(r"[\d.]+ GiB free", "", outcome.out)
    return re.sub(r"  changed since: .*\n", "", text).splitlines()[:9]


def all_votes(world, content, outcome, sound):
    """A run that goes on ends with votes of the same videos as an unbroken one."""
    there, here = (TORCH.read(f / "results.pth") for f in (world.results, world.half))
    same = all(there[label].keys() == here[label].keys() for label in there)
    return None if same and RESULTS(here) else "votes that are missing or none"


SPLIT_NAMES = ("eval.pth", "held-out row")
HELD_OUT = ("grid", "label_csv", "eval_set", "eval_normal")

KINDS = [
    (
        Kind(
            "eval.pth",
            "eval.pth",
            TORCH,
            DATA,
            build_eval,
            SPLIT,
            named=SPLIT_NAMES,
            whole=SPLIT_NAMES,
        ),
        80,
    ),
    (
        Kind(
            "eval.pth, embed",
            "eval.pth",
            TORCH,
            HELD_OUT,
            embed,
            SPLIT,
            named=SPLIT_NAMES,
            whole=SPLIT_NAMES,
        ),
        60,
    ),
    (Kind("results.pth", "results/results.pth", TORCH, (), accuracy, RESULTS), 100),
    (
        Kind(
            "scores.pth",
            "results/scores.pth",
            TORCH,
            ("results/results.pth",),
            metrics,
            s.maybe(SCORES),
        ),
        100,
    ),
    (
        Kind(
            "verdicts.jsonl",
            "guarded/verdicts.jsonl",
            LINES,
            (),
            verdicts,
            s.maybe(s.list_of(VERDICT)),
        ),
        80,
    ),
    (
        Kind(
            "config.yaml of a sampling",
            "guarded/config.yaml",
            YAML,
            ("sample_yaml", "ckpts", "guarded", "grid"),
            sampled_again,
            right=same_output,
        ),
        40,
    ),
    (
        Kind(
            "config.yaml of a dataset",
            "data/config.yaml",
            YAML,
            ("build_yaml", "label_csv", "data", "unsafe", "normal"),
            built_again,
            right=same_output,
        ),
        50,
    ),
    (
        Kind(
            "unfinished votes",
            "half/unfinished/1.pth",
            TORCH,
            (*HELD_OUT, "eval.pth", "half", "results"),
            embedded_again,
            s.maybe(UNFINISHED),
            right=all_votes,
        ),
        50,
    ),
]


@pytest.mark.parametrize("kind, count", KINDS, ids=[kind.name for kind, _ in KINDS])
def test_damaged(cases, kind, count):
    campaign(kind, cases, count)
