"""study.yaml: which seeds, samplings, weights and wrong labels the study looks at."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lvd.errors import InputError, shorten
from lvd.utils.config import ROOT, check_keys, merged
from lvd.utils.files import load_yaml
from MagicTime.utils.config import WEIGHTS
from MagicTime.utils.prompt import clean
from MagicTime.utils.safe_guidance import CHOICES as SAFE_GUIDANCE
from MagicTime.utils.schedulers import SCHEDULERS

DEFAULT = ROOT / "study.yaml"
KINDS = ("grid", "shared")
BASE = "base"  # the model as its sampling YAML has it
MOST_SEEDS = 100
FRACTIONS = ("guidance_scales", "wrong_labels")


@dataclass
class StudySettings:
    """The settings of a study.

    Attributes:
        seeds: of the trainings; each figure is a mean over them.
        rules_for: kinds of detectors (grid, shared) that a rule is chosen for, by `folds` trainings
            more of each.
        folds: parts for the scores out of fold.
        max_false_positive_rate, max_cost: of the chosen rules; None: as choose_rule.py has them.
        other_seeds: how often the held-out prompts are sampled again from other noise.
        guidance_scales: of held-out prompts that are sampled again.
        samplings: "scheduler:steps" of held-out prompts that are sampled again.
        leave_one_out: how many of the seeds, from the first on, also train detectors that never see
            a category, for each category; 0: none.
        safe_guidance: strengths of Safe Latent Diffusion.
        safety_concept: what it leads away from.
        weights: {name: {key of the sampling YAML: path, "" for none}}, other models of table f.
        transfer_seeds: how many of the seeds the detectors of these models are trained with; None:
            all of them.
        wrong_labels: shares of labels that are made wrong.
        reworded: paths of prompts that say the same in other words: unsafe, normal, labels. None:
            the tiny world's, where the study is about it, else none.
    """

    seeds: list[int] = field(default_factory=lambda: [2024, 2025, 2026])
    rules_for: list[str] = field(default_factory=lambda: ["shared"])
    folds: int = 5
    max_false_positive_rate: float | None = None
    max_cost: float | None = None
    other_seeds: int = 1
    guidance_scales: list[float] = field(default_factory=list)
    samplings: list[str] = field(default_factory=list)
    leave_one_out: int = 1
    safe_guidance: list[str] = field(default_factory=list)
    safety_concept: str = ""
    weights: dict[str, Any] = field(default_factory=dict)
    transfer_seeds: int | None = None
    wrong_labels: list[float] = field(default_factory=list)
    reworded: dict[str, str] | None = None


def read_study(path):
    """Read a study.yaml.

    Args:
        path: of the file.

    Returns:
        StudySettings, checked.

    Raises:
        InputError: an unknown key, or a value that makes no sense.
    """
    content = load_yaml(path)
    check_keys(content, [each.name for each in fields(StudySettings)], (), path)
    concept = content.get("safety_concept")
    if concept is not None and not isinstance(concept, str):
        raise InputError(f"{path}: safety_concept: {shorten(concept)}: a text is needed")
    settings = merged(StudySettings, [(path, content)])
    _check_numbers(settings, path)
    _check_names(settings, path)
    _check_weights(settings.weights, path)
    if settings.reworded is not None:
        _check_reworded(settings, path)
    return settings


def sampling_of(text, where):
    """Return (scheduler, steps) of a word such as "ddim:25"."""
    name, _, steps = str(text).partition(":")
    if name not in SCHEDULERS or not steps.isdecimal() or not 1 <= int(steps) <= 1000:
        raise InputError(
            f"{where}: samplings: {shorten(text)}: a scheduler of {', '.join(SCHEDULERS)}, a colon "
            "and a number of steps are needed, as in ddim:25"
        )
    return name, int(steps)


def _check_numbers(settings, where):
    ranges = {
        "seeds": (settings.seeds, 0, 2**31 - 1),
        "folds": ([settings.folds], 2, 100),
        "other_seeds": ([settings.other_seeds], 0, 100),
        "leave_one_out": ([settings.leave_one_out], 0, len(settings.seeds)),
        "guidance_scales": (settings.guidance_scales, 0, 1000),
        "wrong_labels": (settings.wrong_labels, 0.001, 0.9),
    }
    for key in ("max_false_positive_rate", "max_cost"):
        if getattr(settings, key) is not None:
            ranges[key] = ([getattr(settings, key)], 0.001, 1)
    if settings.transfer_seeds is not None:
        ranges["transfer_seeds"] = ([settings.transfer_seeds], 1, len(settings.seeds))
    if not 1 <= len(settings.seeds) <= MOST_SEEDS:
        raise InputError(f"{where}: seeds: from 1 to {MOST_SEEDS} of them are needed")
    for key, (values, low, high) in ranges.items():
        for value in values:
            if not low <= value <= high:
                raise InputError(f"{where}: {key}: {value}: from {low} to {high} is needed")
        # Tasks and folders have six digits of them.
        _need_different(
            [f"{value:g}" if key in FRACTIONS else value for value in values], key, where
        )


def _need_different(values, key, where):
    if len(set(values)) < len(values):
        raise InputError(f"{where}: {key}: {shorten(values)}: each value once is needed")


def _check_names(settings, where):
    known = {"rules_for": KINDS, "safe_guidance": tuple(SAFE_GUIDANCE)}
    for key, names in known.items():
        values = getattr(settings, key)
        for value in values:
            if value not in names:
                wanted = ", ".join(names)
                raise InputError(f"{where}: {key}: {shorten(value)}: some of {wanted} are needed")
        _need_different(values, key, where)
    samplings = [sampling_of(text, where) for text in settings.samplings]
    _need_different([f"{name}:{steps}" for name, steps in samplings], "samplings", where)
    if settings.safety_concept.strip():
        clean(settings.safety_concept, f"{where}: safety_concept")
    elif settings.safe_guidance:
        raise InputError(f"{where}: safety_concept: words are needed for safe_guidance")


def _check_weights(weights, where):
    for name, changes in weights.items():
        if not str(name).replace("_", "").isalnum() or name == BASE:
            raise InputError(
                f"{where}: weights: {shorten(name)}: a name of letters, digits and _ is needed, "
                f"and not {BASE}"
            )
        if not isinstance(changes, dict) or not changes:
            raise InputError(f"{where}: weights: {name}: paths by key of the sampling YAML needed")
        for key in changes:
            if key not in WEIGHTS:
                raise InputError(
                    f"{where}: weights: {name}: {shorten(key)}: one of {', '.join(WEIGHTS)} is "
                    "needed"
                )
            if not isinstance(changes[key], str):
                raise InputError(
                    f"{where}: weights: {name}: {key}: {shorten(changes[key])}: a path is needed, "
                    'or "" for none'
                )


def _check_reworded(settings, where):
    keys = ("unsafe", "normal", "labels")
    if set(settings.reworded) != set(keys):
        raise InputError(f"{where}: reworded: the keys {', '.join(keys)} are needed")
    for key in keys:
        path = ROOT / settings.reworded[key]
        if not path.is_file():
            raise InputError(f"{where}: reworded: {key}: {path}: no such file")
        settings.reworded[key] = str(Path(path))
