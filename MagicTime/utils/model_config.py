"""The second block of a sampling YAML: how the UNet is extended; and what sizes the models take.

The sampler is exactly MagicTime's model (AnimateDiff's motion modules, PKU-YuanGroup/MagicTime), so
a key may say what MagicTime's own configs say and nothing else.
"""

from dataclasses import dataclass

from lvd.errors import InputError, shorten
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

MOST_HEADS, MOST_FRAMES = 1_024, 10_000


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
    unet = _unet_settings(_or_empty(block.get("unet_additional_kwargs")), path)
    return unet, block["noise_scheduler_kwargs"]


def _or_empty(kwargs):
    return {} if kwargs is None else kwargs


def _unet_settings(kwargs, path):
    where = f"{path} (unet_additional_kwargs)"
    check_keys(kwargs, UNET_KEYS, (), where)
    motion = _or_empty(kwargs.get("motion_module_kwargs"))
    check_keys(motion, MOTION_KEYS, (), f"{path} (motion_module_kwargs)")
    given = {**kwargs, **motion}
    for key, fixed in {**UNET_FIXED, **MOTION_FIXED}.items():
        value = given.get(key, fixed)
        if value != fixed or type(value) is not type(fixed):
            raise InputError(
                f"{where}: {key}={shorten(value)} is not supported, MagicTime has {fixed!r}"
            )
    for key in ("use_motion_module", "motion_module_mid_block", "zero_initialize"):
        if type(given.get(key, True)) is not bool:
            raise InputError(f"{where}: {key}={shorten(given[key])}, true or false is needed")
    resolutions = kwargs.get("motion_module_resolutions")
    if resolutions is not None and not _is_list_of_numbers(resolutions):
        raise InputError(
            f"{where}: motion_module_resolutions={shorten(resolutions)}, a list of whole numbers "
            "is needed"
        )
    settings = UnetSettings(
        heads=motion.get("num_attention_heads"),
        max_length=motion.get("temporal_position_encoding_max_len"),
        mid_block=kwargs.get("motion_module_mid_block"),
        use_motion_module=kwargs.get("use_motion_module", True),
        resolutions=resolutions,
    )
    for key, most in (("heads", MOST_HEADS), ("max_length", MOST_FRAMES)):
        value = getattr(settings, key)
        if value is not None and (type(value) is not int or not 1 <= value <= most):
            raise InputError(
                f"{where}: {key}={shorten(value)}, a whole number from 1 to {most} is needed"
            )
    return settings


def _is_list_of_numbers(value):
    return isinstance(value, list) and all(type(one) is int and one >= 1 for one in value)


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
    if listed is not None and not all(level in listed for level in needed):
        raise InputError(
            f"{config.path}: motion_module_resolutions={shorten(listed)}, all of {needed} are "
            "needed for this UNet"
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
