"""The three Magic adapters: low-rank updates that are added into the weights.

S is a bare file of attention updates in old diffusers names; T and the text encoder's are PEFT
(ms-swift) folders.
"""

import re

import torch

from lvd.errors import InputError
from MagicTime.utils.weights.base import TEXT_PREFIX
from MagicTime.utils.weights.motion import animatediff_name, todays_name
from MagicTime.utils.weights.motion_unet import MOTION
from MagicTime.utils.weights.peft_config import (
    check_targets,
    peft_config,
    peft_folder,
    peft_ranks,
    peft_scales,
)
from MagicTime.utils.weights.tensors import check_tensor, need_finite, read_tensors

S_KEY = re.compile(
    r"(?P<attention>.+)\.processor\.(?P<layer>to_q|to_k|to_v|to_out)_lora\.(?P<side>down|up)\.weight"
)
S_GAIN = 2.0  # MagicTime doubles both factors: four times the plain product
# to_q.lora_A.default.weight, to_q.lora_A.weight, base_model.model.…, and ms-swift's older
# …loramodule_default.lora_A…
PEFT_KEY = re.compile(
    r"(base_model\.model\.)?(?P<layer>.+?)\.(loramodule_[\w-]+\.)?lora_(?P<side>[AB])(\.[\w-]+)?\.weight"
)
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")


def merge_adapter_s(unet, path):
    """Merge adapter S into the spatial attention layers: weight += (2 up) @ (2 down).

    Returns:
        The number of layers.
    """
    factors = {}
    for key, tensor in read_tensors(path).items():
        parts = S_KEY.fullmatch(key)
        if not parts:
            raise InputError(
                f"{path}: key '{key}' is not of the form ….attn1.processor.to_q_lora.down.weight"
            )
        layer = "to_out.0" if parts["layer"] == "to_out" else parts["layer"]
        _add_factor(factors, f"{parts['attention']}.{layer}", parts["side"], key, tensor, path)
    updates = {name: (pair, S_GAIN * S_GAIN) for name, pair in factors.items()}
    return _merge(unet, updates, ("up", "down"), path)


def merge_adapter_t(unet, folder):
    """Merge the motion modules' adapter, a PEFT folder; returns the number of layers."""
    layers = {name: animatediff_name(name) for name in _linear_layers(unet) if MOTION in name}
    return _merge_peft(unet, folder, todays_name, layers)


def merge_text_adapter(encoder, folder):
    """Merge the text encoder's adapter, a PEFT folder; returns the number of layers."""
    homes = {name.removeprefix(TEXT_PREFIX): name for name, _ in encoder.named_modules()}
    layers = {
        name: TEXT_PREFIX + name.removeprefix(TEXT_PREFIX) for name in _linear_layers(encoder)
    }
    return _merge_peft(
        encoder, folder, lambda name: homes.get(name.removeprefix(TEXT_PREFIX), name), layers
    )


def _linear_layers(module):
    return [name for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)]


def _add_factor(factors, layer, side, key, tensor, source):
    """Put a tensor at factors[layer][side]. Another one there means two adapters in one file."""
    pair = factors.setdefault(layer, {})
    if side in pair:
        raise InputError(
            f"{source}: keys '{pair[side][0]}' and '{key}' are two updates of one layer, one is "
            "needed"
        )
    pair[side] = (key, tensor)


def _merge_peft(module, folder, rename, layers):
    """Merge the adapter of a PEFT folder.

    Args:
        module: that is changed.
        folder: of the adapter.
        rename: function from the file's name of a layer to the module's.
        layers: {module's name of a layer: its name in files}, all that could be adapted.

    Returns:
        The number of layers.
    """
    folder = peft_folder(folder)
    config = peft_config(folder)
    path = next((folder / name for name in PEFT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: none of {', '.join(PEFT_FILES)} is here")
    factors = {}
    for key, tensor in read_tensors(path).items():
        parts = PEFT_KEY.fullmatch(key)
        if not parts:
            raise InputError(f"{path}: key '{key}' is not of the form ….to_q.lora_A.default.weight")
        _add_factor(factors, parts["layer"], parts["side"], key, tensor, path)
    ranks = peft_ranks(factors, config, folder)
    scales = peft_scales(ranks, config, folder)
    updates = {}
    for layer, pair in factors.items():
        rank = ranks[layer]
        if "A" in pair and pair["A"][1].dim() == 2 and len(pair["A"][1]) != rank:
            raise InputError(
                f"{path}: '{pair['A'][0]}' has rank {len(pair['A'][1])}, adapter_config.json says "
                f"{rank} (r, rank_pattern); the two must agree, the scale depends on it"
            )
        if rename(layer) in updates:
            raise InputError(
                f"{path}: layer '{layer}' has two updates under two names, one is needed"
            )
        updates[rename(layer)] = (pair, scales[layer])
    _check_pairs(module, updates, ("B", "A"), path)
    others = {name for layer, name in layers.items() if layer not in updates}
    check_targets(factors, others, config, path)
    return _merge(module, updates, ("B", "A"), path)


@torch.no_grad()
def _merge(module, updates, sides, source):
    """Add low-rank updates to a module: weight += scale * left @ right, in float32.

    All updates are checked before any weight is changed.

    Args:
        module: that is changed.
        updates: {layer: ({side: (key, tensor)}, scale)}; left is [out, r], right [r, in].
        sides: names of (left, right).
        source: the weight file, for messages.

    Returns:
        The number of layers.
    """
    _check_pairs(module, updates, sides, source)
    layers = dict(module.named_modules())
    for name, (pair, scale) in updates.items():
        left, right = (pair[side][1].float() for side in sides)
        merged = torch.addmm(layers[name].weight.float(), left, right, alpha=scale)
        layers[name].weight = torch.nn.Parameter(merged, requires_grad=False)
    return len(updates)


def _check_pairs(module, updates, sides, source):
    layers = dict(module.named_modules())
    for name, (pair, _) in updates.items():
        _check_update(layers.get(name), pair, sides, source)


def _check_update(layer, pair, sides, source):
    key = next(iter(pair.values()))[0]
    if not isinstance(layer, torch.nn.Linear):
        raise InputError(f"{source}: key '{key}' has no place in this model")
    if len(pair) != 2:
        raise InputError(
            f"{source}: key '{key}' stands alone, both {sides[0]} and {sides[1]} are needed"
        )
    (left_key, left), (right_key, right) = (pair[side] for side in sides)
    rank = right.shape[0] if right.dim() == 2 else "rank"
    for key, tensor, shape in (
        (left_key, left, (layer.out_features, rank)),
        (right_key, right, (rank, layer.in_features)),
    ):
        check_tensor(key, tensor, shape, source)
        need_finite(key, tensor, source)
