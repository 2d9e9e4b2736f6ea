"""Bare VideoMAE state dicts, as the paper's code writes its detectors."""

import re

from lvd.detectors.calibration import ARGMAX
from lvd.detectors.videomae import IMAGENET
from lvd.errors import InputError


def from_bare(state, path):
    """Return the content of a detector file that a bare state dict stands for.

    Args:
        state: weights of a VideoMAE classifier, as the paper's code saves them.
        path: their file, for messages.

    Raises:
        InputError: they are of another network.
    """
    state = {_present_name(key): value for key, value in state.items()}
    return {
        "state_dict": state,
        "config": _config(state, path),
        "representation": "video",
        "mean": IMAGENET[0],
        "std": IMAGENET[1],
        "threshold": ARGMAX,
        "about": {},
    }


def _present_name(key):
    """Return the name of a weight today.

    Older versions of transformers kept query and value biases under other names, and
    DataParallel puts "module." before every name.
    """
    key = key.removeprefix("module.")
    key = re.sub(r"attention\.attention\.q_bias$", "attention.attention.query.bias", key)
    return re.sub(r"attention\.attention\.v_bias$", "attention.attention.value.bias", key)


def _config(state, path):
    """Return the VideoMAEConfig keys that follow from the shapes of the weights."""
    patch = state.get("videomae.embeddings.patch_embeddings.projection.weight")
    if patch is None or patch.dim() != 5 or "classifier.weight" not in state:
        raise InputError(
            f"{path}: not a VideoMAE classifier (no "
            "videomae.embeddings.patch_embeddings.projection.weight)"
        )
    classes = state["classifier.weight"].shape[0]
    if classes != 2 or patch.shape[1] != 3:
        raise InputError(
            f"{path}: a bare detector needs 2 classes and 3 channels, found {classes} and "
            f"{patch.shape[1]}"
        )
    hidden = patch.shape[0]
    matches = [re.match(r"videomae\.encoder\.layer\.(\d+)\.", key) for key in state]
    layers = {match[1] for match in matches if match}
    first = state.get("videomae.encoder.layer.0.intermediate.dense.weight")
    if first is None or hidden % 64:
        raise InputError(
            f"{path}: not a VideoMAE classifier (no feed-forward layer, or a width that is no "
            "multiple of 64)"
        )
    return {
        "image_size": 224,
        "patch_size": patch.shape[3],
        "num_channels": 3,
        "num_frames": 16,
        "tubelet_size": patch.shape[2],
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": hidden // 64,
        "intermediate_size": first.shape[0],
        "use_mean_pooling": "fc_norm.weight" in state,
        "qv_bias": "videomae.encoder.layer.0.attention.attention.query.bias" in state,
    }
