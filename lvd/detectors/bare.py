"""Bare VideoMAE state dicts, as the paper's code writes its detectors."""

import re

from lvd.detectors.calibration import ARGMAX
from lvd.detectors.schemas import NetworkConfig
from lvd.detectors.videomae import IMAGENET
from lvd.detectors.weights import config_of_weights
from lvd.errors import InputError
from lvd.utils.schema import checked


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
    found = config_of_weights(state, path)
    classifier = state.get("classifier.weight")
    classes = 0 if classifier is None or not classifier.dim() else len(classifier)
    if classes != 2 or found["num_channels"] != 3:
        raise InputError(
            f"{path}: a bare detector needs 2 classes and 3 channels, found {classes} and "
            f"{found['num_channels']}"
        )
    hidden = found["hidden_size"]
    if hidden % 64:
        raise InputError(
            f"{path}: not a VideoMAE classifier (a width of {hidden}, which is no multiple of 64)"
        )
    config = {
        **found,
        "image_size": 224,
        "num_frames": 16,
        "num_attention_heads": hidden // 64,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "use_mean_pooling": "fc_norm.weight" in state,
        "qv_bias": "videomae.encoder.layer.0.attention.attention.query.bias" in state,
        "hidden_dropout_prob": 0.0,
    }
    return checked(NetworkConfig, config, f"{path}: shapes of the weights")
