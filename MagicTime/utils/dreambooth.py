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
    counts = {"unet": load_2d(model.unet, _renamed(unet, convert_ldm_unet_checkpoint, model.unet.config, path), path)}
    if vae := load_dreambooth_vae(model.vae, path, tensors):
        counts["vae"] = vae
    if text:
        counts["text_encoder"] = load_text(model.text_encoder, text, path)
    return counts


def load_dreambooth_vae(vae, path, tensors=None):
    """Replace the weights of `vae` if the file (or its `tensors`, already read) holds a VAE. Returns the number of tensors."""
    tensors = read_tensors(path) if tensors is None else tensors
    found = {name: t for name, t in tensors.items() if name.startswith(VAE) and not name.startswith(IGNORED_VAE)}
    if not found:
        return 0
    renamed = _renamed(found, convert_ldm_vae_checkpoint, vae.config, path)
    return load_exactly(vae, as_linear(renamed, vae), path)


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
