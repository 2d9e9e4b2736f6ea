"""What a command line says about the settings: no word of it may change nothing in silence."""

from lvd.detectors.step_inputs import TABLE
from lvd.errors import InputError, shorten, typed
from lvd.training.recipes import (
    DEFAULT_CONFIG,
    KEYS,
    NO_EFFECT_ON_WEIGHTS,
    SECTIONS,
    SHARED_ONLY,
    stackable,
)
from lvd.utils.config import parse_overrides


def given_settings(args, kind):
    """Return what flags and `key=value` words say.

    Args:
        args: the parsed flags of a script that trains.
        kind: "grid", "shared" or "pretrain".

    Returns:
        {key of the settings: how it was written, such as "--epoch 7" or "epoch=7"}.
    """
    given = {
        key: f"--{key} {typed(value)}"
        for key in (*KEYS, *SHARED_ONLY)
        if (value := getattr(args, key, None)) is not None
    }
    words = parse_overrides(args.overrides)
    section = words.get(kind)
    for values in (words, section if isinstance(section, dict) else {}):
        for key, value in values.items():
            if key not in SECTIONS:
                given[key] = f"{key}={typed(value)}"
    return given


def need_effect(args, settings, kind):
    """Refuse a flag or word that would change nothing in this training.

    Args:
        args, kind: see `given_settings`.
        settings: of `read_settings`.

    Raises:
        InputError: there is one; its name and the reason are told.
    """
    for key, written in given_settings(args, kind).items():
        if reason := _no_effect(key, settings, kind):
            raise InputError(f"{written}: {reason}")


def _no_effect(key, settings, kind):
    """Say why a setting changes nothing in this training; None where it does."""
    if key == "base_model" and settings.size != "base":
        return f"size {settings.size} starts from random weights; --size base is needed"
    if key == "operating_point":
        return "a training does not depend on it; give it to embed_model.py"
    one_by_one = kind == "grid" and not stackable(settings)
    if key == "together" and one_by_one and settings.together not in (None, 1):
        return "size base and dropout train one by one; leave it out"
    if key == "average" and settings.average and getattr(settings, "select", None) == "best":
        return "select best takes the weights of one epoch; give one of the two"
    return None


def need_trained_so(args, settings, kind, init_sha256, members):
    """Refuse settings, given with --no-train, that are not those of the saved detectors.

    Args:
        args, kind: see `given_settings`.
        settings: of `read_settings`.
        init_sha256: hash of the file of --init; None: not given.
        members: [Member] of the detectors. What one does not say about itself counts as agreed.

    Raises:
        InputError: they were trained otherwise, or a word would change nothing.
    """
    given = given_settings(args, kind)
    for key in NO_EFFECT_ON_WEIGHTS:
        if key in given and getattr(settings, key, 1) != 1:
            raise InputError(f"{given[key]}: --no-train trains nothing; leave it out")
    unsaid = {"step_input": TABLE} if kind == "shared" else {}
    asked = unsaid | settings.identity()
    if args.config is DEFAULT_CONFIG:
        asked = {key: value for key, value in asked.items() if key in given}
    for member in members:
        trained = member.about.get("settings") or {}
        trained = trained and unsaid | trained
        for key, value in asked.items():
            if key in trained and trained[key] != value:
                written = given.get(key, f"--config {typed(str(args.config))}: {key} {value}")
                raise InputError(
                    f"{written}: {member.path} was trained with {key} {shorten(trained[key])}; "
                    "leave it out, or train other detectors"
                )
        if init_sha256 and member.about and member.about.get("init") != init_sha256:
            raise InputError(
                f"--init {typed(str(args.init))}: {member.path} did not start from it; leave it "
                "out, or train other detectors"
            )
