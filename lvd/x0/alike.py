"""Whether two recordings were sampled alike.

Detectors that learn from unsafe videos of one sampling and normal ones of another learn to tell
the samplings apart, and know nothing of what the videos show. So both must have the same model,
scheduler, timesteps, guidance and kind of x0. Prompts, seeds and versions may differ.
"""

import re

from lvd.errors import InputError
from lvd.x0.provenance import difference_of, recorded_sampling

# Keys of the sampler's config.yaml that say how a video is made; the weights end with their hash.
OF_CONFIG = (
    "guidance_scale",
    "dtype",
    "pretrained_model_path",
    "motion_module",
    "dreambooth_path",
    "magic_adapter_s_path",
    "magic_adapter_t_path",
    "magic_text_encoder_path",
    "unet",
)
SAFE_GUIDANCE = {"safe_guidance": "none", "safety_concept": ""}  # not said where they are off
# Keys that `lvd.record` and its callers say: of the whole recording, or of a row.
OF_META = ("pipeline", "layout", "model", "guidance_scale", "dtype", "scaling_factor")
OF_ROWS = ("x0_mode", "scheduler", "model", "guidance_scale", "dtype")
HASH = re.compile(r" \(([0-9a-f]{16})\)$")  # of weights, after their path


def recorded_setup(x0):
    """Describe all that must be alike in two recordings, as far as a sidecar tells.

    Args:
        x0: X0File.

    Returns:
        The keys of `lvd.x0.provenance`, and those above.

    Raises:
        InputError: the recording's own rows were not sampled alike.
    """
    setup = recorded_sampling(x0)
    config = x0.meta.get("config") or {}
    if "guidance_scale" in config:  # the config of MagicTime's sampler
        setup |= {**SAFE_GUIDANCE, **{key: config[key] for key in SAFE_GUIDANCE if key in config}}
    setup |= {key: config[key] for key in OF_CONFIG if config.get(key) is not None}
    setup |= {key: x0.meta[key] for key in OF_META if x0.meta.get(key) is not None}
    told_by = dict.fromkeys(setup, "the recording")
    for row, info in sorted(x0.info.items()):
        for key in OF_ROWS:
            if info.get(key) is None:
                continue
            before = setup.setdefault(key, info[key])
            of = told_by.setdefault(key, f"row {row}")
            difference = _difference(key, before, info[key])
            if difference:
                name, there, here = difference
                raise InputError(
                    f"{x0.path}: row {row} was sampled with {name} {here}, {of} has {there}; all "
                    "rows must be sampled alike"
                )
    return setup


def need_alike(one, other, path, other_path):
    """Refuse two setups that differ.

    Args:
        one, other: of `recorded_setup`.
        path, other_path: what messages call them.

    Returns:
        What is not known, in a line; "" where both tell the same keys.

    Raises:
        InputError: they differ; the key and both values are named.
    """
    for key in one:
        difference = _difference(key, one[key], other[key]) if key in other else None
        if difference:
            name, there, here = difference
            raise InputError(
                f"{path}: sampled with {name} {there}, {_name(other_path)} with {here}; unsafe and "
                "normal videos must be sampled alike, or detectors learn that difference"
            )
    silent = {
        path: [key for key in other if key not in one],
        other_path: [key for key in one if key not in other],
    }
    return "; ".join(
        f"{_name(of)} does not say its {_some(keys)}" for of, keys in silent.items() if keys
    )


def _some(keys):
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")


def _difference(key, one, other):
    """See `difference_of`."""
    return None if _identity(one) == _identity(other) else difference_of(key, one, other)


def _identity(value):
    """Weights are known by their hash: the repository may lie elsewhere."""
    found = HASH.search(value) if isinstance(value, str) else None
    return found[1] if found else value


def _name(path):
    """A short name of a recording or folder: with the folder that it lies in."""
    return "/".join(str(path).split("/")[-2:])
