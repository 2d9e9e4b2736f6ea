"""The motion module: AnimateDiff's files of versions 1, 2 and 3 (MagicTime's is a 3), or a
diffusers MotionAdapter.

Versions differ in two ways, both seen in the file: 2 has a motion module in the mid block, and the
position tables of 1 reach 24 frames, of 2 and 3 32. What the file is must agree with what the YAML
says, where the YAML says anything.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

from lvd.errors import InputError
from MagicTime.utils.weights.base import read_mapping, read_weights
from MagicTime.utils.weights.motion_unet import MOTION, TABLE, is_motion
from MagicTime.utils.weights.tensors import (
    check_tensor,
    load_exactly,
    read_tensors,
    rename,
    say_left_out,
)

TABLES = (
    ".pos_encoder.pe",
    f".{TABLE}",
)  # AnimateDiff has one sinusoidal table per attention, diffusers one per block
# float16 rounds values up to 1 by 2.4e-4, bfloat16 by 2e-3; another table is off by about 1
TABLE_TOLERANCE = 3e-3
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
SHAPE_KEYS = {
    "block_out_channels": "block_out_channels",
    "motion_layers_per_block": "layers_per_block",
}  # → the UNet's
SDXL = [320, 640, 1280]  # the block_out_channels of Stable Diffusion XL
GROUPS = 32  # of the motion modules' norms, in every AnimateDiff version


@dataclass
class MotionFile:
    """A motion module as its file has it, not yet in a model.

    weights: {UNetMotionModel's name: tensor}; tables: {the file's name: position table [1, frames,
    channels]}; others: the 2D weights of a whole UNet's file; kind: what is known of {heads,
    max_length, mid_block}; config: of a MotionAdapter.
    """

    path: Path
    weights: dict
    tables: dict
    others: dict
    kind: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)


def todays_name(name):
    """AnimateDiff's name of a motion parameter → UNetMotionModel's."""
    return next(
        iter(convert_animatediff_checkpoint_to_diffusers({name: None})), name
    )  # it drops tables


def animatediff_name(name):
    """A motion layer's name in UNetMotionModel → AnimateDiff's: what adapters call it."""
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
    """MotionFile of an AnimateDiff file, of a MotionAdapter's folder or of its weight file alone."""
    path = Path(path)
    stated, config = {}, {}
    if path.is_dir():
        config = read_mapping(path / "config.json")
        stated = _stated(config, path / "config.json")
        tensors, path = read_weights(path)
    else:
        tensors = read_tensors(path)
    tables = {name: t for name, t in tensors.items() if MOTION in name and name.endswith(TABLES)}
    weights = {name: t for name, t in tensors.items() if MOTION in name and name not in tables}
    others = {name: t for name, t in tensors.items() if MOTION not in name}
    if not weights:
        raise InputError(f"{path}: no key holds '{MOTION}', an AnimateDiff motion module is needed")
    seen = {
        "mid_block": any(name.startswith("mid_block.") for name in weights),
        **_length(tables, path),
    }
    for key, value in stated.items():
        if seen.get(key, value) != value:
            raise InputError(
                f"{path}: its weights have {key} {seen[key]}, config.json says "
                f"{ADAPTER_KEYS[key]}={value}"
            )
    return MotionFile(
        path, rename(weights, todays_name, path), tables, others, {**stated, **seen}, config
    )


def _length(tables, path):
    """{"max_length": frames} of the position tables, {} if there are none."""
    lengths = {}
    for name, table in tables.items():
        if table.dim() != 3:
            raise InputError(
                f"{path}: '{name}' has shape {tuple(table.shape)}, needed (1, frames, channels)"
            )
        lengths.setdefault(table.shape[1], name)
    if len(lengths) > 1:
        found, name = " and ".join(map(str, lengths)), list(lengths.values())[1]
        raise InputError(
            f"{path}: position tables of {found} frames ('{name}'), one length is needed"
        )
    return {"max_length": next(iter(lengths))} if lengths else {}


def _stated(config, path):
    """What a MotionAdapter's config.json says of {heads, max_length, mid_block}."""
    if config.get("motion_norm_num_groups", GROUPS) != GROUPS:
        raise InputError(
            f"{path}: motion_norm_num_groups={config['motion_norm_num_groups']!r}, AnimateDiff "
            f"has {GROUPS}"
        )
    stated = {key: config[name] for key, name in ADAPTER_KEYS.items() if name in config}
    if isinstance(heads := stated.get("heads"), list) and len(set(map(str, heads))) == 1:
        stated["heads"] = heads[0]
    for key, value in stated.items():
        if type(value) is not type(DEFAULTS[key]) or (key != "mid_block" and value < 1):
            needed = "true or false" if key == "mid_block" else "a whole number of at least 1"
            raise InputError(f"{path}: {ADAPTER_KEYS[key]}={value!r}, {needed} is needed")
    return stated


def motion_options(motion, **wanted):
    """{heads, max_length, mid_block} to build the UNet with: from the YAML (`wanted`, None:
    silent), the MotionFile (None: there is none), MagicTime's own. InputError where YAML and file
    disagree."""
    kind = motion.kind if motion else {}
    for key, value in wanted.items():
        if value is not None and kind.get(key, value) != value:
            raise InputError(
                f"{motion.path}: this motion module has {_words(key, kind[key])}, the YAML says "
                f"{_yaml(value)}; set unet_additional_kwargs: {YAML_KEYS[key]}: {_yaml(kind[key])}"
            )
    return {
        **DEFAULTS,
        **kind,
        **{key: value for key, value in wanted.items() if value is not None},
    }


def _words(key, value):
    if key == "mid_block":
        return f"{'a' if value else 'no'} part in the mid block"
    return (
        f"position tables of {value} frames" if key == "max_length" else f"{value} attention heads"
    )


def _yaml(value):
    return str(value).lower() if isinstance(value, bool) else value


def load_motion(unet, motion):
    """Put a MotionFile into the motion modules of `unet`. Returns what went where, in words.

    A whole UNet's file may hold the 2D weights too, under the 2D UNet's names: they are left out,
    as in MagicTime.
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
    """A MotionAdapter's config must tell of blocks like those of `unet`."""
    for key, name in SHAPE_KEYS.items():
        here = unet.config[name]
        here = (
            list(here)
            if isinstance(here, (list, tuple))
            else [here] * len(unet.config.block_out_channels)
        )
        there = motion.config.get(key, here)
        there = there if isinstance(there, list) else [there] * len(here)
        if there != here:
            hint = "; Stable Diffusion XL?" if there == SDXL else ""
            raise InputError(
                f"{motion.path.parent / 'config.json'}: made for another UNet ({key} {there} "
                f"there, {here} here{hint})"
            )


def _check_tables(homes, motion):
    """The file's position tables must be the ones that diffusers computes."""
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
