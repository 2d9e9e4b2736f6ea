"""The motion module: an AnimateDiff file of version 1, 2 or 3, or a diffusers MotionAdapter.

MagicTime's file is of version 3. The file itself shows the version: version 2 has a motion module
in the mid block, and the position tables of version 1 reach 24 frames, those of 2 and 3 reach 32.
The file must agree with what the YAML says, where the YAML says anything.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

from lvd.errors import InputError, shorten
from MagicTime.utils.model_config import MOST_FRAMES, MOST_HEADS
from MagicTime.utils.weights.base import read_mapping, read_weights
from MagicTime.utils.weights.motion_unet import MOTION, TABLE, is_motion
from MagicTime.utils.weights.tensors import (
    check_tensor,
    load_exactly,
    read_tensors,
    rename,
    say_left_out,
)

# AnimateDiff has one sinusoidal position table per attention, diffusers one per block.
TABLES = (".pos_encoder.pe", f".{TABLE}")
# float16 rounds values up to 1 by 2.4e-4, bfloat16 by 2e-3; another table is off by about 1
TABLE_TOLERANCE = 3e-3
LARGEST = {"heads": MOST_HEADS, "max_length": MOST_FRAMES}
DEFAULTS = {"heads": 8, "max_length": 32, "mid_block": False}  # MagicTime's
YAML_KEYS = {
    "heads": "motion_module_kwargs: num_attention_heads",
    "max_length": "motion_module_kwargs: temporal_position_encoding_max_len",
    "mid_block": "motion_module_mid_block",
}
ADAPTER_KEYS = {
    "heads": "motion_num_attention_heads",
    "max_length": "motion_max_seq_length",
    "mid_block": "use_motion_mid_block",
}
# A MotionAdapter's keys and the UNet's.
SHAPE_KEYS = {
    "block_out_channels": "block_out_channels",
    "motion_layers_per_block": "layers_per_block",
}
SDXL = [320, 640, 1280]  # the block_out_channels of Stable Diffusion XL
GROUPS = 32  # of the motion modules' norms, in every AnimateDiff version


@dataclass
class MotionFile:
    """A motion module as its file has it, not yet in a model.

    Attributes:
        path: of the weight file.
        weights: {UNetMotionModel's name: tensor}.
        tables: {the file's name: position table [1, frames, channels]}.
        others: {name: tensor}, the 2D weights of a whole UNet's file.
        kind: what is known of {"heads", "max_length", "mid_block"}.
        config: config.json of a MotionAdapter.
    """

    path: Path
    weights: dict
    tables: dict
    others: dict
    kind: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)


def todays_name(name):
    """Turn AnimateDiff's name of a motion parameter into UNetMotionModel's."""
    converted = convert_animatediff_checkpoint_to_diffusers({name: None})  # drops tables
    return next(iter(converted), name)


def animatediff_name(name):
    """Turn UNetMotionModel's name of a motion layer into AnimateDiff's, which adapters use."""
    for today, then in (
        ("norm1", "norms.0"),
        ("norm2", "norms.1"),
        ("norm3", "ff_norm"),
        ("attn1", "attention_blocks.0"),
        ("attn2", "attention_blocks.1"),
    ):
        name = name.replace(f".{today}", f".{then}")
    return re.sub(r"(motion_modules\.\d+)\.", r"\1.temporal_transformer.", name)


def read_motion(path):
    """Read an AnimateDiff file, a MotionAdapter's folder or its weight file: a MotionFile."""
    path = Path(path)
    stated = {}
    config = {}
    if path.is_dir():
        config = read_mapping(path / "config.json")
        stated = _stated(config, path / "config.json")
        tensors, path = read_weights(path)
    else:
        tensors = read_tensors(path)
    weights, tables, others = {}, {}, {}
    for name, tensor in tensors.items():
        if MOTION not in name:
            others[name] = tensor
        elif name.endswith(TABLES):
            tables[name] = tensor
        else:
            weights[name] = tensor
    if not weights:
        raise InputError(f"{path}: no key holds '{MOTION}', an AnimateDiff motion module is needed")
    seen = {"mid_block": any(name.startswith("mid_block.") for name in weights)}
    seen |= _length(tables, path)
    for key, value in stated.items():
        if seen.get(key, value) != value:
            raise InputError(
                f"{path}: its weights have {key} {seen[key]}, config.json says "
                f"{ADAPTER_KEYS[key]}={value}"
            )
    renamed = rename(weights, todays_name, path)
    return MotionFile(path, renamed, tables, others, {**stated, **seen}, config)


def _length(tables, path):
    """Return {"max_length": frames} of the position tables, {} if there are none."""
    lengths = {}
    for name, table in tables.items():
        if table.dim() != 3:
            raise InputError(
                f"{path}: '{name}' has shape {tuple(table.shape)}, needed (1, frames, channels)"
            )
        lengths.setdefault(table.shape[1], name)
    if len(lengths) > 1:
        frames = " and ".join(map(str, lengths))
        second = list(lengths.values())[1]
        raise InputError(
            f"{path}: position tables of {frames} frames ('{second}'), one length is needed"
        )
    return {"max_length": next(iter(lengths))} if lengths else {}


def _stated(config, path):
    """Return what a MotionAdapter's config.json says of {heads, max_length, mid_block}."""
    if config.get("motion_norm_num_groups", GROUPS) != GROUPS:
        raise InputError(
            f"{path}: motion_norm_num_groups={shorten(config['motion_norm_num_groups'])}, "
            f"AnimateDiff has {GROUPS}"
        )
    stated = {key: config[name] for key, name in ADAPTER_KEYS.items() if name in config}
    heads = stated.get("heads")
    if isinstance(heads, list) and len(set(map(str, heads))) == 1:
        stated["heads"] = heads[0]
    for key, value in stated.items():
        fits, needed = type(value) is bool, "true or false"
        if key in LARGEST:
            fits = type(value) is int and 1 <= value <= LARGEST[key]
            needed = f"a whole number of at least 1 (at most {LARGEST[key]})"
        if not fits:
            raise InputError(f"{path}: {ADAPTER_KEYS[key]}={shorten(value)}, {needed} is needed")
    return stated


def motion_options(motion, **wanted):
    """Decide how to build the motion modules.

    Args:
        motion: MotionFile, or None.
        wanted: heads, max_length and mid_block as the YAML says; None where it says nothing.

    Returns:
        {"heads", "max_length", "mid_block"}: the YAML's, else the file's, else MagicTime's.

    Raises:
        InputError: the YAML and the file disagree.
    """
    kind = motion.kind if motion else {}
    for key, value in wanted.items():
        if value is not None and kind.get(key, value) != value:
            raise InputError(
                f"{motion.path}: this motion module has {_words(key, kind[key])}, the YAML says "
                f"{_yaml(value)}; set unet_additional_kwargs: {YAML_KEYS[key]}: {_yaml(kind[key])}"
            )
    given = {key: value for key, value in wanted.items() if value is not None}
    return {**DEFAULTS, **kind, **given}


def _words(key, value):
    if key == "mid_block":
        return "a part in the mid block" if value else "no part in the mid block"
    if key == "max_length":
        return f"position tables of {value} frames"
    return f"{value} attention heads"


def _yaml(value):
    return str(value).lower() if isinstance(value, bool) else value


def load_motion(unet, motion):
    """Put a MotionFile into the motion modules of a UNet.

    A whole UNet's file may hold the 2D weights too, under the 2D UNet's names: they are left out,
    as in MagicTime.

    Returns:
        What went where, in words.
    """
    _check_shape(unet, motion)
    homes = unet.state_dict()
    _check_tables(homes, motion)
    for name, tensor in motion.others.items():
        if name not in homes:
            raise InputError(f"{motion.path}: key '{name}' has no place in this model")
        check_tensor(name, tensor, homes[name].shape, motion.path)
    count = load_exactly(unet, motion.weights, motion.path, wanted=is_motion)
    left = Counter(
        {
            "2D UNet": len(motion.others),
            "position tables, equal to the computed ones": len(motion.tables),
        }
    )
    return f"{count} motion tensors{say_left_out(left)}"


def _check_shape(unet, motion):
    """Refuse a MotionAdapter whose config tells of other blocks than those of `unet`."""
    for key, name in SHAPE_KEYS.items():
        levels = len(unet.config.block_out_channels)
        here = _one_per_level(unet.config[name], levels)
        there = _one_per_level(motion.config.get(key, here), levels)
        if there != here:
            hint = "; Stable Diffusion XL?" if there == SDXL else ""
            raise InputError(
                f"{motion.path.parent / 'config.json'}: made for another UNet ({key} {there} "
                f"there, {here} here{hint})"
            )


def _one_per_level(value, levels):
    """Return the list of a value that may stand for all levels."""
    return list(value) if isinstance(value, (list, tuple)) else [value] * levels


def _check_tables(homes, motion):
    """Refuse position tables other than those that diffusers computes."""
    for name, table in motion.tables.items():
        block = todays_name(name.removesuffix(TABLES[0]).removesuffix(TABLES[1]))
        home = f"{block.removesuffix('.attn1').removesuffix('.attn2')}.{TABLE}"
        if home not in homes:
            raise InputError(f"{motion.path}: key '{name}' has no place in this model")
        check_tensor(name, table, homes[home].shape, motion.path)
        if not (table.float() - homes[home]).abs().max() <= TABLE_TOLERANCE:
            raise InputError(
                f"{motion.path}: '{name}' is not the sinusoidal position table that this model "
                "computes"
            )
