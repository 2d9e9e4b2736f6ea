"""Faults of detector files: tables of (a change to a good file, the words of its refusal)."""

import math

import torch

from tests.worlds.detector_world import SHAPES, STEPS

SHAPE = SHAPES["latent"]
PATCHES = "videomae.embeddings.patch_embeddings.projection.weight"
NAN, INF = math.nan, math.inf
SAMPLING = {
    "steps": STEPS,
    "timesteps": [999, 500, 1],
    "x0_mode": "true",
    "scheduler": {"class": "DDIMScheduler", "beta_start": 0.00085, "lambda_min_clipped": -INF},
    "latent_shape": list(SHAPE),
    "x0_dtype": "float16",
}


def at(path, value):
    """A change: the entry at keys a.b.c of the content becomes `value`."""

    def change(content):
        *parents, last = path.split(".") if isinstance(path, str) else path
        for key in parents:
            content = content[key]
        content[last] = value

    return change


def without(*path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


def weight(value):
    """A change of one weight; value: function of the tensor, or what takes its place."""

    def change(content):
        state = content.get("state_dict", content)
        state[PATCHES] = value(state[PATCHES]) if callable(value) else value

    return change


def huge(content):
    """A weight of 10**12 rows that costs four bytes, and a config that agrees with it."""
    content["config"]["hidden_size"] = 10**12
    content["state_dict"][PATCHES] = torch.zeros(1).expand(10**12, 4, 4, 2, 2)


WEIGHTS = [
    (weight(lambda w: w.int()), (PATCHES, "int32", "float16")),
    (weight(lambda w: w.to(torch.complex64)), (PATCHES, "complex64")),
    (weight(lambda w: w.to(torch.float8_e4m3fn)), (PATCHES, "float8")),
    (weight(lambda w: torch.quantize_per_tensor(w, 1.0, 0, torch.quint8)), (PATCHES, "quint8")),
    (weight(lambda w: w.flatten(1).to_sparse()), (PATCHES[:30], "plain tensor")),
    (weight(lambda w: w.to("meta")), (PATCHES[:30], "plain tensor")),
    (weight(lambda w: torch.zeros(1).expand(w.shape)), (PATCHES, "stores fewer")),
    (weight(lambda w: torch.full_like(w, NAN)), (PATCHES, "not finite")),
    (weight(lambda w: torch.full(w.shape, -INF)), (PATCHES, "not finite")),
    (weight(lambda w: torch.full(w.shape, 1e300, dtype=torch.float64)), (PATCHES, "not finite")),
    (weight(lambda w: w[0]), (PATCHES, "5 dimensions")),
]
# What all kinds of files with a config have in common.
FILE = [
    *WEIGHTS,
    (weight(3), (PATCHES[:30], "found 3")),
    *((without(key), (f"'{key}' is missing",)) for key in ("state_dict", "config", "about")),
    *((at(key, "zzz"), (key, "found 'zzz'")) for key in ("state_dict", "config", "about")),
    (at("more", 1), ("unknown key 'more'",)),
    (at("representation", "sound"), ("representation", "'sound'")),
    (at("representation", ["latent"]), ("representation", "['latent']")),
    (at("state_dict", {}), (PATCHES,)),
    (at("config.hidden_size", 10**12), ("config.hidden_size", str(10**12))),
    (huge, ("config.hidden_size", str(10**12))),
    *(
        (at(f"config.{key}", value), (f"config.{key}", str(value)))
        for key, value in [
            ("hidden_size", -32),
            ("hidden_size", "x"),
            ("hidden_size", 64),
            ("num_hidden_layers", 0),
            ("num_hidden_layers", 3),
            ("intermediate_size", 10**6),
            ("num_attention_heads", 0),
            ("patch_size", 4),
            ("tubelet_size", 1),
            ("num_channels", True),
            ("num_frames", 0),
            ("num_frames", 2**40),
            ("image_size", [8, 8, 8]),
            ("image_size", [10**9, 8]),
            ("image_size", -4),
            ("image_size", None),
            ("hidden_act", "sin"),
            ("hidden_act", 5),
            ("layer_norm_eps", NAN),
            ("layer_norm_eps", INF),
            ("qv_bias", "yes"),
            ("use_mean_pooling", None),
            ("hidden_dropout_prob", -1.0),
        ]
    ),
    (at("config.hidden_size", 10**500), ("config.hidden_size", "digits")),
    (at("config.num_attention_heads", 5), ("config", "multiple of num_attention_heads")),
    (at("config.num_frames", 1), ("config", "at least one patch")),
    (at("config.image_size", 1 << 14), ("config", "smaller image_size")),
    (at("config.zzz", 1), ("unknown key 'config.zzz'",)),
    (without("config", "patch_size"), ("'config.patch_size' is missing",)),
    *(
        (at(f"about.{key}", value), (f"about.{key}",))
        for key, value in [
            ("dataset", None),
            ("dataset", [1]),
            ("eval_sha256", 5),
            ("rows", [1, 2]),
            ("rows", {"unsafe": ["1"], "normal": []}),
            ("categories", "bright"),
            ("categories", [1, 2]),
            ("category", 3),
            ("settings", 7),
            ("curve", 7),
            ("sampling", "zzz"),
        ]
    ),
    (at("about.dataset", {"pred_x0_made_by": 3}), ("about.dataset.pred_x0_made_by",)),
    (at("about.dataset", {"rgb_matrix": "zzz"}), ("about.dataset.rgb_matrix",)),
    (at("about.dataset", {"rgb_matrix": [[1, 2], [1, 2, 3]]}), ("about.dataset.rgb_matrix.0",)),
    (at("about.dataset", {"rgb_matrix": [[1, 2, 3], [1, NAN, 3]]}), ("rgb_matrix.1.1", "nan")),
    *(
        (at("about.sampling", {**SAMPLING, key: value}), ("about.sampling." + key,))
        for key, value in [
            ("steps", -1),
            ("timesteps", "abc"),
            ("timesteps", []),
            ("timesteps", [1.0, None]),
            ("timesteps", [NAN]),
            ("x0_mode", 5),
            ("x0_mode", None),
            ("x0_dtype", "int8"),
            ("x0_dtype", None),
            ("x0_dtype", "load"),
            ("latent_shape", [4, 4]),
            ("latent_shape", [4, 4, 4, 0]),
            ("scheduler", "x"),
            ("scheduler", {}),
            ("scheduler", {"class": 3}),
            ("scheduler", {"class": "DDIMScheduler", "beta_start": NAN}),
            ("scheduler", {"class": "DDIMScheduler", "num_train_timesteps": 10**12}),
        ]
    ),
    (at("about.more", torch.zeros(2)), ("about", "texts, numbers, lists and mappings")),
    (at("about.more", {1: 1, "a": 2}), ("about", "texts, numbers, lists and mappings")),
]
GRID = [
    *FILE,
    *((without(key), (f"'{key}' is missing",)) for key in ("mean", "std", "threshold")),
    (at("mean", "zzz"), ("mean", "found 'zzz'")),
    (at("mean", torch.zeros(4)), ("mean", "a tensor of shape [4]")),
    (at("mean", [0.0] * 3), ("mean of 4 numbers",)),
    (at("mean", [0.0, 0.0, NAN, 0.0]), ("mean.2", "nan")),
    (at("mean", [0.0, 0.0, 0.0, 1e30]), ("mean.3", "1e+30")),
    (at("std", [1.0, None, 1.0, 1.0]), ("std.1", "None")),
    (at("std", [[1.0]] * 4), ("std.0", "[1.0]")),
    *((at("std", [x] * 4), ("std.0", str(x))) for x in (INF, NAN, 0.0, -1.0, 1e-50, 1e30, True)),
    *((at("threshold", x), ("threshold",)) for x in (NAN, 2.0, -1, None, "0.5", True, [0.5])),
    (at("calibration", [1, 2]), ("calibration", "[1, 2]")),
    (at("calibration", {"a": 1.0}), ("'calibration.b' is missing",)),
    *(
        (at("calibration", {"a": a, "b": b, "method": "", "clips": clips}), (words,))
        for a, b, clips, words in [
            (0, 1, {}, "calibration.a"),
            (-1.0, 1, {}, "calibration.a"),
            (1e308, 1, {}, "calibration.a"),
            (NAN, 1, {}, "calibration.a"),
            ("1", 1, {}, "calibration.a"),
            (1, INF, {}, "calibration.b"),
            (1, -1e300, {}, "calibration.b"),
            (1, 1, [7], "calibration.clips"),
            (1, 1, {"unsafe": -7}, "calibration.clips.unsafe"),
        ]
    ),
    (at("about.group", "1"), ("about.group",)),
    (at("about.group", 2), ("holds the detector of group 2",)),
    (at("about.step", -1), ("about.step",)),
    (at("about.step", None), ("about.step",)),
    (at("about", {"metrics": {}}), ("about", "group, step and category")),
    (at("about.metrics", [7]), ("about.metrics",)),
    (at("about.settings", {}), ("about", "also metrics")),
    (at("about.curve", {"epoch": [1]}), ("'about.curve.train_loss' is missing",)),
    (at("format", "lvd detector 2"), ("neither a detector file",)),
    (at("format", torch.zeros(2)), ("neither a detector file",)),
    # Blind: the score of all clips is one.
    (weight(torch.zeros_like), ("the same score",)),
    (at("state_dict.classifier", None), ("state_dict.classifier",)),
    (
        lambda content: content["state_dict"].update({"classifier.weight": torch.zeros(2, 32)}),
        ("the same score",),
    ),
    (
        lambda content: content["state_dict"].update({"classifier.bias": torch.tensor([0, 1e30])}),
        ("the same score",),
    ),
]
SHARED = [
    *FILE,
    *((without(key), (f"'{key}' is missing",)) for key in ("steps", "categories", "thresholds")),
    (at("mean", torch.zeros(STEPS, 1)), ("mean of shape [3, 4]",)),
    (at("mean", torch.zeros(4)), ("mean of shape [3, 4]",)),
    (at("mean", torch.zeros(STEPS, 4, dtype=torch.int64)), ("mean of shape", "floats")),
    (at("mean", torch.full((STEPS, 4), NAN)), ("mean of finite numbers",)),
    (at("mean", torch.full((STEPS, 4), 1e30)), ("mean of finite numbers",)),
    (at("mean", [[0.0] * 4] * STEPS), ("mean",)),
    (at("mean", torch.zeros(STEPS, 4).to_sparse()), ("mean", "plain tensor")),
    (at("std", torch.ones(STEPS, 1)), ("std of shape [3, 4]",)),
    *(
        (at("std", torch.full((STEPS, 4), x)), ("std of finite numbers",))
        for x in (INF, NAN, 0.0, -1.0, 1e30)
    ),
    *(
        (at("steps", steps), ("steps",))
        for steps in ("zzz", [], [0, 1], [0, 0, 1], [2, 1, 0], [0, 1, -2], [0, 1, "2"], [0, 1, 2.0])
    ),
    *(
        (at("categories", names), ("categories",))
        for names in ("ab", [], ["a"], ["a", "a"], ["a", ""], ["a", 3], [None, "a"])
    ),
    (at("thresholds", "zzz"), ("thresholds",)),
    (at("thresholds", [[0.5, 0.5]] * 2), ("thresholds do not fit its 3 steps",)),
    (at("thresholds", [[0.5]] * 3), ("thresholds do not fit its 3 steps",)),
    (at("thresholds", [0.5] * 3), ("thresholds.0",)),
    (at(["thresholds", 1, 1], NAN), ("step 1, flicker: threshold nan",)),
    (at(["thresholds", 1, 1], "0.5"), ("step 1, flicker: threshold '0.5'",)),
    (at("calibrations", [[None]] * 3), ("calibrations do not fit",)),
    (at("calibrations", None), ("calibrations",)),
    (at(["calibrations", 1, 0], {"a": -1, "b": 0, "method": "", "clips": {}}), ("calibrations.1",)),
    (at("about.steps", "abc"), ("about.steps",)),
    (at("about.metrics", 7), ("about.metrics",)),
    (at("about.settings", {}), ("about", "also a curve")),
    (at("format", "lvd detector 1"), ("not a shared detector",)),
    (weight(torch.zeros_like), ("step 0, bright", "the same score")),
    (
        lambda content: content["state_dict"]["classifier.weight"][1].zero_(),
        ("step 0, flicker", "the same score"),
    ),
    (
        lambda content: content["state_dict"]["modulation.weight"][2, :32].fill_(-1),
        ("step 2, bright", "the same score"),
    ),
]
BARE = [
    *WEIGHTS,
    (weight(3), ("neither a detector file",)),
    (lambda content: content.update({"format": torch.zeros(1)}), ("neither a detector file",)),
    (without(PATCHES), ("not a VideoMAE classifier",)),
    (without("classifier.weight"), ("2 classes and 3 channels, found 0",)),
    (at(["classifier.weight"], torch.zeros(400, 64)), ("2 classes and 3 channels, found 400",)),
    (at(["classifier.weight"], torch.zeros(2, 64)), ("the same score",)),
    (at(["classifier.weight"], torch.zeros(2, 63)), ("do not fit", "size mismatch")),
    (without("fc_norm.bias"), ("do not fit", "fc_norm.bias")),
    (weight(lambda w: torch.zeros(63, 3, 2, 56, 56)), ("no multiple of 64",)),
    (weight(lambda w: torch.zeros(64, 3, 2, 300, 300)), ("at least one patch",)),
    (at([5], torch.zeros(1)), ("5",)),
]
PRETRAINED = [
    *FILE,
    (without("about", "rows"), ("'about.rows' is missing",)),
    (without("about", "rows", "normal"), ("about", "rows of unsafe and of normal")),
    (without("about", "eval_sha256"), ("'about.eval_sha256' is missing",)),
    (at("about.rows.normal", [-1]), ("about.rows.normal.0",)),
    (at("format", "lvd detector 1"), ("not a pretrained encoder",)),
]
