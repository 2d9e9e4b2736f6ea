"""The DreamBooth file: UNet, VAE and text encoder in one file with the original latent diffusion (LDM) names."""

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

from lvd.errors import InputError

from .base import as_linear, load_text
from .motion_unet import load_2d
from .tensors import load_exactly, read_tensors

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
IGNORED_VAE = (VAE + "loss.", VAE + "model_ema.")  # training leftovers


def load_dreambooth(model, path):
    """Replace the 2D UNet of `model`, and the VAE and text encoder if the file holds them. Returns {part: count}.

    Keys of other parts (model_ema., betas, ...) are not read.
    """
    tensors = read_tensors(path)
    unet = {name: t for name, t in tensors.items() if name.startswith(UNET)}
    text = {name.removeprefix(TEXT): t for name, t in tensors.items() if name.startswith(TEXT)}
    if not unet:
        raise InputError(f"{path}: no key begins with '{UNET}', an LDM single file is needed")
    return {"unet": load_2d(model.unet, _renamed(unet, convert_ldm_unet_checkpoint, model.unet.config, path), path),
            "vae": load_dreambooth_vae(model.vae, tensors, path),
            "text_encoder": load_text(model.text_encoder, text, path) if text else 0}


def load_dreambooth_vae(vae, tensors, path):
    """Replace the VAE's weights if the file's `tensors` hold one. Returns the count, 0 if they hold none."""
    found = {name: t for name, t in tensors.items() if name.startswith(VAE) and not name.startswith(IGNORED_VAE)}
    if not found:
        return 0
    return load_exactly(vae, as_linear(_renamed(found, convert_ldm_vae_checkpoint, vae.config, path), vae), path)


def _renamed(tensors, convert, config, path):
    """`tensors` under diffusers' names. The library's converter drops what it does not know, so it is given numbers
    in place of the tensors, to see which names it used."""
    config = {**config, "layers_per_block": _one_number(config["layers_per_block"])}
    names = list(tensors)
    used = {new: int(number) for new, number in convert({n: torch.tensor(i) for i, n in enumerate(names)}, config).items()}
    unused = sorted(set(range(len(names))) - set(used.values()))
    if unused:
        raise InputError(f"{path}: key '{names[unused[0]]}' has no place in this model")
    return {new: tensors[names[number]] for new, number in used.items()}


def _one_number(layers):
    """layers_per_block as the one number that the converters divide by."""
    return layers if isinstance(layers, int) else layers[0]
