"""The second block of a sampling YAML: how the UNet is extended and the noise scheduled.

The sampler is exactly MagicTime's model (AnimateDiff's motion modules, PKU-YuanGroup/MagicTime), so
a key may say what MagicTime's own configs say and nothing else.
"""

import inspect
from dataclasses import dataclass

from lvd.errors import InputError
from lvd.utils.config import check_keys

SECOND_BLOCK = ("unet_additional_kwargs", "noise_scheduler_kwargs")
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


@dataclass(frozen=True)
class UnetSettings:
    """What a YAML says about the motion modules.

    Attributes:
        heads: attention heads; None leaves this to the motion module's file.
        max_length: the most frames that they reach; None leaves this to the file.
        mid_block: whether the mid block has a motion module; None leaves this to the file.
        use_motion_module: False samples without motion modules.
        resolutions: the down-scalings that have motion modules (1, 2, 4, ...); None for all.
    """

    heads: int | None = None
    max_length: int | None = None
    mid_block: bool | None = None
    use_motion_module: bool = True
    resolutions: list | None = None

    @property
    def motion(self):
        """{"heads", "max_length", "mid_block"}: what must agree with the motion module's file."""
        return {"heads": self.heads, "max_length": self.max_length, "mid_block": self.mid_block}


def merged_blocks(block, overrides):
    """Return a block in which `overrides` win, key by key, also within mappings."""
    if not isinstance(block, dict) or not isinstance(overrides, dict):
        return overrides
    changed = {key: merged_blocks(block.get(key), value) for key, value in overrides.items()}
    return {**block, **changed}


def read_second_block(block, path):
    """Check the second block of the YAML at `path`.

    Returns:
        (UnetSettings, {key: value} of the noise scheduler).

    Raises:
        InputError: an unknown key, or a value that MagicTime does not have.
    """
    check_keys(block, SECOND_BLOCK, ("noise_scheduler_kwargs",), f"{path} (second block)")
    unet = _unet_settings(block.get("unet_additional_kwargs") or {}, path)
    return unet, block["noise_scheduler_kwargs"]


def _unet_settings(kwargs, path):
    where = f"{path} (unet_additional_kwargs)"
    check_keys(kwargs, UNET_KEYS, (), where)
    motion = kwargs.get("motion_module_kwargs") or {}
    check_keys(motion, MOTION_KEYS, (), f"{path} (motion_module_kwargs)")
    given = {**kwargs, **motion}
    for key, fixed in {**UNET_FIXED, **MOTION_FIXED}.items():
        value = given.get(key, fixed)
        if value != fixed:
            raise InputError(f"{where}: {key}={value!r} is not supported, MagicTime has {fixed!r}")
    for key in ("use_motion_module", "motion_module_mid_block"):
        if type(kwargs.get(key, True)) is not bool:
            raise InputError(f"{where}: {key}={kwargs[key]!r}, true or false is needed")
    settings = UnetSettings(
        heads=motion.get("num_attention_heads"),
        max_length=motion.get("temporal_position_encoding_max_len"),
        mid_block=kwargs.get("motion_module_mid_block"),
        use_motion_module=kwargs.get("use_motion_module", True),
        resolutions=kwargs.get("motion_module_resolutions"),
    )
    for key in ("heads", "max_length"):
        value = getattr(settings, key)
        if value is not None and (type(value) is not int or value < 1):
            raise InputError(f"{where}: {key}={value!r}, a whole number of at least 1 is needed")
    return settings


def make_scheduler(kwargs, path, steps):
    """Make the noise scheduler from the YAML alone.

    The base folder's scheduler file is not read, as in MagicTime.

    Args:
        kwargs: arguments of diffusers' DDIMScheduler.
        path: of the YAML, for messages.
        steps: denoising steps.

    Returns:
        A DDIMScheduler with its timesteps set.

    Raises:
        InputError: an argument that DDIMScheduler does not take, or too many steps.
    """
    from diffusers import DDIMScheduler

    where = f"{path} (noise_scheduler_kwargs)"
    check_keys(kwargs, list(inspect.signature(DDIMScheduler).parameters), (), where)
    try:
        scheduler = DDIMScheduler(**kwargs)
        scheduler.set_timesteps(steps)
    except (NotImplementedError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{where}: {' '.join(str(error).split())[:160]}") from error
    highest = int(scheduler.timesteps.max())
    last = scheduler.config.num_train_timesteps - 1
    if highest > last:
        raise InputError(
            f"{path}: steps={steps} reach timestep {highest}, the noise schedule ends at {last}; "
            "fewer steps are needed"
        )
    return scheduler


def check_resolutions(config, unet_config):
    """Refuse a YAML that leaves some levels of the UNet without motion modules.

    MagicTime puts motion modules at the listed down-scalings only; this sampler has them at every
    level of the UNet.

    Args:
        config: MagicTime.utils.config.Config.
        unet_config: the config.json of the base's 2D UNet.
    """
    listed = config.unet.resolutions
    needed = [2**level for level in range(len(unet_config["block_out_channels"]))]
    if listed is not None and not (isinstance(listed, list) and set(needed) <= set(listed)):
        raise InputError(
            f"{config.path}: motion_module_resolutions={listed}, all of {needed} are needed for "
            "this UNet"
        )


def check_sizes(config, unet_config, vae_config):
    """Refuse a video that does not fit the models.

    Height and width must give whole latents at every level of the UNet, and the motion module must
    reach the frames.

    Args:
        config: MagicTime.utils.config.Config.
        unet_config, vae_config: config.json of the base's 2D UNet and VAE.
    """
    vae_levels = len(vae_config["block_out_channels"]) - 1
    unet_levels = len(unet_config["block_out_channels"]) - 1
    factor = 2 ** (vae_levels + unet_levels)
    for key in ("H", "W"):
        size = getattr(config.settings, key)
        if size % factor:
            raise InputError(f"{config.path}: {key}={size}, a multiple of {factor} is needed")
    check_length(config, config.unet.max_length)


def check_length(config, max_length):
    """Refuse more frames than the motion module reaches: `max_length`, None if not known yet."""
    frames = config.settings.L
    if max_length and frames > max_length:
        raise InputError(
            f"{config.path}: L={frames} frames, the motion module reaches {max_length} (its "
            "position table)"
        )
