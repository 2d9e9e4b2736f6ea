"""How x0 came about: what a recording says of its sampling, detectors keep, and a running sampler
must agree with.

A sampling is a plain dict: {"steps": number, "timesteps": [of each], "x0_mode": "true" or
"released", "scheduler": {"class", settings}, "latent_shape": [C, F, h, w], "x0_dtype": "float16"};
a key that is missing is not known.
"""

import math

from lvd.errors import InputError

COMPARED = ("latent_shape", "steps", "x0_mode", "scheduler", "timesteps")
NAMES = {"latent_shape": "latents of shape (C, F, h, w)", "x0_mode": "x0_mode"}


def recorded_sampling(x0):
    """The sampling of a recording (lvd.x0.file.X0File), as far as its sidecar tells."""
    meta, found = (
        x0.meta,
        {
            "steps": x0.tensor.shape[1],
            "latent_shape": list(x0.tensor.shape[2:]),
            "x0_dtype": str(x0.tensor.dtype).removeprefix("torch."),
        },
    )
    if "x0_mode" in meta:
        found["x0_mode"] = meta["x0_mode"]
    if "scheduler" in meta:
        found["scheduler"] = meta["scheduler"]
    elif "noise_scheduler_kwargs" in meta.get(
        "config", {}
    ):  # MagicTime's sampling YAML: it has DDIM alone
        found["scheduler"] = {"class": "DDIMScheduler", **meta["config"]["noise_scheduler_kwargs"]}
    timesteps = next(
        (info["timesteps"] for info in x0.info.values() if info.get("timesteps")), None
    )
    return {**found, "timesteps": timesteps} if timesteps else found


def need_same_sampling(members, now, allow_unknown=False):
    """InputError for a detector that learned from another sampling than the one `now`, or does not
    say from which.

    members: lvd.detectors.bank.Member of the detectors that are needed; now: a sampling, with the
    keys that are known by now.
    """
    checked = []
    for member in members:
        before = member.about.get("sampling") or {}
        if before in checked:
            continue
        for key in COMPARED:
            if key not in now:
                continue
            if key not in before and not allow_unknown:
                raise InputError(
                    f"{member.path}: does not say for which {key.replace('_', ' ')} it was "
                    "trained; train it on a recording of this version, or give "
                    "allow_unknown=True if you know that it fits"
                )
            if key in before and (found := _difference(key, before[key], now[key])):
                raise InputError(
                    f"{member.path}: trained for {found}; use detectors of this sampling, or "
                    "sample as they know it"
                )
        checked.append(before)


def full_scheduler(recorded):
    """All settings of a scheduler of which some are recorded: the others are its class's defaults.
    What the class does not know (`from_config` keeps what was another scheduler's) is left out."""
    from inspect import signature

    import diffusers

    from lvd.x0.schedulers import describe_scheduler

    kind = getattr(diffusers, recorded["class"], None)
    if kind is None:
        return recorded
    known = signature(kind.__init__).parameters
    return describe_scheduler(
        kind(**{key: value for key, value in recorded.items() if key in known})
    )


def _difference(key, before, now):
    """ "... there, ... here", or None when they agree."""
    if key == "scheduler":
        return _other_scheduler(before, now)
    if key == "timesteps":
        if len(before) == len(now) and all(
            math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-3) for a, b in zip(before, now)
        ):
            return None
        return f"timesteps {_ends(before)}, this sampling has {_ends(now)}"
    if before == now:
        return None
    return f"{NAMES.get(key, key)} {before}, this sampling has {now}"


def _other_scheduler(before, now):
    if before["class"] != now["class"]:
        return f"scheduler {before['class']}, this sampling has {now['class']}"
    before, now = full_scheduler(before), full_scheduler(now)
    different = [key for key in sorted(set(before) | set(now)) if before.get(key) != now.get(key)]
    if different:
        key = different[0]
        return f"a {now['class']} of {key} {before.get(key)}, this sampling has {now.get(key)}"
    return None


def _ends(timesteps):
    shown = [f"{value:g}" for value in timesteps]
    return f"[{', '.join(shown if len(shown) < 5 else [*shown[:2], '...', shown[-1]])}]"
