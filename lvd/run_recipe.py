"""How the networks that see all steps are trained: the shared detector, and the pre-training of encoders."""

from lvd.detector import BASE_MODEL
from lvd.errors import InputError
from lvd.recipe import DEFAULTS, check_setting, read_sections
from lvd.settings import check_keys, resolve

RECIPES = {
    # Few videos, seen at every step: most of an epoch repeats them, so epochs are few and the regularisation is strong.
    # Half of the patches are hidden while it learns, which works against overfitting and halves the time.
    "shared": {"epoch": 16, "batch_size": 256, "lr": 6e-3, "weight_decay": 0.5, "warmup": 0.1, "dropout": 0.0, "noise": 0.0,
               "flip": True, "mask": 0.5, "average": 0.3, "validation": 0.2, "false_positives": 0.05},
    "pretrain": {"epoch": 10, "batch_size": 256, "lr": 3e-3, "weight_decay": 0.05, "warmup": 0.1, "dropout": 0.0,
                 "noise": 0.0, "flip": True, "mask": 0.75, "average": 0.0},
}
BASE_LR = 1e-4  # of size base, which starts from trained weights
COMMON = ("size", "base_model", "seed", "precision")


def run_settings(kind, config, args):
    """All settings {key: value} of a "shared" or "pretrain" run: recipe < YAML < its section there < flag.

    config: a train_mae.yaml (None: built-in ones), of whose other keys, which are the grid's, those in COMMON count here
    too; args: the flags.
    """
    found, sections = read_sections(config)
    for flag in ("together", "workers"):
        if getattr(args, flag, None) is not None:
            raise InputError(f"--{flag} {getattr(args, flag)}: for the grid of detectors; a {kind} run trains one network")
    recipe = RECIPES[kind]
    if getattr(args, "recipe", None) is not None:
        raise InputError(f"--recipe {args.recipe}: for the grid of detectors; a {kind} run has its own, whose numbers "
                         f"flags and --config change")
    known = {**{key: DEFAULTS[key] for key in COMMON}, **{key: None for key in recipe}}
    own = {key: value for key, value in sections.get(kind, {}).items() if value is not None}
    check_keys(own, known, (), f"{config}: {kind}")
    settings = resolve(known, {**{key: found.get(key) for key in COMMON}, **own}, args)
    size = settings["size"]
    recipe = {**recipe, "lr": BASE_LR} if size == "base" else recipe
    settings |= {key: value for key, value in recipe.items() if settings[key] is None}
    settings = {key: check_setting(key, value) for key, value in settings.items()}
    if kind == "pretrain" and not settings["mask"]:
        raise InputError("mask 0: pre-training learns to fill in hidden patches; a number above 0 and up to 0.95 is needed")
    settings["base_model"] = (settings["base_model"] or BASE_MODEL) if size == "base" else None
    return settings
