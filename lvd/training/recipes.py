"""The settings of a training: typed, with their ranges, and the recipes that give them values.

The precedence is: recipe < YAML < flag < `key=value` after the flags.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

from lvd.detectors.calibration import check_operating_point
from lvd.detectors.step_inputs import STEP_INPUTS, TABLE
from lvd.detectors.videomae import BASE_MODEL, SIZES
from lvd.errors import InputError, as_key, shorten
from lvd.utils.config import ROOT, check_keys, flags_of, merged, parse_overrides
from lvd.utils.files import load_yaml

DEFAULT_CONFIG = ROOT / "train_mae.yaml"
PRECISIONS = ("float32", "bf16")


@dataclass
class TrainSettings:
    """What every training needs to know; the defaults are the paper's recipe.

    Attributes:
        size: the network, a key of `SIZES`.
        base_model: folder or hub name that size base starts from, None for the other sizes.
        precision: "float32", or "bf16" for mixed precision.
        lr: the largest learning rate; warmup is the share of all optimiser steps in which it rises.
        noise: standard deviation of added noise, in units of the channels' own.
        flip: whether half of the clips are mirrored.
        mask: share of a clip's tokens that are hidden.
        average: share of the optimiser steps, the last ones, whose weights are averaged.
    """

    size: str = "base"
    base_model: str | None = BASE_MODEL
    seed: int = 2024
    precision: str = "float32"
    epoch: int = 10
    batch_size: int = 4
    lr: float = 1e-5
    weight_decay: float = 0.01
    warmup: float = 0.0
    dropout: float = 0.0
    noise: float = 0.0
    flip: bool = False
    mask: float = 0.0
    average: float = 0.0

    def as_dict(self):
        """Return {key: value} in the order in which train.yaml lists the keys."""
        values = asdict(self)
        if values.get("step_input") == TABLE:  # as it was before there was a choice
            del values["step_input"]
        return {key: values[key] for key in (*KEYS, *SHARED_ONLY) if key in values}

    def identity(self):
        """Return {key: value} of what decides the weights of the result."""
        return {
            key: value for key, value in self.as_dict().items() if key not in NO_EFFECT_ON_WEIGHTS
        }


@dataclass
class PretrainSettings(TrainSettings):
    """Pre-training (VideoMAE, Tong et al. 2022): most of each clip is hidden."""

    batch_size: int = 256
    lr: float = 3e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    flip: bool = True
    mask: float = 0.75


@dataclass
class NamesSettings(TrainSettings):
    """The network that names categories, and what the shared detector has in common with it.

    It sees few videos at every step, so most of an epoch repeats them: epochs are few and the
    regularisation is strong. Half of the patches are hidden, which works against overfitting and
    halves the time.
    """

    epoch: int = 16
    batch_size: int = 256
    lr: float = 6e-3
    weight_decay: float = 0.5
    warmup: float = 0.1
    flip: bool = True
    mask: float = 0.5
    average: float = 0.3
    validation: float = 0.2


@dataclass
class SharedSettings(NamesSettings):
    """The shared detector.

    Attributes:
        step_input: how it is told the step: "table" of numbers, or noise "level".
    """

    false_positives: float = 0.05
    step_input: str = TABLE


@dataclass
class GridSettings(TrainSettings):
    """The grid of detectors, one per category and step.

    Attributes:
        recipe: a key of `RECIPES`; None: "released" for size base, else "scratch".
        workers: processes that train at the same time.
        together: small detectors of one category that are trained at once; None: as many as fit.
        operating_point: how embed_model.py reads a score, see `check_operating_point`.
        smoothing: label smoothing.
        select: "last" weights, or those of the "best" epoch by validation loss.
        normals: "balanced" takes as many normal clips as unsafe ones, "all" takes all.
        validation: share of the clips that is kept for validation.
        false_positives: share of normal validation clips that the threshold may let through.
    """

    recipe: str | None = None
    workers: int = 1
    together: int | None = None
    operating_point: Any = "argmax"
    smoothing: float = 0.0
    select: str = "last"
    normals: str = "balanced"
    validation: float = 0.1
    false_positives: float = 0.05


SCHEMAS = {
    "grid": GridSettings,
    "shared": SharedSettings,
    "names": NamesSettings,
    "pretrain": PretrainSettings,
}
SECTIONS = ("shared", "names", "pretrain")  # of a train_mae.yaml
COMMON = ("size", "base_model", "seed", "precision")  # keys outside the sections that count there
GRID_ONLY = ("together", "workers")
SHARED_ONLY = ("step_input",)  # in a train_mae.yaml, in section shared
NO_EFFECT_ON_WEIGHTS = ("workers", "together", "operating_point")
KEYS = (
    *("size", "recipe", "base_model", "seed", "workers", "together", "precision"),
    *("operating_point", "epoch", "batch_size", "lr", "weight_decay", "warmup", "dropout"),
    *("noise", "flip", "mask", "smoothing", "average", "select", "normals", "validation"),
    "false_positives",
)
RECIPES = {  # of the grid: what differs from the defaults of GridSettings
    "released": {},
    # For small networks without trained weights: every normal clip is seen and the classes are
    # balanced in each epoch, which helps most; hiding half of each clip's tokens saves a third of
    # the time. docs/results/recipes.txt has the effect of each part.
    "scratch": {
        "epoch": 60,
        "batch_size": 12,
        "lr": 6e-3,
        "weight_decay": 0.2,
        "warmup": 0.1,
        "flip": True,
        "mask": 0.5,
        "average": 0.3,
        "normals": "all",
        "validation": 0.2,
    },
}
BASE_LR = 1e-4  # shared, names and pretrain runs of size base, which starts from trained weights
CHOICES = {
    "size": tuple(SIZES),
    "recipe": tuple(RECIPES),
    "normals": ("balanced", "all"),
    "select": ("last", "best"),
    "precision": PRECISIONS,
    "step_input": STEP_INPUTS,
}
RANGES = {  # key: (smallest, largest)
    "epoch": (1, 100_000),
    "batch_size": (1, 100_000),
    "lr": (1e-9, 1),  # a smaller one, and 0, would change no weight
    "weight_decay": (0, 10),
    "warmup": (0, 0.9),
    "dropout": (0, 0.9),
    "noise": (0, 10),
    "mask": (0, 0.95),
    "smoothing": (0, 0.5),
    "average": (0, 1),
    "validation": (0, 0.5),
    "false_positives": (0, 0.5),
    "seed": (0, 2**32 - 1),
    "workers": (1, 256),
    "together": (1, 10_000),
}
OVERRIDES = "key=value"  # what messages call the words after the flags


def stackable(settings):
    """Whether detectors can be trained together: small ones without dropout.

    Dropout's masks would be drawn for all at once.
    """
    return settings.size != "base" and not settings.dropout


def read_settings(config, args, kind="grid"):
    """Read the settings of a training.

    Args:
        config: path of a train_mae.yaml; None: no file, the recipe alone.
        args: the parsed flags; those that are settings count, and `overrides`.
        kind: "grid", "shared", "names" or "pretrain".

    Returns:
        GridSettings, SharedSettings, NamesSettings or PretrainSettings.

    Raises:
        InputError: an unknown key, a value of another type or out of range.
    """
    schema = SCHEMAS[kind]
    layers = _layers(kind, config, args)
    chosen = merged(schema, layers)
    settings = merged(schema, [_recipe(kind, chosen), *layers])
    _check(kind, settings)
    if settings.size != "base":
        settings.base_model = None
    return settings


def _recipe(kind, chosen):
    """The weakest layer, which depends on the size and the recipe that the others choose."""
    if kind != "grid":
        recipe = {"lr": BASE_LR} if chosen.size == "base" else {}
        return "recipe", recipe
    name = chosen.recipe or ("released" if chosen.size == "base" else "scratch")
    _check_choice("recipe", name)
    return "recipe", {"recipe": name, **RECIPES[name]}


def _layers(kind, config, args):
    """[(where, {key: value})] of YAML, flags and overrides, the weakest first."""
    from_yaml = _or_empty(load_yaml(config)) if config is not None else {}
    yaml_keys, yaml_section = _parts(kind, config, from_yaml)
    overrides = parse_overrides(getattr(args, "overrides", None))
    _refuse_other_sections((kind, "names") if getattr(args, "names", False) else (kind,), overrides)
    override_keys, override_section = _parts(kind, OVERRIDES, overrides)
    if kind != "grid":
        yaml_keys = {key: value for key, value in yaml_keys.items() if key in COMMON}
        _refuse_keys((*GRID_ONLY, "recipe"), kind, args, override_keys)
    if kind != "shared":
        _refuse_keys(SHARED_ONLY, kind, args, override_keys)
    layers = [
        (config, yaml_keys),
        (f"{config}: {kind}", yaml_section),
        ("flags", flags_of(args, SCHEMAS[kind])),
        (OVERRIDES, override_keys),
        (f"{OVERRIDES}: {kind}", override_section),
    ]
    for where, values in layers:
        _need_exact(where, values)
    return layers


def _or_empty(part):
    """An empty file or section says nothing; anything else there must be a mapping."""
    return {} if part is None else part


def _refuse_other_sections(kinds, overrides):
    """A word such as shared.epoch=3 would change nothing in a run of other kinds."""
    kind = kinds[0]
    for section, values in overrides.items():
        if section in SECTIONS and section not in kinds and isinstance(values, dict):
            key, value = next(iter(values.items()))
            if section == "names":
                raise InputError(f"names.{key}={value}: for the names; give --names too")
            raise InputError(
                f"{section}.{key}={value}: for a {section} run; this is a {kind} run, give "
                f"{key}={value}"
            )


def _parts(kind, where, values):
    """Return ({key: value} outside the sections, those of the section `kind`), keys checked."""
    words = SHARED_ONLY if where == OVERRIDES else ()
    check_keys(values, (*KEYS, *words, *SECTIONS), (), where)
    sections = {name: _or_empty(values[name]) for name in SECTIONS if name in values}
    for name, section in sections.items():
        check_keys(section, [field.name for field in fields(SCHEMAS[name])], (), f"{where}: {name}")
    keys = {key: value for key, value in values.items() if key not in SECTIONS}
    return keys, sections.get(kind, {})


def _refuse_keys(keys, kind, args, overrides):
    """InputError for a key, as a flag or word, that only runs of another kind have."""
    for key in keys:
        flag = getattr(args, key, None)
        if flag is None and key not in overrides:
            continue
        asked = f"--{key} {flag}" if flag is not None else f"{key}={overrides[key]}"
        if key in SHARED_ONLY:
            raise InputError(f"{asked}: for --model shared; this is a {kind} run")
        reason = f"a {kind} run trains one network"
        if key == "recipe":
            reason = f"a {kind} run has its own, whose numbers flags and --config change"
        raise InputError(f"{asked}: for the grid of detectors; {reason}")


def _need_exact(where, values):
    """InputError where omegaconf would convert: 1 to true, or 5 to the name "5"."""
    for key, kind, what in (
        ("flip", bool, "true or false"),
        ("base_model", str, "a folder or hub name"),
    ):
        value = values.get(key)
        if value is not None and not isinstance(value, kind):
            raise InputError(f"{where}: {key} {value!r}: {what} is needed")


def _check(kind, settings):
    """InputError for a value that is not among the choices or out of its range."""
    for key, value in settings.as_dict().items():
        if key in CHOICES:
            _check_choice(key, value)
        if key in RANGES and value is not None:
            smallest, largest = RANGES[key]
            if not smallest <= value <= largest:
                what = "a whole number" if isinstance(value, int) else "a number"
                raise InputError(
                    f"{key} {shorten(value)}: {what} from {smallest} to {largest} is needed"
                )
    if kind == "grid":
        try:
            settings.operating_point = check_operating_point(settings.operating_point)
        except InputError as error:
            raise InputError(as_key(error)) from None
    if kind == "pretrain" and not settings.mask:
        raise InputError(
            "mask 0: pre-training learns to fill in hidden patches; a number above 0 and up to "
            "0.95 is needed"
        )


def _check_choice(key, value):
    if value not in CHOICES[key]:
        raise InputError(f"{key} {shorten(value)}: one of {', '.join(CHOICES[key])} is needed")
