"""Settings: checked YAML keys, one precedence (built-in < YAML < flag), the resolved config beside
an output."""

import platform
from importlib.metadata import version
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.files import load_yaml, save_yaml

ROOT = Path(__file__).resolve().parent.parent  # the repository


def check_keys(found, known, required, where):
    """InputError when the mapping `found` has an unknown key or lacks a required one."""
    if not isinstance(found, dict):
        raise InputError(
            f"{where}: a mapping of keys to values is needed, found {type(found).__name__}"
        )
    for key in found:
        if key not in known:
            raise InputError(
                f"{where}: unknown key '{key}'; known keys: {', '.join(sorted(known))}"
            )
    for key in required:
        if found.get(key) is None:
            raise InputError(f"{where}: key '{key}' is missing")


def resolve(defaults, from_yaml, args):
    """One dict of settings. A flag that was not given (None) never undoes the YAML."""
    flags = {k: v for k, v in vars(args).items() if k in defaults and v is not None}
    return {**defaults, **{k: v for k, v in from_yaml.items() if v is not None}, **flags}


def versions():
    """Versions that shape results, for provenance."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
    }


def claim_output(folder, config, name="config.yaml", ignore=()):
    """Save the resolved `config` as folder/name, or check that the one there is the same.

    Keys in `ignore` (device, batch size, ...) may differ. InputError names the first key that does
    not agree: an output folder holds the results of one config only.
    """
    path = Path(folder) / name
    if path.exists():
        before = load_yaml(path)
        if not isinstance(before, dict):
            raise InputError(
                f"{path}: not the config that made this folder (a {type(before).__name__}); use "
                "another folder or delete this one"
            )
        for key in sorted(set(before) | set(config), key=str):
            if key not in ignore and before.get(key) != config.get(key):
                name, there, now = _first_difference(key, before.get(key), config.get(key))
                raise InputError(
                    f"{path}: this folder was made with {name}={there!r}, now it is {now!r}; use "
                    "another folder or delete this one"
                )
        return
    save_yaml(config, path)


def _first_difference(name, before, now):
    """("guard.eta", 5, 10): the first key at which two values differ, within mappings, and what
    they have there."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return name, before, now
    key = next(
        (key for key in sorted(set(before) | set(now), key=str) if before.get(key) != now.get(key)),
        None,
    )
    if key is None:  # one has a key with nothing in it, the other has not
        return name, before, now
    return _first_difference(f"{name}.{key}", before.get(key), now.get(key))


def brief(before, now):
    """What differs between two values, for a message: of dicts the first key, of lists their
    lengths."""
    if isinstance(before, dict) and isinstance(now, dict):
        key = next((k for k in sorted(set(before) | set(now)) if before.get(k) != now.get(k)), "")
        if isinstance(now.get(key), list):
            return f"{key}: {len(before.get(key) or [])} rows there, {len(now[key])} now"
        return f"{key}: {before.get(key)!r} there, {now.get(key)!r} now"
    return f"{str(before)[:12]} there, {str(now)[:12]} now"
