"""adapter_config.json of a PEFT folder: what it asks for, and the scale of each layer's update.

The rules are PEFT's (LoraConfig); only plain low-rank updates are supported.
"""

import math
from pathlib import Path

from lvd.errors import InputError, shorten
from MagicTime.utils.weights.base import read_mapping
from MagicTime.utils.weights.patterns import matched

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
# The other initialisations (PiSSA, OLoRA, LoftQ, ...) change the base weights.
INITS = (True, False, None, "gaussian", "eva", "orthogonal")
LARGEST_ALPHA = 1_000_000  # trainers use 1 to 512
# With one of these, not all that target_modules names is adapted.
NARROWING = ("exclude_modules", "layers_to_transform", "layers_pattern")


def peft_config(folder):
    """Read adapter_config.json; only plain low-rank updates are supported."""
    path = folder / "adapter_config.json"
    config = read_mapping(path)
    for key in UNSUPPORTED:
        if config.get(key) not in PLAIN:
            raise InputError(
                f"{path}: {key}={shorten(config[key])} is not supported, plain low-rank "
                "updates are needed"
            )
    for key in ("peft_type", "swift_type"):
        if config.get(key) not in (None, "LORA"):
            raise InputError(
                f"{path}: {key}={shorten(config[key])} is not supported, 'LORA' is needed"
            )
    if (init := config.get("init_lora_weights")) not in INITS:
        raise InputError(
            f"{path}: init_lora_weights={shorten(init)} is not supported, it changes the base "
            "weights as well"
        )
    if not isinstance(config.get("use_rslora"), (bool, type(None))):
        raise InputError(
            f"{path}: use_rslora={shorten(config['use_rslora'])}, true or false is needed"
        )
    return config


def check_targets(adapted, others, config, source):
    """Refuse a file that adapts other layers than target_modules names, where the config says it.

    PEFT would not use the tensors of a layer that target_modules does not name, and would leave a
    named layer without tensors as it was. Either way the numbers are not those of the adapter that
    was trained.

    Args:
        adapted: layers that the file adapts, under the file's names.
        others: layers that it could adapt and does not.
        config: adapter_config.json.
        source: the weight file, for messages.
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
    """Return the layers that target_modules names, by PEFT's rule.

    A text is a regular expression of whole names, a list holds names or their ends.
    """
    where = f"{source.parent}/adapter_config.json: target_modules"
    if isinstance(target, str):
        return matched([target], layers, where)[0]
    if not isinstance(target, list) or not all(isinstance(name, str) for name in target):
        raise InputError(f"{where}={shorten(target)}, names or a regular expression are needed")
    return {layer for layer in layers if any(f".{layer}".endswith(f".{name}") for name in target)}


def peft_folder(folder):
    """Find adapter_config.json: in `folder`, in its `default` or in its only sub-folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for candidate in (folder, folder / "default"):
        if (candidate / "adapter_config.json").is_file():
            return candidate
    folders = sorted(path.parent for path in folder.glob("*/adapter_config.json"))
    if not folders:
        raise InputError(f"{folder}: no adapter_config.json here or in a sub-folder")
    if len(folders) > 1:
        names = ", ".join(each.name for each in folders)
        raise InputError(f"{folder}: several adapters here ({names}); name the folder of one")
    return folders[0]


def peft_ranks(layers, config, folder):
    """Return {layer: r}; rank_pattern overrides it by the end of the layer's name."""
    ranks = _by_pattern("rank_pattern", "r", layers, config, folder)
    for rank in ranks.values():
        if type(rank) is not int or rank < 1:
            raise InputError(
                f"{folder}/adapter_config.json: r={shorten(rank)}, a whole number of at least 1 is "
                "needed"
            )
    return ranks


def peft_scales(ranks, config, folder):
    """Return {layer: scale of its update}: lora_alpha / r, or with use_rslora lora_alpha / sqrt(r).

    alpha_pattern overrides lora_alpha by the end of the layer's name.

    Args:
        ranks: {layer: r}.
        config: adapter_config.json.
        folder: of the adapter, for messages.
    """
    alphas = _by_pattern("alpha_pattern", "lora_alpha", ranks, config, folder)
    for alpha in alphas.values():
        if type(alpha) not in (int, float) or not abs(alpha) <= LARGEST_ALPHA:
            raise InputError(
                f"{folder}/adapter_config.json: lora_alpha={shorten(alpha)}, a number is needed "
                f"(at most {LARGEST_ALPHA})"
            )
    scales = {}
    for layer, rank in ranks.items():
        divisor = math.sqrt(rank) if config.get("use_rslora") else rank
        scales[layer] = alphas[layer] / divisor
    return scales


def _by_pattern(key, default, layers, config, folder):
    """Return {layer: value of the first pattern that matches it, else config[default]}."""
    values = config.get(key) or {}
    where = f"{folder}/adapter_config.json: {key}"
    if not isinstance(values, dict):
        raise InputError(f"{where}={shorten(values)}, name patterns are needed")
    matches = matched([rf"(.*\.)?({pattern})" for pattern in values], layers, where)
    chosen = dict.fromkeys(layers, config.get(default))
    # The last pattern first, so that the first one that matches has the last word.
    for value, names in reversed(list(zip(values.values(), matches, strict=True))):
        chosen |= dict.fromkeys(names, value)
    return chosen
