"""How detectors are trained: named recipes, and settings with one precedence (recipe < YAML <
flag)."""

from lvd.detectors.calibration import check_operating_point
from lvd.detectors.videomae import BASE_MODEL, SIZES
from lvd.errors import InputError
from lvd.utils.config import ROOT, check_keys, resolve
from lvd.utils.files import load_yaml

DEFAULT_CONFIG = ROOT / "train_mae.yaml"
PRECISIONS = ("float32", "bf16")
RECIPES = {
    # The paper's: AdamW, linear decay, no warmup, a tenth for validation, as many normal clips as
    # unsafe ones.
    "released": {
        "epoch": 10,
        "batch_size": 4,
        "lr": 1e-5,
        "weight_decay": 0.01,
        "warmup": 0.0,
        "dropout": 0.0,
        "noise": 0.0,
        "flip": False,
        "mask": 0.0,
        "smoothing": 0.0,
        "average": 0.0,
        "select": "last",
        "normals": "balanced",
        "validation": 0.1,
        "false_positives": 0.05,
    },
    # For small networks from nothing: every normal clip is seen and the classes are balanced in
    # each epoch, which is what brings most; hiding half of each clip's tokens saves a third of the
    # time. docs/results/recipes.txt has each part.
    "scratch": {
        "epoch": 60,
        "batch_size": 12,
        "lr": 6e-3,
        "weight_decay": 0.2,
        "warmup": 0.1,
        "dropout": 0.0,
        "noise": 0.0,
        "flip": True,
        "mask": 0.5,
        "smoothing": 0.0,
        "average": 0.3,
        "select": "last",
        "normals": "all",
        "validation": 0.2,
        "false_positives": 0.05,
    },
}
CHOICES = {
    "size": tuple(SIZES),
    "recipe": tuple(RECIPES),
    "normals": ("balanced", "all"),
    "select": ("last", "best"),
    "precision": PRECISIONS,
}
# key: (type, smallest, largest)
NUMBERS = {
    "epoch": (int, 1, 100_000),
    "batch_size": (int, 1, 100_000),
    "lr": (float, 0, 1),
    "weight_decay": (float, 0, 10),
    "warmup": (float, 0, 0.9),
    "dropout": (float, 0, 0.9),
    "noise": (float, 0, 10),
    "mask": (float, 0, 0.95),
    "smoothing": (float, 0, 0.5),
    "average": (float, 0, 1),
    "validation": (float, 0, 0.5),
    "false_positives": (float, 0, 0.5),
    "seed": (int, 0, 2**32 - 1),
    "workers": (int, 1, 256),
    "together": (int, 1, 10_000),
}
DEFAULTS = {
    "size": "base",
    "recipe": None,
    "base_model": BASE_MODEL,
    "seed": 2024,
    "workers": 1,
    "together": None,
    "precision": "float32",
    "operating_point": "argmax",
    **dict.fromkeys(RECIPES["released"]),
}
SECTIONS = (
    "shared",
    "pretrain",
)  # of a train_mae.yaml, for the networks that see all steps: lvd.training.recipes
NOT_IDENTITY = ("workers", "together", "operating_point")  # they do not change what is trained
RUN_RECIPES = {
    # Few videos, seen at every step: most of an epoch repeats them, so epochs are few and the
    # regularisation is strong. Half of the patches are hidden while it learns, which works against
    # overfitting and halves the time.
    "shared": {
        "epoch": 16,
        "batch_size": 256,
        "lr": 6e-3,
        "weight_decay": 0.5,
        "warmup": 0.1,
        "dropout": 0.0,
        "noise": 0.0,
        "flip": True,
        "mask": 0.5,
        "average": 0.3,
        "validation": 0.2,
        "false_positives": 0.05,
    },
    "pretrain": {
        "epoch": 10,
        "batch_size": 256,
        "lr": 3e-3,
        "weight_decay": 0.05,
        "warmup": 0.1,
        "dropout": 0.0,
        "noise": 0.0,
        "flip": True,
        "mask": 0.75,
        "average": 0.0,
    },
}
BASE_LR = 1e-4  # of size base, which starts from trained weights
COMMON = ("size", "base_model", "seed", "precision")


def read_settings(config, args):
    """All settings {key of DEFAULTS: value} of a train_mae.yaml (None: built-in ones) and the flags
    in `args`."""
    found, _ = read_sections(config)
    chosen = resolve(DEFAULTS, found, args)
    recipe = chosen["recipe"] or ("released" if chosen["size"] == "base" else "scratch")
    if recipe not in RECIPES:
        raise InputError(f"recipe {recipe!r}: one of {', '.join(RECIPES)} is needed")
    settings = {
        **chosen,
        "recipe": recipe,
        **{k: v for k, v in RECIPES[recipe].items() if chosen[k] is None},
    }
    for key, value in settings.items():
        settings[key] = check_setting(key, value)
    if settings["size"] != "base":
        settings["base_model"] = None
    return settings


def read_sections(config):
    """({key: value} of the grid and of all, {section: {key: value}}) of a train_mae.yaml (None: all
    empty), keys checked."""
    found = (load_yaml(config) or {}) if config is not None else {}
    check_keys(found, (*DEFAULTS, *SECTIONS), (), config)
    sections = {name: found[name] or {} for name in SECTIONS if name in found}
    for name, section in sections.items():
        check_keys(section, DEFAULTS, (), f"{config}: {name}")
    return {key: value for key, value in found.items() if key not in SECTIONS}, sections


def check_setting(key, value):
    if key in CHOICES and value not in CHOICES[key]:
        raise InputError(f"{key} {value!r}: one of {', '.join(CHOICES[key])} is needed")
    if key == "operating_point":
        return check_operating_point(value)
    if key == "flip" and not isinstance(value, bool):
        raise InputError(f"flip {value!r}: true or false is needed")
    if key == "base_model" and not isinstance(value, str):
        raise InputError(f"base_model {value!r}: a folder or hub name is needed")
    if key not in NUMBERS or (key == "together" and value is None):  # None: as many as fit
        return value
    kind, low, high = NUMBERS[key]
    try:
        number = kind(value)  # YAML reads 1e-5 as text
    except (TypeError, ValueError) as error:
        raise InputError(f"{key} {value!r}: a number is needed") from error
    if isinstance(value, bool) or number != float(value) or not low <= number <= high:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"{key} {value!r}: {what} from {low} to {high} is needed")
    return number


def run_settings(kind, config, args):
    """All settings {key: value} of a "shared" or "pretrain" run: recipe < YAML < its section there
    < flag.

    config: a train_mae.yaml (None: built-in ones), of whose other keys, which are the grid's, those
    in COMMON count here too; args: the flags.
    """
    found, sections = read_sections(config)
    for flag in ("together", "workers"):
        if getattr(args, flag, None) is not None:
            raise InputError(
                f"--{flag} {getattr(args, flag)}: for the grid of detectors; a {kind} run trains "
                "one network"
            )
    recipe = RUN_RECIPES[kind]
    if getattr(args, "recipe", None) is not None:
        raise InputError(
            f"--recipe {args.recipe}: for the grid of detectors; a {kind} run has its own, whose "
            "numbers flags and --config change"
        )
    known = {**{key: DEFAULTS[key] for key in COMMON}, **dict.fromkeys(recipe)}
    own = {key: value for key, value in sections.get(kind, {}).items() if value is not None}
    check_keys(own, known, (), f"{config}: {kind}")
    settings = resolve(known, {**{key: found.get(key) for key in COMMON}, **own}, args)
    size = settings["size"]
    recipe = {**recipe, "lr": BASE_LR} if size == "base" else recipe
    settings |= {key: value for key, value in recipe.items() if settings[key] is None}
    settings = {key: check_setting(key, value) for key, value in settings.items()}
    if kind == "pretrain" and not settings["mask"]:
        raise InputError(
            "mask 0: pre-training learns to fill in hidden patches; a number above 0 and up to "
            "0.95 is needed"
        )
    settings["base_model"] = (settings["base_model"] or BASE_MODEL) if size == "base" else None
    return settings
