"""Every flag of every script with odd values, the other flags being sound."""

import io
import random
import sys
from unittest import mock

import pytest

import build_eval_set
import build_x0
import choose_rule
import embed_model
import fit_rgb
import gen_eval_set
import plan
import pretrain_mae
import reproduce_tables
import serve
import test_accuracy
import train_mae
from MagicTime import app, inference_magictime
from MagicTime.prepare_weights import download, prompts
from MagicTime.prepare_weights.hub import NotReached
from tests.fuzz.oracle import TIMES, Faults, fault, run_script
from tests.fuzz.worlds import STEPS

ODD = (
    *("", " ", "abc", "-1", "0", "1", "0.5", "1.5", "1e308", "nan", "inf", "-inf", "1e-9999999"),
    *("99999999999999999999", "7" * 5000, "x" * 5000, "two\nlines", "日本\u202e", "\x1b[31mred"),
    *("missing/there", "data", "/dev/null", "../up", "1,2", "0-1", "2-1", "1-99999999999", "all"),
    *(",", "--", "${oc.env:HOME}", "[1, 2]", "null", "true", "%s%n{}", "unsafe/pred_x0.pth"),
)
WORDS = (  # after the flags
    *(
        "abc",
        "=",
        "=1",
        "seed=",
        "a.b.c=1",
        "seed=[",
        "seed=${oc.env:HOME}",
        "surprise=1",
        "seed=x",
    ),
    *("epoch=1e400", "lr=nan", "x" * 5000 + "=1", "seed=" + "9" * 5000, "seed=&a [*a]", "日本=1"),
    *("shared.epoch=1", "shared=1", "H=-1", "out_dir=", "pred_x0=5", "representation=abc", "=="),
)


def whole(low, high=2**63 - 1):
    return lambda text: low <= int(text) <= high


def number(low, high, above=False):
    return lambda text: (low < float(text) if above else low <= float(text)) and float(text) <= high


def numbers(low, high):
    def fits(text):
        parts = [] if text.strip() == "all" else text.split(",")
        return all(low <= int(end) <= high for part in parts for end in part.split("-"))

    return fits


def between_0_and_1(text):
    return 0 < float(text) < 1


def never(text):
    return False


def only(path):
    return lambda text: text == path


def some(text):
    return bool(text.strip())


# What may be accepted of ODD, by the flag's name in the parser; all else: anything. A file or
# folder that a script reads is none of these.
INPUTS = (
    *("config", "label_file_dir", "pred_x0", "normal_pred_x0", "sample_config", "eval_dir"),
    *("data_dir", "model_dir", "recordings", "init", "rgb_matrix", "normal_video_dir", "file_path"),
    *("run_csv", "run_json", "guard", "base_model", "manifest", "rule", "scores", "frontier"),
)
FINE = {
    **dict.fromkeys(INPUTS, never),
    "report": never,  # a page's name ends in .html
    **dict.fromkeys(("save_dir", "save_path", "out_dir"), some),
    "seed": whole(-1),
    "gpu_num": whole(-(10**30), 10**30),  # without a GPU all numbers mean the CPU
    "fraction": number(0, 0.99, above=True),
    "frames": whole(1),
    "epoch": whole(1, 10**5),
    "batch_size": whole(1),
    "lr": number(0, 1, above=True),
    "mask": number(0, 0.95, above=True),
    "workers": whole(1, 256),
    "folds": whole(2, 10**6),
    "max_false_positive_rate": between_0_and_1,
    "confidence": between_0_and_1,
    "max_cost": number(0, 1, above=True),
    **dict.fromkeys(("best", "families"), never),
    "together": whole(1, 10**4),
    "steps": numbers(0, STEPS - 1),
    "step_num": numbers(0, STEPS - 1),
    "group_num": numbers(1, 2),
    "lambda_": number(0, 1),
    "eta": whole(1, STEPS),
    "recall": lambda text: all(0 < float(part) <= 1 for part in text.split(",")),
    "resamples": whole(100, 10**7),
    "limit": whole(1, 10**30),  # more than there are: all
    "filmstrips": whole(0),
    "operating_point": number(0, 1),
    **dict.fromkeys(("dtype", "attention", "safe_guidance", "step_input"), never),
    **dict.fromkeys(("pipeline", "layout"), never),
    "host": only("0"),  # 0.0.0.0
    "port": whole(0, 65_535),
    "queue": whole(0, 10**4),
    "timeout": number(1, 86_400),
    **dict.fromkeys(("prompts", "normal_prompts", "study", "train_config", "scale"), never),
    "jobs": whole(1, 256),
    "grid_gpu_num": whole(-(10**30), 10**30),
    "gpus": numbers(0, 10**4),
}
PROMPT_NAMES = ("what", "file", "out", "column", "id_column", "tokenizer", "without", "registry")
OWN = {  # of one script
    ("build_x0", "pred_x0"): only("unsafe/pred_x0.pth"),
    ("gen_eval_set", "pred_x0"): only("unsafe/pred_x0.pth"),
    **{(name, "data_dir"): only("data") for name in ("train_mae", "pretrain_mae")},
    ("build_eval_set", "data_dir"): only("data"),
    ("fit_rgb", "seed"): whole(0),
    ("gen_eval_set", "seed"): whole(-(2**63)),
    ("train_mae", "seed"): whole(0, 2**32 - 1),
    ("pretrain_mae", "seed"): whole(0, 2**32 - 1),
    ("train_mae", "base_model"): never,
    ("serve", "workers"): whole(1, 64),
    ("reproduce_tables", "tables"): only("all"),
    ("reproduce_tables", "out"): some,
    ("app", "queue"): whole(0, 1000),
    ("app", "guard_preview"): never,
    ("download", "dir"): some,
    **dict.fromkeys((("plan", flag) for flag in ("card", "rates", "save", "model")), never),
    **dict.fromkeys((("plan", flag) for flag in ("videos", "normal_videos")), whole(1, 10**7)),
    ("plan", "gpus"): whole(1, 10**4),
    ("prompts", "count"): whole(1, 10**5),
    ("prompts", "read"): whole(1, 10**12),
    ("prompts", "seed"): whole(-(2**63), 2**63 - 1),
    ("prompts", "min_words"): whole(0, 77),
    ("prompts", "max_tokens"): whole(3, 10**4),
    **dict.fromkeys((("prompts", flag) for flag in PROMPT_NAMES), never),
}
DATA = ("build_yaml", "label_csv", "unsafe", "normal")
TRAINING = ("train_yaml", "data", "eval")
SCRIPTS = {  # name → (module, what its world holds, arguments besides the usual ones, cases)
    "sample": (inference_magictime, ("sample_yaml", "ckpts"), ("--dry-run",), 90),
    "build_x0": (build_x0, DATA, (), 50),
    "gen_eval_set": (gen_eval_set, DATA, (), 50),
    "build_eval_set": (build_eval_set, ("build_yaml", "data", "eval"), (), 40),
    "train_mae": (train_mae, TRAINING, ("--step_num", "0", "--group_num", "1"), 90),
    "pretrain_mae": (pretrain_mae, TRAINING, ("--step_num", "0"), 50),
    "embed_model": (
        embed_model,
        ("grid", "label_csv", "eval", "eval_set", "eval_normal", "train_yaml"),
        (),
        60,
    ),
    "choose_rule": (choose_rule, ("shared",), (), 40),
    "test_accuracy": (test_accuracy, ("results",), (), 60),
    "reproduce_tables": (
        reproduce_tables,
        (*DATA, "sample_yaml", "train_yaml", "study_yaml"),
        (),
        60,
    ),
    "fit_rgb": (fit_rgb, (*DATA, "eval", "sample_yaml", "ckpts"), (), 40),
    "serve": (serve, ("sample_yaml", "ckpts", "shared", "rule", "guard_yaml"), ("--dry-run",), 50),
    "app": (app, ("sample_yaml", "ckpts", "shared"), ("--dry-run",), 30),
    "download": (download, (), (), 30),
    "prompts": (prompts, ("captions",), (), 40),
    "plan": (plan, ("build_yaml", "sample_yaml", "ckpts", "label_csv"), (), 50),
}


NO_ANSWER = mock.patch.object(sys, "stdin", io.StringIO())
NO_NETWORK = mock.patch("MagicTime.prepare_weights.hub.locate", side_effect=NotReached("offline"))


def flags_of(module):
    """[argparse action] of all flags but --help."""
    actions = module.build_parser()._actions
    return [action for action in actions if action.option_strings and action.dest != "help"]


def drawn(name, module, count):
    """[(case, words, action or None)] of one script, seeded."""
    draw = random.Random(name)
    found = []
    for action in flags_of(module):
        flag = action.option_strings[0]
        values = ODD if action.nargs != 0 else ("", "=", "=abc")
        for value in draw.sample(values, len(values)):
            words = [f"{flag}={value}"] if action.nargs != 0 else [flag + value]
            found.append((f"{flag} {value[:40]!r}", words, action, value))
    overrides = [a for a in module.build_parser()._actions if a.dest == "overrides"]
    found += [(f"{word[:40]!r}", [word], None, word) for word in WORDS if overrides]
    draw.shuffle(found)
    return found[: count * TIMES]


def accepted(name, action, value):
    """What is wrong with a value that was accepted, or None."""
    if action is None or action.nargs == 0:
        return None
    fine = OWN.get((name, action.dest), FINE.get(action.dest, lambda text: True))
    try:
        return None if fine(value) else f"{action.option_strings[0]} accepted {value[:40]!r}"
    except ValueError:
        return f"{action.option_strings[0]} accepted {value[:40]!r}"


def names(action, value):
    """What a message about this flag must name: the flag, its key, or the value."""
    shown = " ".join(value.split())[:12] or "''"  # the middle of a long value may be left out
    if action is None:
        key, _, given = value.partition("=")
        first = key.split(".")[0]
        return [(shown, f"'{first}'", f"{first}=", key[:20] or "=", given[:20] or "=", "key=value")]
    texts = [*action.option_strings, action.dest, action.dest.strip("_").replace("_", " ")]
    return [(*texts, shown)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_odd_values(cases, name):
    module, parts, more, count = SCRIPTS[name]
    faults = Faults(f"flags of {name}")
    for case, words, action, value in (found := drawn(name, module, count)):
        with cases.world(*parts) as world, NO_ANSWER, NO_NETWORK:
            outcome = run_script(module, [*world.commands(name, *more), *words])
            outcome.err = outcome.err.replace(str(world.root), "~")
            what = fault(outcome, names(action, value))
            if what is None and outcome.status == 0:
                what = accepted(name, action, value)
        faults.add(case, what)
    faults.check(len(found))
