"""The motion module file (AnimateDiff's v3_sd15_mm): its names and its loading."""

from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

from lvd.errors import InputError

from .motion_unet import MOTION
from .tensors import check_shape, load_exactly, read_tensors

TABLE = "pos_encoder.pe"  # AnimateDiff stores the sinusoidal position table once per attention, diffusers once per block
TABLE_TOLERANCE = 2e-3  # float16 rounds a table of values up to 1 by 2.4e-4; another table is off by about 1


def todays_name(name):
    """AnimateDiff's name of a motion parameter → UNetMotionModel's."""
    return next(iter(convert_animatediff_checkpoint_to_diffusers({name: None})))


def load_motion(unet, path):
    """Load the motion modules of `unet` from `path`; keys without `motion_modules.` are not read. Returns the count."""
    tensors = {name: t for name, t in read_tensors(path).items() if MOTION in name}
    if not tensors:
        raise InputError(f"{path}: no key holds '{MOTION}', an AnimateDiff motion module is needed")
    _check_tables(unet, tensors, path)
    renamed = {todays_name(name): t for name, t in tensors.items() if not name.endswith(TABLE)}
    return load_exactly(unet, renamed, path, wanted=lambda name: MOTION in name and not name.endswith("pos_embed.pe"))


def _check_tables(unet, tensors, path):
    """The file's position tables must be the ones that diffusers computes."""
    homes = unet.state_dict()
    for name, table in tensors.items():
        if not name.endswith(TABLE):
            continue
        home = todays_name(name.replace(f".{TABLE}", "")).rsplit(".", 1)[0] + ".pos_embed.pe"
        if home not in homes:
            raise InputError(f"{path}: key '{name}' has no place in this model")
        check_shape(name, table, homes[home].shape, path)
        if (table.float() - homes[home].float()).abs().max() > TABLE_TOLERANCE:
            raise InputError(f"{path}: '{name}' is not the sinusoidal position table that this model computes")
