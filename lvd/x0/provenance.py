"""The sampling that x0 comes from.

A recording describes it, detectors keep the description, and a running sampler must agree with it
in what x0 means. A description is a plain dict. A key that is missing is not known.

    steps           number of denoising steps, S
    timesteps       [S] numbers
    levels          [S] log signal-to-noise ratios (lvd.x0.levels); where they are missing they
                    follow from scheduler and timesteps (lvd.x0.step_map)
    x0_mode         "true", or "released": computed as the paper's published code does
    scheduler       {"class": name, setting: value, ...}
    latent_shape    [C, F, h, w]
    x0_dtype        of the recording, such as "float16"
    guidance_scale  of the recording; the guard compares it (lvd.guard.guidance)

Two recordings that detectors learn to tell apart must agree in more (lvd.x0.alike).
"""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from lvd.errors import ArgumentError, InputError, shorten
from lvd.utils.config import first_difference
from lvd.utils.schema import Finite, Positive, Schema
from lvd.x0.levels import Level
from lvd.x0.meaning import full_scheduler, meaning_of
from lvd.x0.step_map import levels_of_sampling, map_steps, same_levels, same_steps


def _is_setting(value):
    """One setting of a scheduler; infinite ones exist, such as lambda_min_clipped."""
    values = value if isinstance(value, (list, tuple)) else [value]
    if any(type(number) in (int, float) and not abs(number) <= _most(number) for number in values):
        raise ValueError("a number that a scheduler can take is needed")
    return value


def _most(number):
    return 10**9 if isinstance(number, int) else math.inf


class Scheduler(Schema, extra="allow"):
    """A scheduler of diffusers and its settings."""

    __pydantic_extra__: dict[str, Annotated[Any, AfterValidator(_is_setting)]]

    name: Annotated[str, Field(alias="class", min_length=1, max_length=200)]


class Sampling(Schema, extra="allow"):
    """A description as a file keeps it. A key may be missing, but is not None."""

    steps: Positive = None
    timesteps: Annotated[list[Finite], Field(min_length=1, max_length=100_000)] = None
    levels: Annotated[list[Level], Field(min_length=1, max_length=100_000)] = None
    x0_mode: Literal["true", "released"] = None
    scheduler: Scheduler = None
    latent_shape: Annotated[list[Positive], Field(min_length=4, max_length=4)] = None
    x0_dtype: Literal["float16", "bfloat16", "float32", "float64"] = None
    guidance_scale: Finite = None

    @model_validator(mode="after")
    def _has_a_level_for_each_step(self):
        if self.levels is not None:
            counts = {len(self.levels), self.steps, self.timesteps and len(self.timesteps)}
            if len(counts - {None}) > 1:
                raise ValueError("as many levels as steps and timesteps are needed")
        return self


MEANING = ("latent_shape", "x0_mode", "scheduler")  # what x0 means; of the scheduler, meaning_of
STEPS = ("steps", "timesteps")  # compared only where noise levels are not known


def recorded_sampling(x0):
    """Describe the sampling of a recording (lvd.x0.file.X0File), as far as its sidecar tells.

    Raises:
        InputError: its rows were not all sampled at the same timesteps.
    """
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
    elif "noise_scheduler_kwargs" in config:  # MagicTime's DDIM says no more
        sampling["scheduler"] = {"class": "DDIMScheduler", **config["noise_scheduler_kwargs"]}
    row = _row_that_tells_timesteps(x0)
    if row is not None:
        told = x0.info[row]
        sampling["timesteps"] = told["timesteps"]
        if told.get("levels"):
            sampling["levels"] = told["levels"]
    scale = config.get("guidance_scale", meta.get("guidance_scale"))
    if type(scale) in (int, float) and math.isfinite(scale):
        sampling["guidance_scale"] = scale
    return sampling


def _row_that_tells_timesteps(x0):
    """The first row that tells its timesteps, which must be those of all; None if none does."""
    first = None
    for row, info in sorted(x0.info.items()):
        timesteps = info.get("timesteps")
        if timesteps and first is None:
            first = row
        elif timesteps and not same_timesteps(x0.info[first]["timesteps"], timesteps):
            raise InputError(
                f"{x0.path}: row {row} was sampled at timesteps {ends(timesteps)}, row {first} "
                f"at {ends(x0.info[first]['timesteps'])}; all rows must be sampled alike"
            )
    return first


def need_same_meaning(members, now, allow_unknown=False):
    """Check that x0 of the sampling `now` means what it meant where the detectors learned.

    Model, latents, kind of x0 and the scheduler's settings that change it must agree. The number
    of steps, their spacing and the scheduler's class may differ where noise levels are known: see
    `map_to_trained`.

    Args:
        members: the detectors, each with `path` and `about` (lvd.detectors.member.Member).
        now: description of a sampling, with the keys that are known so far.
        allow_unknown: accept detectors that do not say for which sampling they were trained.

    Raises:
        InputError: a detector was trained for another sampling, or does not say for which.
    """
    for member, before in _different(members):
        has_levels = levels_of_sampling(before) is not None
        for key in (*MEANING, *STEPS):
            if key not in now or (key in STEPS and has_levels):
                continue
            if key not in before:
                if allow_unknown:
                    continue
                raise ArgumentError(
                    "allow_unknown",
                    True,
                    " if you know that it fits",
                    before=f"{member.path}: does not say for which {key.replace('_', ' ')} it was "
                    "trained; train it on a recording of this version, or give ",
                    is_advice=True,
                )
            one, other = before[key], now[key]
            if key == "scheduler" and has_levels:
                one, other = (meaning_of(setting) for setting in (one, other))
            difference = difference_of(key, one, other)
            if difference:
                name, there, here = difference
                raise InputError(
                    f"{member.path}: trained for {name} {there}, this sampling has {here}; use "
                    "detectors of this sampling, or sample as they know it"
                )


def map_to_trained(members, now, allow_unknown=False):
    """Find the trained step of each step of a sampling.

    Args:
        members: as of `need_same_meaning`.
        now: description of the sampling, with `steps` at least.
        allow_unknown: as of `need_same_meaning`.

    Returns:
        A StepMap. Where noise levels are not known of both samplings, the steps are trained steps
        by number.

    Raises:
        InputError: levels are not known, and steps or timesteps differ.
    """
    need_same_meaning(members, now, allow_unknown)
    levels = levels_of_sampling(now)
    trained = [levels_of_sampling(before) for _, before in _different(members)]
    if (
        levels is not None
        and trained
        and all(one and same_levels(one, trained[0]) for one in trained)
    ):
        return map_steps(trained[0], levels)
    for member, before in _different(members):
        for key in (key for key in STEPS if key in before and key in now):
            if difference := difference_of(key, before[key], now[key]):
                name, there, here = difference
                raise InputError(
                    f"{member.path}: trained for {name} {there}, this sampling has {here}, and "
                    "their noise levels are not known; sample as the detectors know it"
                )
    return same_steps(now["steps"])


def _different(members):
    """[(a member, the sampling that it was trained on)], each different sampling once."""
    found = []
    for member in members:
        before = member.about.get("sampling") or {}
        if all(before != other for _, other in found):
            found.append((member, before))
    return found


def difference_of(key, before, now):
    """Find how two values of a description differ.

    Args:
        key: of the description, or another key of what says how videos are made.
        before, now: its values.

    Returns:
        (name, value before, value now), in words, or None when they agree.
    """
    if key == "timesteps":
        return None if same_timesteps(before, now) else (key, ends(before), ends(now))
    if key == "levels":
        return None if same_levels(before, now) else (key, ends(before), ends(now))
    if key == "scheduler":
        before, now = full_scheduler(before), full_scheduler(now)
    if before == now:
        return None
    if isinstance(before, dict) and isinstance(now, dict):
        found = first_difference(before, now)
        if found is None:  # a key is None here and missing there
            return None
        inner, there, here = found
        return f"{key}: {inner}", shorten(there), shorten(here)
    name = "latents of shape (C, F, h, w)" if key == "latent_shape" else key
    return name, shorten(before), shorten(now)


def same_timesteps(before, now):
    """Tell whether two lists of timesteps are the same, to float precision."""
    if before == now:
        return True
    if len(before) != len(now):
        return False
    pairs = zip(before, now, strict=True)
    return all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-3) for a, b in pairs)


def ends(timesteps):
    """Return the first and last timesteps, for a message: "[999, 979, ..., 19]"."""
    shown = [f"{value:g}" for value in timesteps]
    if len(shown) > 4:
        shown = [*shown[:2], "...", shown[-1]]
    return f"[{', '.join(shown)}]"
