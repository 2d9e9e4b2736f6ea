"""Damaged YAMLs, odd words after the flags, and the configs of base models and adapters."""

import unicodedata
from argparse import Namespace

import pytest

import build_x0
import gen_eval_set
import plan
from lvd.training.recipes import read_settings
from lvd_study.settings import read_study
from MagicTime import inference_magictime
from MagicTime.utils.weights import base
from MagicTime.utils.weights.adapters import merge_text_adapter
from tests.fuzz import shapes as s
from tests.fuzz.campaign import JSON, YAML, Kind, campaign
from tests.fuzz.oracle import run_loader, run_script


def number(low, high):
    """A number, or a text that YAML took one for: 85e-5."""

    def fits(value):
        try:
            value = float(value) if isinstance(value, str) else value
        except ValueError:
            return False
        return s.number(low, high)(value)

    return s.maybe(fits)


def count(high):
    return s.either(s.whole(1, high), s.both(s.text, str.isdecimal))


def count_from(low, high):
    return s.either(s.whole(low, high), s.both(s.text, str.isdecimal))


def plain(text):
    """A text without control characters."""
    if not isinstance(text, str):
        return False
    kinds = {unicodedata.category(one) for one in text if one not in "\n\r\t"}
    return not kinds & {"Cc", "Cs"}


def equal(value):
    return lambda there: there is None or there == value


SWITCH = s.maybe(s.boolean)
TEXT = s.maybe(s.text)
WEIGHTS = ("motion_module", "dreambooth_path", "magic_adapter_s_path", "magic_adapter_t_path")
FIRST = s.mapping(
    {
        "pretrained_model_path": s.text,
        **{key: count(10**5) for key in ("H", "W", "L", "steps")},
        "guidance_scale": number(0, 1e300),
    },
    {
        **dict.fromkeys((*WEIGHTS, "magic_text_encoder_path"), TEXT),
        "seed": s.maybe(s.either(s.whole(-1), s.list_of(s.whole(-1)))),
        **dict.fromkeys(("seed_per_prompt", "save_predx_t"), SWITCH),
        "save_predx_0": s.either(SWITCH, s.text),
        "batch_size": s.maybe(count(2**63)),
        "fps": s.maybe(count(1000)),
        "x0_dtype": s.one_of("float16", "bfloat16", "float32", None),
        "scheduler": s.one_of("ddim", "euler", "euler_a", "dpm++", "unipc", "lcm", None),
        "prompt": s.maybe(s.either(plain, s.list_of(plain))),
        "n_prompt": s.maybe(s.either(s.text, s.list_of(s.text))),
    },
)
MOTION = s.mapping(
    {},
    {
        "num_attention_heads": s.maybe(s.whole(1, 10**50)),
        "num_transformer_block": equal(1),
        "attention_block_types": equal(["Temporal_Self", "Temporal_Self"]),
        "temporal_position_encoding": equal(True),
        "temporal_position_encoding_max_len": s.maybe(s.whole(4, 10**50)),
        "temporal_attention_dim_div": equal(1),
        "zero_initialize": SWITCH,
    },
)
SECOND = s.mapping(
    {
        "noise_scheduler_kwargs": s.mapping(
            {},
            {
                "beta_start": number(0, 1),
                "beta_end": number(0, 1),
                "beta_schedule": s.maybe(s.one_of("linear", "scaled_linear", "squaredcos_cap_v2")),
                "steps_offset": s.maybe(s.whole(0, 1000)),
                "clip_sample": SWITCH,
            },
        )
    },
    {
        "unet_additional_kwargs": s.maybe(
            s.mapping(
                {},
                {
                    "use_inflated_groupnorm": equal(True),
                    "use_motion_module": SWITCH,
                    "motion_module_resolutions": s.maybe(s.list_of(s.whole(1, 10**6))),
                    "motion_module_mid_block": SWITCH,
                    "motion_module_type": equal("Vanilla"),
                    "motion_module_kwargs": s.maybe(MOTION),
                },
            )
        )
    },
)
BUILD = s.mapping(
    {"pred_x0": s.text, "label_file_dir": s.text},
    {
        "sample_config": s.maybe(s.either(s.text, s.list_of(s.mapping(rest=s.anything)))),
        "normal_pred_x0": TEXT,
        "out_dir": TEXT,
    },
)
SHARE = number(0, 1)
COMMON = {
    "epoch": s.maybe(count(10**5)),
    "batch_size": s.maybe(count(10**5)),
    "lr": s.both(number(0, 1), lambda lr: lr is None or float(lr) > 0),
    "weight_decay": number(0, 10),
    **dict.fromkeys(("warmup", "dropout", "mask", "average", "validation"), SHARE),
    "false_positives": SHARE,
    "noise": number(0, 10),
    "flip": SWITCH,
    "size": s.maybe(s.one_of("nano", "tiny", "small", "base")),
    "base_model": TEXT,
    "seed": s.maybe(s.either(s.whole(0, 2**32 - 1), s.both(s.text, str.isdecimal))),
    "precision": s.maybe(s.one_of("float32", "bf16")),
}
POINT = s.one_of("argmax", "validation", "calibrated", None)
GRID = {
    **COMMON,
    "smoothing": SHARE,
    "workers": s.maybe(count(256)),
    "together": s.maybe(count(10**4)),
    "operating_point": s.either(POINT, number(0, 1)),
    "recipe": s.maybe(s.one_of("released", "scratch")),
    "select": s.maybe(s.one_of("last", "best")),
    "normals": s.maybe(s.one_of("balanced", "all")),
}
FOR_ALL = {key: COMMON[key] for key in ("size", "base_model", "seed", "precision")}
OTHERS = dict.fromkeys((*GRID, "shared", "pretrain"), s.anything)  # of which a run reads nothing
TRAININGS = {
    "grid": s.mapping({}, {**OTHERS, **GRID}),
    **{
        kind: s.mapping({}, {**OTHERS, **FOR_ALL, kind: s.maybe(s.mapping({}, COMMON))})
        for kind in ("shared", "pretrain")
    },
}
STUDY = s.mapping(
    {},
    {
        "seeds": s.maybe(s.list_of(count_from(0, 2**31), 1, True)),
        "rules_for": s.maybe(s.list_of(s.one_of("grid", "shared"), 0, True)),
        "folds": s.maybe(count_from(2, 100)),
        "max_false_positive_rate": number(0.001, 1),
        "max_cost": number(0.001, 1),
        "other_seeds": s.maybe(count_from(0, 100)),
        "guidance_scales": s.maybe(s.list_of(number(0, 1000))),
        "samplings": s.maybe(s.list_of(s.text)),
        "safe_guidance": s.maybe(s.list_of(s.one_of("weak", "medium", "strong", "max"))),
        "safety_concept": TEXT,
        "weights": s.maybe(s.mapping(rest=s.mapping(rest=s.text))),
        "wrong_labels": s.maybe(s.list_of(number(0.001, 0.9))),
        "reworded": s.maybe(s.mapping(rest=s.text)),
    },
)
ABOVE_0 = s.mapping(rest=s.number(0, 1e300))
RATES = s.mapping(
    {
        "format": s.one_of("lvd plan rates 1"),
        "device": s.text,
        "is_cpu": s.boolean,
        "memory": s.maybe(s.whole(0)),
        "measured": s.text,
        "reached": ABOVE_0,
        "host": ABOVE_0,
        "peak": s.mapping(rest=s.whole(0)),
    }
)
ADAPTER = s.mapping(
    {},
    {
        "r": s.whole(1, 10**6),
        "lora_alpha": s.number(-1e6, 1e6),
        "use_rslora": SWITCH,
        "peft_type": s.one_of("LORA", None),
        "target_modules": s.maybe(s.either(s.text, s.list_of(s.text))),
        **dict.fromkeys(("rank_pattern", "alpha_pattern"), s.maybe(s.mapping(rest=s.number()))),
    },
    rest=s.anything,
)
BASE = "ckpts/Base_Model/stable-diffusion-v1-5"
MODEL = ("sample_yaml", "ckpts")


def planned(world):
    """A sampling run that is checked and not begun."""
    words = world.commands("sample", "--dry-run")
    return run_script(inference_magictime, words)


def built(world):
    """The split and one step of a dataset, by one build_x0.yaml."""
    split = run_script(gen_eval_set, world.commands("gen_eval_set"))
    if split.status != 0:
        return split
    return run_script(build_x0, world.commands("build_x0", "--steps", "0"))


def trained(kind):
    """The settings of a training, by one train_mae.yaml."""
    return lambda world: run_loader(lambda: read_settings(world.train_yaml, Namespace(), kind))


def studied(world):
    """The settings of a study."""
    return run_loader(lambda: read_study(world.study_yaml))


def planned_with_rates(world):
    """A plan with the rates of another machine."""
    words = ["--config", str(world.build_yaml), "--videos", "60", "--normal_videos", "60"]
    return run_script(plan, [*words, "--rates", str(world.plan_rates), "--gpu_num", "-1"])


def loaded(part):
    """A part of the model, or the text encoder with its adapter: whether its weights are finite."""

    def load(folder):
        made = getattr(base, f"load_{part}")(folder)
        module = made if part == "tokenizer" else made[0]
        if part == "text_encoder":
            merge_text_adapter(module, folder.parents[1] / "Magic_Weights/magic_text_encoder")
        weights = [] if part == "tokenizer" else module.parameters()
        return all(bool(weight.isfinite().all()) for weight in weights if not weight.is_meta)

    return lambda world: run_loader(lambda: load(world.root / BASE))


def finite(world, content, outcome, sound):
    return None if outcome.value else "the model's weights are not finite"


def part_of_model(part, file="config.json", fine=s.anything):
    """A file of diffusers or transformers, whose reasons are theirs: naming the file will do."""
    path = f"{BASE}/{part}/{file}"
    read, named = loaded(part), {"named": (part,), "whole": (part,)}
    return Kind(f"{part}/{file}", path, JSON, ("ckpts",), read, fine, right=finite, **named)


SAMPLE = ("sample.yaml", YAML, MODEL, planned)
RECORDINGS = ("label_csv", "unsafe", "normal")
ADAPTER_FILE = "ckpts/Magic_Weights/magic_text_encoder/default/adapter_config.json"
KINDS = [
    (Kind("sampling YAML", *SAMPLE, FIRST, within=(0,)), 120),
    (Kind("model config", *SAMPLE, SECOND, within=(1,)), 90),
    (Kind("sampling YAML, bytes", *SAMPLE, lambda content: len(content) == 2, bytes=0.9), 40),
    (
        Kind(
            "build_x0.yaml",
            "build_x0.yaml",
            YAML,
            RECORDINGS,
            built,
            BUILD,
            named=("build_x0.yaml", "no such file", "normal_pred_x0"),
            whole=("no such file",),
        ),
        70,
    ),
    *(
        (
            Kind(
                f"train_mae.yaml, {kind}",
                "train_mae.yaml",
                YAML,
                (),
                trained(kind),
                s.maybe(TRAININGS[kind]),  # an empty file says nothing
                named=("train_mae.yaml", "needed"),
            ),
            70,
        )
        for kind in ("grid", "shared", "pretrain")
    ),
    (
        Kind(
            "plan_rates.json",
            "plan_rates.json",
            JSON,
            ("build_yaml", *MODEL),
            planned_with_rates,
            RATES,
            whole=("needed", "says nothing of"),
        ),
        30,
    ),
    (Kind("study.yaml", "study.yaml", YAML, (), studied, STUDY, whole=("needed",)), 80),
    (
        Kind(
            "adapter_config.json",
            ADAPTER_FILE,
            JSON,
            ("ckpts",),
            loaded("text_encoder"),
            ADAPTER,
            named=("adapter_config.json", "magic_text_encoder"),
            whole=("update of",),
            right=finite,
        ),
        60,
    ),
    (part_of_model("unet"), 20),
    (part_of_model("vae"), 20),
    (part_of_model("text_encoder"), 20),
    (part_of_model("tokenizer", "tokenizer_config.json"), 20),
    (part_of_model("tokenizer", "vocab.json"), 20),
]


@pytest.mark.parametrize("kind, count", KINDS, ids=[kind.name for kind, _ in KINDS])
def test_damaged(cases, kind, count):
    campaign(kind, cases, count)
