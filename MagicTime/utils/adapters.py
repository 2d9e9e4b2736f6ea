"""The three Magic adapters: low-rank updates that are added into the weights.

S is a bare file of attention updates in old diffusers names; T and the text encoder's are PEFT (ms-swift) folders.
"""

import math
import re
from pathlib import Path

import torch

from lvd.errors import InputError
from lvd.files import load_json

from .base import TEXT_PREFIX
from .motion import todays_name
from .tensors import read_tensors

S_KEY = re.compile(r"(?P<attention>.+)\.processor\.(?P<layer>to_q|to_k|to_v|to_out)_lora\.(?P<side>down|up)\.weight")
S_GAIN = 2.0  # MagicTime doubles both factors: four times the plain product
# to_q.lora_A.default.weight, to_q.lora_A.weight, base_model.model.…, and ms-swift's older …loramodule_default.lora_A…
PEFT_KEY = re.compile(r"(base_model\.model\.)?(?P<layer>.+?)\.(loramodule_[\w-]+\.)?lora_(?P<side>[AB])(\.[\w-]+)?\.weight")
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
UNSUPPORTED = ("use_dora", "use_qa_lora", "fan_in_fan_out")


def merge_adapter_s(unet, path):
    """weight += (2 up) @ (2 down) on the spatial attention layers of `unet`. Returns the number of layers."""
    factors = {}
    for key, tensor in read_tensors(path).items():
        found = S_KEY.fullmatch(key)
        if not found:
            raise InputError(f"{path}: key '{key}' is not of the form ….attn1.processor.to_q_lora.down.weight")
        layer = "to_out.0" if found["layer"] == "to_out" else found["layer"]
        factors.setdefault(f"{found['attention']}.{layer}", {})[found["side"]] = (key, tensor)
    updates = {name: (pair, S_GAIN * S_GAIN) for name, pair in factors.items()}
    return _merge(unet, updates, ("up", "down"), path)


def merge_adapter_t(unet, folder):
    """The motion modules' adapter, a PEFT folder with AnimateDiff names. Returns the number of layers."""
    return _merge_peft(unet, folder, todays_name)


def merge_text_adapter(encoder, folder):
    """The text encoder's adapter, a PEFT folder. Returns the number of layers."""
    homes = {name.removeprefix(TEXT_PREFIX): name for name, _ in encoder.named_modules()}
    return _merge_peft(encoder, folder, lambda name: homes.get(name.removeprefix(TEXT_PREFIX), name))


def _merge_peft(module, folder, rename):
    folder = _peft_folder(folder)
    config = load_json(folder / "adapter_config.json")
    if not isinstance(config, dict):
        raise InputError(f"{folder / 'adapter_config.json'}: holds a {type(config).__name__}, a mapping is needed")
    for key in UNSUPPORTED:
        if config.get(key):
            raise InputError(f"{folder / 'adapter_config.json'}: {key} is not supported")
    path = next((folder / name for name in PEFT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: none of {', '.join(PEFT_FILES)} is here")
    factors = {}
    for key, tensor in read_tensors(path).items():
        found = PEFT_KEY.fullmatch(key)
        if not found:
            raise InputError(f"{path}: key '{key}' is not of the form ….to_q.lora_A.default.weight")
        factors.setdefault(found["layer"], {})[found["side"]] = (key, tensor)
    updates = {}
    for layer, pair in factors.items():
        rank = peft_rank(layer, config, folder)
        if "A" in pair and pair["A"][1].dim() == 2 and len(pair["A"][1]) != rank:
            raise InputError(f"{path}: '{pair['A'][0]}' has rank {len(pair['A'][1])}, adapter_config.json says {rank} (r, "
                             f"rank_pattern); the two must agree, the scale depends on it")
        updates[rename(layer)] = (pair, peft_scale(layer, rank, config, folder))
    return _merge(module, updates, ("B", "A"), path)


def _peft_folder(folder):
    """`folder` itself, its `default`, or its only sub-folder, whichever holds adapter_config.json."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for candidate in (folder, folder / "default"):
        if (candidate / "adapter_config.json").is_file():
            return candidate
    found = sorted(path.parent for path in folder.glob("*/adapter_config.json"))
    if not found:
        raise InputError(f"{folder}: no adapter_config.json here or in a sub-folder")
    if len(found) > 1:
        raise InputError(f"{folder}: several adapters here ({', '.join(p.name for p in found)}); name the folder of one")
    return found[0]


def peft_rank(layer, config, source):
    """r of one layer; rank_pattern overrides it by the name's end."""
    rank = _by_pattern("rank_pattern", "r", layer, config, source)
    if type(rank) is not int or rank < 1:
        raise InputError(f"{source}/adapter_config.json: r={rank!r}, a whole number of at least 1 is needed")
    return rank


def peft_scale(layer, rank, config, source):
    """lora_alpha / r of one layer, or lora_alpha / sqrt(r) with use_rslora; alpha_pattern overrides by the name's end."""
    alpha = _by_pattern("alpha_pattern", "lora_alpha", layer, config, source)
    if type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise InputError(f"{source}/adapter_config.json: lora_alpha={alpha!r}, a number is needed")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(key, default, layer, config, source):
    """The value of the first pattern under `key` that fits `layer`, else the one of the key `default`."""
    patterns = config.get(key) or {}
    try:
        fitting = (value for pattern, value in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", layer))
        return next(fitting, config.get(default))
    except (AttributeError, re.error) as error:
        raise InputError(f"{source}/adapter_config.json: {key}={patterns!r}, name patterns are needed") from error


@torch.no_grad()
def _merge(module, updates, sides, source):
    """weight += scale * left @ right for every {layer: ({side: (key, tensor)}, scale)}; checks all before it changes any."""
    layers = dict(module.named_modules())
    for name, (pair, _) in updates.items():
        _check_update(layers.get(name), pair, sides, source)
    for name, (pair, scale) in updates.items():
        left, right = (pair[side][1].to(layers[name].weight) for side in sides)
        layers[name].weight += scale * (left @ right)
    return len(updates)


def _check_update(layer, pair, sides, source):
    key = next(iter(pair.values()))[0]
    if not isinstance(layer, torch.nn.Linear):
        raise InputError(f"{source}: key '{key}' has no place in this model")
    if len(pair) != 2:
        raise InputError(f"{source}: key '{key}' stands alone, both {sides[0]} and {sides[1]} are needed")
    (left_key, left), (right_key, right) = (pair[side] for side in sides)
    rank = right.shape[0] if right.dim() == 2 else 0
    for key, tensor, shape in ((left_key, left, (layer.out_features, rank)), (right_key, right, (rank, layer.in_features))):
        if tuple(tensor.shape) != shape:
            raise InputError(f"{source}: '{key}' has shape {tuple(tensor.shape)}, needed {shape} (any common rank)")
