"""The three Magic adapters: low-rank updates that are added into the weights.

S is a bare file of attention updates in old diffusers names; T and the text encoder's are PEFT
(ms-swift) folders.
"""

import math
import re
from pathlib import Path

import torch

from lvd.errors import InputError
from MagicTime.utils.weights.base import TEXT_PREFIX, read_mapping
from MagicTime.utils.weights.motion import animatediff_name, todays_name
from MagicTime.utils.weights.motion_unet import MOTION
from MagicTime.utils.weights.patterns import matched
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
PLAIN = ("none", None, False, 0, {}, [])  # values of a config key that is not in use
# What would make the update another than B @ A, change the base weights, or keep weights elsewhere
# in the file.
UNSUPPORTED = (
    "use_dora",
    "use_qa_lora",
    "use_bdlora",
    "fan_in_fan_out",
    "bias",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "megatron_config",
    "enable_lora",
    "use_merged_linear",
    "model_key_mapping",
    "alora_invocation_tokens",
)
INITS = (
    True,
    False,
    None,
    "gaussian",
    "eva",
    "orthogonal",
)  # the others (PiSSA, OLoRA, LoftQ, ...) change the base weights
NARROWING = (
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
)  # then not all that target_modules names is adapted


def merge_adapter_s(unet, path):
    """weight += (2 up) @ (2 down) on the spatial attention layers of `unet`. Returns the number of
    layers."""
    factors = {}
    for key, tensor in read_tensors(path).items():
        found = S_KEY.fullmatch(key)
        if not found:
            raise InputError(
                f"{path}: key '{key}' is not of the form ….attn1.processor.to_q_lora.down.weight"
            )
        layer = "to_out.0" if found["layer"] == "to_out" else found["layer"]
        _add_factor(factors, f"{found['attention']}.{layer}", found["side"], key, tensor, path)
    updates = {name: (pair, S_GAIN * S_GAIN) for name, pair in factors.items()}
    return _merge(unet, updates, ("up", "down"), path)


def merge_adapter_t(unet, folder):
    """The motion modules' adapter, a PEFT folder with AnimateDiff names. Returns the number of
    layers."""
    layers = {name: animatediff_name(name) for name in _linear_layers(unet) if MOTION in name}
    return _merge_peft(unet, folder, todays_name, layers)


def merge_text_adapter(encoder, folder):
    """The text encoder's adapter, a PEFT folder. Returns the number of layers."""
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
    """factors[layer][side] = (key, tensor); InputError if another key was there (two adapters in
    one file)."""
    pair = factors.setdefault(layer, {})
    if side in pair:
        raise InputError(
            f"{source}: keys '{pair[side][0]}' and '{key}' are two updates of one layer, one is "
            "needed"
        )
    pair[side] = (key, tensor)


def _merge_peft(module, folder, rename, layers):
    """`rename`: the file's layer name → that of `module`; `layers`: {layer of `module`: its name in
    files}, all that could be adapted."""
    folder = _peft_folder(folder)
    config = _peft_config(folder)
    path = next((folder / name for name in PEFT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: none of {', '.join(PEFT_FILES)} is here")
    factors = {}
    for key, tensor in read_tensors(path).items():
        found = PEFT_KEY.fullmatch(key)
        if not found:
            raise InputError(f"{path}: key '{key}' is not of the form ….to_q.lora_A.default.weight")
        _add_factor(factors, found["layer"], found["side"], key, tensor, path)
    updates, ranks = {}, peft_ranks(factors, config, folder)
    scales = peft_scales(ranks, config, folder)
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
    _check_targets(
        factors, {name for layer, name in layers.items() if layer not in updates}, config, path
    )
    return _merge(module, updates, ("B", "A"), path)


def _peft_config(folder):
    """adapter_config.json, if it asks for nothing but plain low-rank updates."""
    path = folder / "adapter_config.json"
    config = read_mapping(path)
    for key in UNSUPPORTED:
        if config.get(key) not in PLAIN:
            raise InputError(
                f"{path}: {key}={config[key]!r} is not supported, plain low-rank updates are needed"
            )
    for key in ("peft_type", "swift_type"):
        if config.get(key) not in (None, "LORA"):
            raise InputError(f"{path}: {key}={config[key]!r} is not supported, 'LORA' is needed")
    if (init := config.get("init_lora_weights")) not in INITS:
        raise InputError(
            f"{path}: init_lora_weights={init!r} is not supported, it changes the base weights as "
            "well"
        )
    return config


def _check_targets(adapted, others, config, source):
    """What target_modules names must be what the file adapts, and none of the `others`, where the
    config says it.

    PEFT would not use tensors of a layer that target_modules does not name, and would leave a named
    layer without tensors as it was: either way the numbers are not those of the adapter that was
    trained.
    """
    target = config.get("target_modules")
    if target is None or target == "all-linear":
        return
    named = _named({*adapted, *others}, target, source)
    if unnamed := sorted(set(adapted) - named):
        raise InputError(
            f"{source}: holds an update of '{unnamed[0]}', which adapter_config.json's "
            "target_modules does not name"
        )
    if any(config.get(key) not in PLAIN for key in NARROWING):
        return
    if missing := sorted(others & named):
        raise InputError(
            f"{source}: no update of '{missing[0]}', which adapter_config.json's target_modules "
            "names"
        )


def _named(layers, target, source):
    """Those that `target` names, by PEFT's rule: a text is a regular expression of whole names, a
    list holds names or their ends."""
    where = f"{source.parent}/adapter_config.json: target_modules"
    if isinstance(target, str):
        return matched([target], layers, where)[0]
    if not isinstance(target, list) or not all(isinstance(name, str) for name in target):
        raise InputError(f"{where}={target!r}, names or a regular expression are needed")
    return {layer for layer in layers if any(f".{layer}".endswith(f".{name}") for name in target)}


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
        raise InputError(
            f"{folder}: several adapters here ({', '.join(p.name for p in found)}); name the "
            "folder of one"
        )
    return found[0]


def peft_ranks(layers, config, folder):
    """{layer: r}; rank_pattern overrides it by the name's end."""
    ranks = _by_pattern("rank_pattern", "r", layers, config, folder)
    for rank in ranks.values():
        if type(rank) is not int or rank < 1:
            raise InputError(
                f"{folder}/adapter_config.json: r={rank!r}, a whole number of at least 1 is needed"
            )
    return ranks


def peft_scales(ranks, config, folder):
    """{layer: lora_alpha / r}, with use_rslora lora_alpha / sqrt(r); alpha_pattern overrides
    lora_alpha by the name's end. `ranks`: {layer: r}."""
    alphas = _by_pattern("alpha_pattern", "lora_alpha", ranks, config, folder)
    for alpha in alphas.values():
        if type(alpha) not in (int, float) or not math.isfinite(alpha):
            raise InputError(
                f"{folder}/adapter_config.json: lora_alpha={alpha!r}, a number is needed"
            )
    return {
        layer: alphas[layer] / (math.sqrt(rank) if config.get("use_rslora") else rank)
        for layer, rank in ranks.items()
    }


def _by_pattern(key, default, layers, config, folder):
    """{layer: the value of the first pattern under `key` that fits it, else the one of the key
    `default`}."""
    values, where = config.get(key) or {}, f"{folder}/adapter_config.json: {key}"
    if not isinstance(values, dict):
        raise InputError(f"{where}={values!r}, name patterns are needed")
    fitting = matched([rf"(.*\.)?({pattern})" for pattern in values], layers, where)
    return {
        layer: next(
            (
                value
                for value, found in zip(values.values(), fitting, strict=True)
                if layer in found
            ),
            config.get(default),
        )
        for layer in layers
    }


@torch.no_grad()
def _merge(module, updates, sides, source):
    """weight += scale * left @ right, in float32, for every {layer: ({side: (key, tensor)},
    scale)}; checks all before it changes any. Returns the number of layers."""
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
