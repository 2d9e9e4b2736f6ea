"""Settings: typed keys, one precedence, the resolved config beside an output.

The precedence is: the dataclass's default < the YAML < a flag < `key=value` after the flags.
"""

import platform
import re
from dataclasses import fields
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lvd.errors import InputError, shorten, typed, words_of
from lvd.utils.changes import what_changed
from lvd.utils.files import load_yaml, save_yaml
from lvd.utils.parsing import parse_yaml

ROOT = Path(__file__).resolve().parents[2]  # the repository
MOST_REFERENCES = 100  # `${key}` in a value, and in the values that they name


def check_keys(settings, known, required, where):
    """Check the keys of a mapping.

    Args:
        settings: what was read, hopefully {key: value}.
        known: the keys that may be there.
        required: the keys that must be there, with a value.
        where: what a message calls the mapping, such as the path of its file.

    Raises:
        InputError: it is no mapping, has an unknown key or lacks a required one.
    """
    if not isinstance(settings, dict):
        raise InputError(
            f"{where}: a mapping of keys to values is needed, found {type(settings).__name__}"
        )
    for key in settings:
        if key not in known:
            raise InputError(f"{where}: unknown key {shorten(key)}{_known(key, known)}")
    for key in required:
        if settings.get(key) is None:
            raise InputError(f"{where}: key '{key}' is missing")


def merged(schema, layers):
    """Merge settings into one typed object.

    Args:
        schema: a dataclass; its fields are the known keys, its defaults the lowest layer.
        layers: [(where, {key: value})], each stronger than the one before. `where` is what a
            message calls the layer. A value of None leaves what the weaker layers say.

    Returns:
        An instance of `schema`.

    Raises:
        InputError: an unknown key, a value of another type, or a `${name:...}` in a value.
    """
    settings = OmegaConf.structured(schema)
    references = {}
    for where, values in layers:
        given = {key: value for key, value in values.items() if value is not None}
        check_keys(given, [field.name for field in fields(schema)], (), where)
        _refuse_resolvers(given, where)
        references |= {key: (where, _references(value)) for key, value in given.items()}
        for key, value in given.items():
            try:
                OmegaConf.update(settings, key, value, merge=False)
            except (OmegaConfBaseException, TypeError, OverflowError) as error:
                raise InputError(
                    f"{where}: {key}={shorten(value)}: {_wanted(schema, key, error)}"
                ) from error
    _need_few_references(references)
    try:
        return OmegaConf.to_object(settings)
    except OmegaConfBaseException as error:
        raise InputError(f"{layers[0][0]}: {words_of(error, 160)}") from error


def _references(value):
    """Return the keys that the `${key}` in a value name, as often as they do."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [key for part in value for key in _references(part)]
    return re.findall(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else []


def _need_few_references(references):
    """InputError where `${key}`s lead back to their own value, or unfold to many.

    Args:
        references: {key: (what a message calls its place, [key that its value names])}.
    """
    counts = {}

    def count(key, above):
        where, named = references.get(key, ("", []))
        if key in above:
            raise InputError(f"{where}: {key}: its ${{...}} leads back to its own value")
        if key not in counts:
            counts[key] = len(named) + sum(count(other, {*above, key}) for other in named)
        if counts[key] > MOST_REFERENCES:
            raise InputError(f"{where}: {key}: its ${{...}} unfold to {counts[key]} of them")
        return counts[key]

    for key in references:
        count(key, set())


def _known(key, known):
    """Say which keys there are: those of similar spelling, or all where these are few."""
    names = sorted(known)
    if len(", ".join(names)) > 120:
        names = get_close_matches(str(key)[:40], names)
        return f"; {' or '.join(names)} is meant?" if names else ""
    return f"; known keys: {', '.join(names)}"


def flags_of(args, schema):
    """Return {key: value} of the flags in `args` (argparse) that are fields of `schema`."""
    names = {field.name for field in fields(schema)}
    return {key: value for key, value in vars(args).items() if key in names and value is not None}


def parse_overrides(texts):
    """Read the `key=value` words that stand after the flags.

    Args:
        texts: ["epoch=20", "shared.lr=1e-3", ...]; a value is read as YAML, a dot leads into a
            section.

    Returns:
        {key: value}, sections as dicts of their own.

    Raises:
        InputError: a word without "=", without a value, whose value is not YAML, or whose key an
            earlier word has set.
    """
    overrides = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
            raise InputError(f"{typed(text)}: neither a flag nor key=value, such as epoch=20")
        place = overrides
        *sections, last = key.split(".")
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise InputError(f"{typed(text)}: {section} was given as a value and as a section")
        if last in place:
            raise InputError(f"{typed(text)}: {key} was given before, one value is needed")
        place[last] = parse_yaml(value, typed(text))
        if place[last] is None:  # None never undoes a weaker layer: the word would change nothing
            raise InputError(
                f"{typed(text)}: a value is needed; to have a default, leave the key out"
            )
    return overrides


def _refuse_resolvers(value, where):
    """InputError for a value such as `${oc.env:HOME}` or `${oc.${key}:HOME}`.

    A config comes from outside, and this would copy the environment into results.
    """
    if isinstance(value, dict):
        for part in value.values():
            _refuse_resolvers(part, where)
    elif isinstance(value, list):
        for part in value:
            _refuse_resolvers(part, where)
    elif isinstance(value, str) and re.search(r"\$\{(?![\w.]+\})", value):
        raise InputError(
            f"{where}: {shorten(value)}: only ${{key}} of the same file may stand in a value"
        )


def _wanted(schema, key, error):
    """Say what type the field `key` of `schema` needs."""
    kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    named = get_type_hints(schema)[key]
    for kind in (named, *get_args(named)):
        if kind in kinds:
            return f"{kinds[kind]} is needed"
    return " ".join(str(error).split("\n")[0].split())[:120]


def versions():
    """Return {name: version} of Python and of the libraries that shape results, for provenance."""
    libraries = ("torch", "diffusers", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in libraries}}


def claim_output(folder, config, name="config.yaml", ignore=()):
    """Save the config beside an output, or check that the one there is the same.

    An output folder holds the results of one config only.

    Args:
        folder: of the output.
        config: {key: value}, resolved.
        name: of the YAML file in it.
        ignore: keys that may differ, such as the device.

    Raises:
        InputError: the folder was made with another config; the first difference is named.
    """
    path = Path(folder) / name
    if not path.exists():
        save_yaml(config, path)
        return
    before = load_yaml(path)
    if not isinstance(before, dict):
        raise InputError(
            f"{path}: not the config that made this folder (a {type(before).__name__}); use "
            "another folder or delete this one"
        )
    difference = first_difference(before, config, ignore)
    if difference:
        key, there, now = difference
        changed = what_changed(key, there, now)
        if changed:
            raise InputError(
                f"{path}: after this folder was made, {changed}; use another folder or delete "
                "this one"
            )
        raise InputError(
            f"{path}: this folder was made with {key}={shorten(there)}, now it is {shorten(now)}; "
            "use another folder or delete this one"
        )


def first_difference(before, now, ignore=()):
    """Find the first key at which two mappings differ, within mappings of them too.

    A key that is missing counts as None.

    Args:
        before, now: mappings.
        ignore: keys that may differ, at every depth.

    Returns:
        ("guard.eta", 5, 10), the key and its two values, or None when the mappings agree. Keys are
        compared in the order of `now`, then of `before`.
    """
    for key in [*now, *(key for key in before if key not in now)]:
        there, here = before.get(key), now.get(key)
        if key in ignore or there == here:
            continue
        if not isinstance(there, dict) or not isinstance(here, dict):
            return str(key), there, here
        within = first_difference(there, here, ignore)
        if within:
            return f"{key}.{within[0]}", *within[1:]
    return None


def need_same_training(path, before, identity):
    """Refuse a result that was trained otherwise.

    Args:
        path: of the result.
        before: {key: value} that the result says about itself.
        identity: {key: value} that it must agree with.

    Raises:
        InputError: they differ; the first difference is named.
    """
    known = {key: before.get(key) for key in identity}
    difference = first_difference(known, identity)
    if difference:
        name, there, now = difference
        changed = what_changed(name, there, now)
        if changed:
            raise InputError(
                f"{path}: after it was trained, {changed}; use another --save_dir or delete it"
            )
        key, _, inner = name.partition(".")
        inner = f"{inner}: " if inner else ""
        raise InputError(
            f"{path}: trained with another {key} ({inner}{shorten(there)} there, {shorten(now)} "
            "now); use another --save_dir or delete it"
        )
