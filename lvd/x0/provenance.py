"""The sampling that x0 comes from.

A recording describes it, detectors keep the description, and a running sampler must agree with it.
A description is a plain dict. A key that is missing is not known.

    steps           number of denoising steps, S
    timesteps       [S] numbers
    x0_mode         "true", or "released": computed as the paper's published code does
    scheduler       {"class": name, setting: value, ...}
    latent_shape    [C, F, h, w]
    x0_dtype        of the recording, such as "float16"
"""

import math
from inspect import signature

from lvd.errors import InputError
from lvd.utils.config import first_difference

COMPARED = ("latent_shape", "steps", "x0_mode", "scheduler", "timesteps")


def recorded_sampling(x0):
    """Describe the sampling of a recording (lvd.x0.file.X0File), as far as its sidecar tells."""
    meta = x0.meta
    sampling = {
        "steps": x0.tensor.shape[1],
        "latent_shape": list(x0.tensor.shape[2:]),
        "x0_dtype": str(x0.tensor.dtype).removeprefix("torch."),
    }
    if "x0_mode" in meta:
        sampling["x0_mode"] = meta["x0_mode"]
    config = meta.get("config", {})
    if "scheduler" in meta:
        sampling["scheduler"] = meta["scheduler"]
    elif "noise_scheduler_kwargs" in config:  # MagicTime's sampling YAML: it has DDIM alone
        sampling["scheduler"] = {"class": "DDIMScheduler", **config["noise_scheduler_kwargs"]}
    for info in x0.info.values():
        if info.get("timesteps"):
            sampling["timesteps"] = info["timesteps"]
            break
    return sampling


def need_same_sampling(members, now, allow_unknown=False):
    """Check that the detectors were trained for the sampling `now`.

    Args:
        members: the detectors, each with `path` and `about` (lvd.detectors.member.Member).
        now: description of a sampling, with the keys that are known so far.
        allow_unknown: accept detectors that do not say for which sampling they were trained.

    Raises:
        InputError: a detector was trained for another sampling, or does not say for which.
    """
    checked = []
    for member in members:
        before = member.about.get("sampling") or {}
        if before in checked:
            continue
        for key in [key for key in COMPARED if key in now]:
            if key not in before:
                if allow_unknown:
                    continue
                raise InputError(
                    f"{member.path}: does not say for which {key.replace('_', ' ')} it was "
                    "trained; train it on a recording of this version, or give "
                    "allow_unknown=True if you know that it fits"
                )
            difference = _difference(key, before[key], now[key])
            if difference:
                raise InputError(
                    f"{member.path}: trained for {difference}; use detectors of this sampling, or "
                    "sample as they know it"
                )
        checked.append(before)


def full_scheduler(recorded):
    """Return all settings of a scheduler of which only some are recorded.

    The others are the defaults of its class. Settings that the class does not know are left out:
    `from_config` keeps those of another scheduler.
    """
    import diffusers

    from lvd.x0.schedulers import describe_scheduler

    kind = getattr(diffusers, recorded["class"], None)
    if kind is None:
        return recorded
    parameters = signature(kind.__init__).parameters
    known = {key: value for key, value in recorded.items() if key in parameters}
    return describe_scheduler(kind(**known))


def _difference(key, before, now):
    """Say how two values differ, "... before, this sampling has ...", or None when they agree."""
    if key == "scheduler":
        return _scheduler_difference(before, now)
    if key == "timesteps":
        if _same_timesteps(before, now):
            return None
        return f"timesteps {_ends(before)}, this sampling has {_ends(now)}"
    if before == now:
        return None
    name = "latents of shape (C, F, h, w)" if key == "latent_shape" else key
    return f"{name} {before}, this sampling has {now}"


def _same_timesteps(before, now):
    if len(before) != len(now):
        return False
    pairs = zip(before, now, strict=True)
    return all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-3) for a, b in pairs)


def _scheduler_difference(before, now):
    if before["class"] != now["class"]:
        return f"scheduler {before['class']}, this sampling has {now['class']}"
    before, now = full_scheduler(before), full_scheduler(now)
    difference = first_difference(before, now)
    if difference:
        key, there, here = difference
        return f"a {now['class']} of {key} {there}, this sampling has {here}"
    return None


def _ends(timesteps):
    """The first and last timesteps, for a message: "[999, 979, ..., 19]"."""
    shown = [f"{value:g}" for value in timesteps]
    if len(shown) > 4:
        shown = [*shown[:2], "...", shown[-1]]
    return f"[{', '.join(shown)}]"
