"""A sampling YAML: two blocks, as in MagicTime. The first says which weights, prompts and sizes;
the second how the UNet is extended and the noise scheduled. YAML files of the original work
unchanged."""

import inspect
import math
from dataclasses import dataclass
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.config import ROOT, check_keys
from lvd.utils.files import load_yaml
from MagicTime.utils import hardware
from MagicTime.utils.safe_guidance import CHOICES as SAFE_GUIDANCE
from MagicTime.utils.safe_guidance import NONE, safe_guidance_of

MAGICTIME = ROOT / "MagicTime"
LOOKED = "(looked in the current folder, MagicTime/ and the repository root)"
DOWNLOAD = "python MagicTime/prepare_weights/download.py fetches the full-size weights"
WEIGHTS = (
    "pretrained_model_path",
    "motion_module",
    "dreambooth_path",
    "magic_adapter_s_path",
    "magic_adapter_t_path",
    "magic_text_encoder_path",
)
DEFAULTS = {
    **dict.fromkeys(WEIGHTS, ""),
    "H": None,
    "W": None,
    "L": None,
    "steps": None,
    "guidance_scale": None,
    "file_path": "",
    "prompt": [],
    "n_prompt": [""],
    "seed": [-1],
    "seed_per_prompt": False,
    "save_predx_0": True,
    "save_predx_t": False,
    "x0_mode": "true",
    "x0_dtype": "float16",
    "batch_size": 1,
    "dtype": "float32",
    "save_path": "",
    "fps": 8,
    "format": "mp4",
    "safe_guidance": NONE,
    "safety_concept": "",
    **hardware.DEFAULTS,
}
REQUIRED = ("pretrained_model_path", "H", "W", "L", "steps", "guidance_scale")
CHOICES = {
    "x0_mode": ("true", "released"),
    "x0_dtype": ("float16", "bfloat16", "float32"),
    "dtype": ("float16", "bfloat16", "float32"),
    "format": ("mp4", "gif", "both"),
    "attention": tuple(hardware.ATTENTION),
    "safe_guidance": SAFE_GUIDANCE,
}
COUNTS = ("H", "W", "L", "steps", "batch_size", "fps")
SWITCHES = ("save_predx_0", "save_predx_t", "seed_per_prompt", *hardware.SWITCHES)
# What MagicTime's own configs say about the UNet; the sampler is exactly this model, so nothing
# else is accepted.
UNET_FIXED = {
    "use_inflated_groupnorm": True,
    "motion_module_type": "Vanilla",
    "unet_use_cross_frame_attention": False,
    "unet_use_temporal_attention": False,
    "motion_module_decoder_only": False,
}
MOTION_FIXED = {
    "num_transformer_block": 1,
    "attention_block_types": ["Temporal_Self", "Temporal_Self"],
    "temporal_position_encoding": True,
    "temporal_attention_dim_div": 1,
}
UNET_KEYS = (
    *UNET_FIXED,
    "use_motion_module",
    "motion_module_resolutions",
    "motion_module_mid_block",
    "motion_module_kwargs",
)
MOTION_KEYS = (
    *MOTION_FIXED,
    "num_attention_heads",
    "temporal_position_encoding_max_len",
    "zero_initialize",
)


@dataclass
class Config:
    """A checked YAML. settings: the first block over DEFAULTS; unet: {heads, max_length,
    mid_block}, None when the YAML leaves them to the motion module's file; unet_kwargs and
    scheduler: the second block as it stands."""

    path: Path
    settings: dict
    unet: dict
    unet_kwargs: dict
    scheduler: dict
    flags: tuple = ()

    def where(self, key):
        """What to call the place of a setting in a message."""
        return f"--{key}" if key in self.flags else self.path


def find(path):
    """An existing file or folder by a path relative to the current folder, MagicTime/ or the
    repository root."""
    tried = (
        [Path(path)]
        if Path(path).is_absolute()
        else [Path.cwd() / path, MAGICTIME / path, ROOT / path]
    )
    for candidate in tried:
        if candidate.exists():
            return candidate
    return tried[0]  # the reader's error will name it


def read_config(path, changes=None):
    """Config of the YAML at `path`; `changes`: settings from flags, which win."""
    asked, path = path, find(path)
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
    check_keys(blocks[0], DEFAULTS, REQUIRED, f"{path} (first block)")
    settings = {
        **DEFAULTS,
        **{k: v for k, v in blocks[0].items() if v is not None},
        **(changes or {}),
    }
    if settings["x0_mode"] is True:  # YAML reads an unquoted `true` as a truth value
        settings["x0_mode"] = "true"
    for key, value in settings.items():
        _check_value(key, value, f"--{key}" if key in (changes or {}) else path)
    if not safe_guidance_of(settings, path) and (changes or {}).get("safety_concept") is not None:
        raise InputError(
            "--safety_concept: belongs to --safe_guidance, which says how strongly; without it, "
            "or with none, nothing is kept out"
        )
    second = blocks[1]
    known = ("unet_additional_kwargs", "noise_scheduler_kwargs")
    check_keys(second, known, ("noise_scheduler_kwargs",), f"{path} (second block)")
    unet_kwargs = second.get("unet_additional_kwargs") or {}
    scheduler = second["noise_scheduler_kwargs"]
    make_scheduler(scheduler, path, settings["steps"])
    return Config(
        path,
        settings,
        _unet_options(unet_kwargs, path),
        unet_kwargs,
        scheduler,
        tuple(changes or {}),
    )


def _check_value(key, value, where):
    if key in COUNTS and (type(value) is not int or value < 1):
        raise InputError(f"{where}: {key}={value!r}, a whole number of at least 1 is needed")
    if key in SWITCHES and type(value) is not bool:
        raise InputError(f"{where}: {key}={value!r}, true or false is needed")
    if key in CHOICES and value not in CHOICES[key]:
        raise InputError(f"{where}: {key}={value!r}, one of {', '.join(CHOICES[key])} is needed")
    if key == "guidance_scale" and (
        type(value) not in (int, float) or not math.isfinite(value) or value < 0
    ):
        raise InputError(f"{where}: guidance_scale={value!r}, a number of at least 0 is needed")
    if key == "safety_concept" and not isinstance(value, str):
        raise InputError(f"{where}: safety_concept={value!r}, a text is needed")
    if key in (*WEIGHTS, "file_path", "save_path") and not isinstance(value, str):
        raise InputError(f"{where}: {key}={value!r}, a path is needed")


def _unet_options(kwargs, path):
    where = f"{path} (unet_additional_kwargs)"
    check_keys(kwargs, UNET_KEYS, (), where)
    motion = kwargs.get("motion_module_kwargs") or {}
    check_keys(motion, MOTION_KEYS, (), f"{path} (motion_module_kwargs)")
    for key, value in [*UNET_FIXED.items(), *MOTION_FIXED.items()]:
        found = {**kwargs, **motion}.get(key, value)
        if found != value:
            raise InputError(f"{where}: {key}={found!r} is not supported, MagicTime has {value!r}")
    for key in ("use_motion_module", "motion_module_mid_block"):
        if type(kwargs.get(key, True)) is not bool:
            raise InputError(f"{where}: {key}={kwargs[key]!r}, true or false is needed")
    options = {
        "heads": motion.get("num_attention_heads"),
        "max_length": motion.get("temporal_position_encoding_max_len"),
        "mid_block": kwargs.get("motion_module_mid_block"),
    }
    for key in ("heads", "max_length"):
        if options[key] is not None and (type(options[key]) is not int or options[key] < 1):
            raise InputError(
                f"{where}: {key}={options[key]!r}, a whole number of at least 1 is needed"
            )
    return options


def check_resolutions(config, unet_config):
    """The original puts motion modules at listed down-scalings only; this sampler has them at every
    level of the UNet."""
    listed = config.unet_kwargs.get("motion_module_resolutions")
    needed = [2**level for level in range(len(unet_config["block_out_channels"]))]
    if listed is not None and not (isinstance(listed, list) and set(needed) <= set(listed)):
        raise InputError(
            f"{config.path}: motion_module_resolutions={listed}, all of {needed} are needed for "
            "this UNet"
        )


def make_scheduler(kwargs, path, steps):
    """DDIMScheduler from the YAML alone: the base folder's scheduler file is not read, as in
    MagicTime."""
    from diffusers import DDIMScheduler

    known = list(inspect.signature(DDIMScheduler).parameters)
    check_keys(kwargs, known, (), f"{path} (noise_scheduler_kwargs)")
    try:
        scheduler = DDIMScheduler(**kwargs)
        scheduler.set_timesteps(steps)
    except (NotImplementedError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{path} (noise_scheduler_kwargs): {' '.join(str(error).split())[:160]}"
        ) from error
    last = scheduler.config.num_train_timesteps - 1
    if int(scheduler.timesteps.max()) > last:
        raise InputError(
            f"{path}: steps={steps} reach timestep {int(scheduler.timesteps.max())}, the noise "
            f"schedule ends at {last}; fewer steps are needed"
        )
    return scheduler


def check_sizes(settings, unet_config, vae_config, max_length, path):
    """InputError unless the video fits the models: whole latents at every level, within the motion
    module's reach."""
    factor = 2 ** (len(vae_config["block_out_channels"]) - 1) * 2 ** (
        len(unet_config["block_out_channels"]) - 1
    )
    for key in ("H", "W"):
        if settings[key] % factor:
            raise InputError(f"{path}: {key}={settings[key]}, a multiple of {factor} is needed")
    check_length(settings, max_length, path)


def check_length(settings, max_length, path):
    """`max_length`: frames within the motion module's reach; None: not known yet."""
    if max_length and settings["L"] > max_length:
        raise InputError(
            f"{path}: L={settings['L']} frames, the motion module reaches {max_length} (its "
            "position table)"
        )
