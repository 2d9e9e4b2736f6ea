"""A sampling YAML: two blocks, as in MagicTime, whose own files load unchanged.

The first block says which weights, prompts and sizes (SamplingSettings); the second how the UNet is
extended and the noise scheduled (MagicTime.utils.model_config).
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lvd.errors import InputError, shorten
from lvd.utils.config import ROOT, check_keys, merged
from lvd.utils.files import load_yaml
from MagicTime.utils.hardware import ATTENTION
from MagicTime.utils.model_config import (
    SECOND_BLOCK,
    UnetSettings,
    merged_blocks,
    read_second_block,
)
from MagicTime.utils.safe_guidance import CHOICES as SAFE_GUIDANCE
from MagicTime.utils.safe_guidance import NONE, safe_guidance_of
from MagicTime.utils.schedulers import DDIM, SCHEDULERS, make_scheduler

MAGICTIME = ROOT / "MagicTime"
LOOKED = "(looked in the current folder, MagicTime/ and the repository root)"
DOWNLOAD = "python MagicTime/prepare_weights/download.py fetches the full-size weights"
OVERRIDES = "after the flags"  # what messages call the place of key=value


@dataclass
class SamplingSettings:
    """The first block of a sampling YAML.

    The fields stand in the order in which config.yaml lists them beside the videos. H, W and L are
    a video's height and width in pixels and its frames, as in MagicTime.
    """

    pretrained_model_path: str = ""
    motion_module: str = ""
    dreambooth_path: str = ""
    magic_adapter_s_path: str = ""
    magic_adapter_t_path: str = ""
    magic_text_encoder_path: str = ""
    H: int | None = None
    W: int | None = None
    L: int | None = None
    steps: int | None = None
    scheduler: str = DDIM
    guidance_scale: int | float | None = None
    file_path: str = ""
    prompt: Any = field(default_factory=list)  # a text or a list of texts
    n_prompt: Any = field(default_factory=lambda: [""])  # one for all, or one a prompt
    seed: Any = field(default_factory=lambda: [-1])  # -1 draws one
    seed_per_prompt: bool = False
    save_predx_0: Any = True  # true, false, or the path of the file to write
    save_predx_t: Any = False
    save_guidance: Any = False
    x0_mode: str = "true"
    x0_dtype: str = "float16"
    batch_size: int = 1
    dtype: str = "float32"
    save_path: str = ""
    fps: int = 8
    format: str = "mp4"
    safe_guidance: str = NONE
    safety_concept: str = ""
    attention: str = "auto"
    cpu_offload: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    compile: bool = False


KEYS = tuple(each.name for each in fields(SamplingSettings))
WEIGHTS = KEYS[:6]
REQUIRED = ("pretrained_model_path", "H", "W", "L", "steps", "guidance_scale")
CHOICES = {
    "x0_mode": ("true", "released"),
    "x0_dtype": ("float16", "bfloat16", "float32"),
    "dtype": ("float16", "bfloat16", "float32"),
    "format": ("mp4", "gif", "both"),
    "attention": tuple(ATTENTION),
    "safe_guidance": SAFE_GUIDANCE,
    "scheduler": tuple(SCHEDULERS),
}
COUNTS = {  # the largest that make sense
    "H": 16_384,
    "W": 16_384,
    "L": 10_000,
    "steps": 100_000,
    "batch_size": 10_000,
    "fps": 1_000,
}
LARGEST_GUIDANCE = 1_000_000
SWITCHES = tuple(each.name for each in fields(SamplingSettings) if each.type is bool)
PATHS = (*WEIGHTS, "file_path", "save_path")
LISTS = ("prompt", "n_prompt", "seed")
RECORDINGS = {
    "save_predx_0": "pred_x0.pth",
    "save_predx_t": "pred_x_t.pth",
    "save_guidance": "guidance.pth",
}
FREE_TEXTS = ("prompt", "n_prompt", "safety_concept")  # `${...}` in a prompt is text


@dataclass
class Config:
    """A checked sampling YAML.

    Attributes:
        path: of the YAML.
        settings: its first block, under the flags and the key=value overrides.
        unet: its second block's unet_additional_kwargs.
        noise_schedule: its second block's noise_scheduler_kwargs as they stand.
        places: {key: what a message calls the place} of settings that are not from the YAML.
    """

    path: Path
    settings: SamplingSettings
    unet: UnetSettings
    noise_schedule: dict
    places: dict = field(default_factory=dict)

    def where(self, key):
        """Return what a message calls the place of a setting: the YAML's path or a flag."""
        return self.places.get(key, self.path)

    def make_scheduler(self):
        """Make the noise scheduler, with its timesteps set; see `make_scheduler`."""
        settings = self.settings
        return make_scheduler(self.noise_schedule, self.path, settings.steps, settings.scheduler)


def find(path):
    """Find an existing file or folder.

    Args:
        path: relative to the current folder, MagicTime/ or the repository root, or absolute.

    Returns:
        The first Path that exists; else the first that was tried, which the reader's error names.
    """
    if Path(path).is_absolute():
        return Path(path)
    tried = [Path.cwd() / path, MAGICTIME / path, ROOT / path]
    return next((candidate for candidate in tried if candidate.exists()), tried[0])


def read_config(path, flags=None, overrides=None):
    """Read and check a sampling YAML.

    Args:
        path: of the YAML, looked up by `find`.
        flags: {key: value} of the command line, which win over the YAML; None values are not given.
        overrides: {key: value} of the key=value words, which win over both.

    Returns:
        Config.

    Raises:
        InputError: an unknown or missing key, or a value out of its range.
    """
    asked = path
    path = find(asked)
    if not path.exists():
        raise InputError(
            f"{asked}: no such file {LOOKED}; those that come with LVD are in "
            "MagicTime/sample_configs"
        )
    blocks = load_yaml(path)
    if not isinstance(blocks, list) or len(blocks) != 2:
        raise InputError(
            f"{path}: a list of two blocks is needed (model and prompts; UNet and scheduler)"
        )
    check_keys(blocks[0], KEYS, REQUIRED, f"{path} (first block)")
    flags = {key: value for key, value in (flags or {}).items() if value is not None}
    overrides = overrides or {}
    of_second = {key: overrides[key] for key in SECOND_BLOCK if key in overrides}
    of_first = {key: value for key, value in overrides.items() if key not in of_second}
    places = {key: f"--{key}" for key in flags} | {key: f"{key}=..." for key in of_first}
    settings = _settings(path, blocks[0], flags, of_first)
    if not safe_guidance_of(settings, path) and "safety_concept" in places:
        raise InputError(
            f"{places['safety_concept']}: belongs to --safe_guidance, which says how strongly; "
            "without it, or with none, nothing is kept out"
        )
    second = blocks[1]
    if isinstance(second, dict):
        second = merged_blocks(second, of_second)
    config = Config(path, settings, *read_second_block(second, path), places)
    if settings.x0_mode == "released" and settings.scheduler != DDIM:
        raise InputError(
            f"{config.where('x0_mode')}: x0_mode=released is what the paper's code made of DDIM, "
            f"scheduler={settings.scheduler} is given; x0_mode true or scheduler {DDIM} is needed"
        )
    config.make_scheduler()
    return config


def _settings(path, first_block, flags, overrides):
    """Merge the three layers of settings, each of whose values is checked where it stands."""
    layers = [(path, first_block)]
    layers += [(f"--{key}", {key: value}) for key, value in flags.items()]
    layers += [(OVERRIDES, overrides)]
    layers = [(where, _with_x0_mode_as_text(values)) for where, values in layers]
    texts = {}
    for where, values in layers:
        for key, value in values.items():
            if value is None:
                continue
            if key in FREE_TEXTS or "${" not in str(value):
                _check_value(key, value, where)
            if key in FREE_TEXTS:
                texts[key] = value
    settings = merged(SamplingSettings, [(where, _without_texts(v)) for where, v in layers])
    for key, value in texts.items():
        setattr(settings, key, value)
    for key, value in vars(settings).items():  # those that referred to another key, too
        _check_value(key, value, path)
    return settings


def _is_torch_path(value):
    return isinstance(value, str) and Path(value).suffix in (".pth", ".pt")


def _without_texts(values):
    return {key: value for key, value in values.items() if key not in FREE_TEXTS}


def _with_x0_mode_as_text(values):
    """YAML reads an unquoted `x0_mode: true` as a truth value."""
    return {**values, "x0_mode": "true"} if values.get("x0_mode") is True else values


def _check_value(key, value, where):
    """InputError unless `value` fits the setting `key`, as far as it can be told alone."""
    needed = _needed(key, value)
    if needed:
        raise InputError(f"{where}: {key}={shorten(value)}, {needed} is needed")


def _needed(key, value):
    """Return what the setting needs, in words, or None where `value` fits it."""
    if key in COUNTS:
        return _needed_number(value, "a whole number", (int,), 1, COUNTS[key])
    if key == "guidance_scale":
        return _needed_number(value, "a number", (int, float), 0, LARGEST_GUIDANCE)
    if key in SWITCHES:
        return None if type(value) is bool else "true or false"
    if key in CHOICES:
        fits = isinstance(value, str) and value in CHOICES[key]
        return None if fits else f"one of {', '.join(CHOICES[key])}"
    if key in RECORDINGS:
        fits = type(value) is bool or _is_torch_path(value)
        return None if fits else "true, false or the path of a file to write, which ends in .pth,"
    if key == "safety_concept":
        return None if isinstance(value, str) else "a text"
    if key in PATHS:
        return None if isinstance(value, str) else "a path"
    if key in LISTS and isinstance(value, dict):
        return "one value or a list"
    return None


def _needed_number(value, noun, kinds, least, most):
    if type(value) in kinds and value > most:
        return f"{noun} of at most {most}"
    fits = type(value) in kinds and value >= least  # False for NaN
    return None if fits else f"{noun} of at least {least}"
