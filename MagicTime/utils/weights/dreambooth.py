"""The DreamBooth file: UNet, VAE and text encoder in one file.

Its names are those of the original latent diffusion code (LDM).
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)

from lvd.errors import InputError
from MagicTime.utils.weights.base import as_linear, load_text
from MagicTime.utils.weights.motion_unet import load_2d
from MagicTime.utils.weights.tensors import leave_out, load_exactly, read_tensors, say_left_out

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
EMA = "model_ema."
# What such files hold besides the three models: everything else is an error. EMA weights are
# averages of the ordinary ones kept by the trainer (names without dots,
# "model_ema.diffusion_modelinput_blocks00weight"); MagicTime uses the ordinary.
LEFT_OUT = {
    "EMA": r"model_ema\..+",
    "noise schedule": r"betas|alphas_cumprod(_prev)?|sqrt_\w+|log_one_minus_alphas_cumprod"
    r"|posterior_\w+|logvar|lvlb_weights|denoiser\.(log_)?sigmas",
    "VAE training": r"first_stage_model\.(loss|model_ema)\..+",
    "CLIP projection": r"cond_stage_model\.(logit_scale|text_projection(\.weight)?)",
}
# The first key of other families: what the error calls them.
FOREIGN = {
    "conditioner.embedders.": "Stable Diffusion XL",
    "cond_stage_model.model.": "Stable Diffusion 2 (OpenCLIP)",
    "text_encoders.": "Stable Diffusion 3",
}


@dataclass
class DreamBooth:
    """A DreamBooth file's tensors.

    Attributes:
        path: of the file.
        unet, vae: {LDM name with its prefix: tensor}.
        text: {name without the prefix: tensor}.
        left: Counter of the tensors left out.
    """

    path: Path
    unet: dict
    vae: dict
    text: dict
    left: Counter


def read_dreambooth(path):
    """Read an LDM single file.

    Returns:
        DreamBooth.

    Raises:
        InputError: names a key that belongs to no Stable Diffusion 1.5 file.
    """
    tensors, left = leave_out(read_tensors(path), LEFT_OUT)
    for name in tensors:
        for start, family in FOREIGN.items():
            if name.startswith(start):
                raise InputError(
                    f"{path}: key '{name}' is {family}'s, a file made from Stable Diffusion 1.5 "
                    "is needed"
                )
    if not any(name.startswith(UNET) for name in tensors):
        averages = f"; its EMA weights ({EMA}*) are not read" if left["EMA"] else ""
        raise InputError(
            f"{path}: no key begins with '{UNET}', an LDM single file is needed{averages}"
        )
    for name in tensors:
        if not name.startswith((UNET, VAE, TEXT)):
            raise InputError(f"{path}: key '{name}' has no place in this model")
    unet = {name: tensor for name, tensor in tensors.items() if name.startswith(UNET)}
    vae = {name: tensor for name, tensor in tensors.items() if name.startswith(VAE)}
    text = {
        name.removeprefix(TEXT): tensor for name, tensor in tensors.items() if name.startswith(TEXT)
    }
    return DreamBooth(path, unet, vae, text, left)


def load_dreambooth(model, path):
    """Replace the 2D UNet of a model, and the VAE and text encoder if the file holds them.

    Returns:
        What went where, in words.
    """
    file = read_dreambooth(path)
    unet = _renamed(file.unet, convert_ldm_unet_checkpoint, model.unet.config, path)
    counts = {
        "unet": load_2d(model.unet, unet, path),
        "vae": _load_vae(model.vae, file),
        "text_encoder": 0,
    }
    if file.text:
        counts["text_encoder"], left = load_text(model.text_encoder, file.text, path)
        file.left.update(left)
    replaced = ", ".join(f"{count} {part}" for part, count in counts.items() if count)
    missing = ", ".join(part for part, count in counts.items() if not count)
    kept = f"; {missing} not in this file, the base's stays" if missing else ""
    return f"{replaced} tensors replaced{kept}{say_left_out(file.left)}"


def load_dreambooth_vae(vae, path):
    """Replace the VAE's weights alone, if the file holds a VAE."""
    _load_vae(vae, read_dreambooth(path))


def _load_vae(vae, file):
    if not file.vae:
        return 0
    renamed = _renamed(file.vae, convert_ldm_vae_checkpoint, vae.config, file.path)
    return load_exactly(vae, as_linear(renamed, vae), file.path)


def _renamed(tensors, convert, config, path):
    """Return `tensors` under diffusers' names.

    The library's converter drops what it does not know. So it is given numbers in place of the
    tensors, which show what names it used.
    """
    config = {**config, "layers_per_block": _one_number(config["layers_per_block"])}
    names = list(tensors)
    numbers = {name: torch.tensor(number) for number, name in enumerate(names)}
    used = {new: int(number) for new, number in convert(numbers, config).items()}
    unused = sorted(set(range(len(names))) - set(used.values()))
    if unused:
        raise InputError(f"{path}: key '{names[unused[0]]}' has no place in this model")
    return {new: tensors[names[number]] for new, number in used.items()}


def _one_number(layers):
    """Return layers_per_block as the one number that the converters divide by."""
    return layers if isinstance(layers, int) else layers[0]
