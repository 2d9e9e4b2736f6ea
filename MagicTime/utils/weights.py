"""All of MagicTime's weights, in the order that counts: base, motion module, DreamBooth, adapters S, T and text."""

from dataclasses import dataclass, field

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNetMotionModel
from transformers import CLIPTextModel, CLIPTokenizer

from . import base
from .adapters import merge_adapter_s, merge_adapter_t, merge_text_adapter
from .dreambooth import load_dreambooth, load_dreambooth_vae
from .motion import load_motion
from .tensors import read_tensors


@dataclass
class MagicTime:
    """The parts that the sampler needs. `report`: {weight file's key: what went where}."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNetMotionModel
    scheduler: DDIMScheduler
    report: dict = field(default_factory=dict)

    def to(self, device, dtype=torch.float32):
        for part in (self.text_encoder, self.vae, self.unet):
            part.to(device).requires_grad_(False)
            if part.dtype != dtype:
                part.to(dtype)
        return self

    @property
    def device(self):
        return self.unet.device

    @property
    def latent_factor(self):
        """Pixels per latent along a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)


def load_magictime(paths, scheduler, heads=8, max_length=32, mid_block=False):
    """MagicTime in float32 on the CPU from `paths`: {YAML key: path}; all but pretrained_model_path may be empty.

    Without a motion module the motion layers are inert. Adapters are merged into the weights, which is exact and
    has none of the dropout that the original leaves active in them. `scheduler`: a DDIMScheduler.
    """
    folder = paths["pretrained_model_path"]
    unet, unet_count = base.load_unet(folder, heads, max_length, mid_block)
    vae, vae_count = base.load_vae(folder)
    encoder, text_count = base.load_text_encoder(folder)
    model = MagicTime(base.load_tokenizer(folder), encoder, vae, unet, scheduler)
    model.report["pretrained_model_path"] = f"{unet_count} UNet, {vae_count} VAE, {text_count} text tensors"
    if path := paths.get("motion_module"):
        model.report["motion_module"] = f"{load_motion(unet, path)} tensors"
    if path := paths.get("dreambooth_path"):
        counts = load_dreambooth(model, path)
        model.report["dreambooth_path"] = ", ".join(f"{n} {part}" for part, n in counts.items()) + " tensors replaced"
    if path := paths.get("magic_adapter_s_path"):
        model.report["magic_adapter_s_path"] = f"{merge_adapter_s(unet, path)} layers merged"
    if path := paths.get("magic_adapter_t_path"):
        model.report["magic_adapter_t_path"] = f"{merge_adapter_t(unet, path)} layers merged"
    if path := paths.get("magic_text_encoder_path"):
        model.report["magic_text_encoder_path"] = f"{merge_text_adapter(encoder, path)} layers merged"
    return model


def load_sampling_vae(paths):
    """The VAE alone that the sampler decodes with: the base's, or the DreamBooth file's if that holds one."""
    vae, _ = base.load_vae(paths["pretrained_model_path"])
    if path := paths.get("dreambooth_path"):
        load_dreambooth_vae(vae, read_tensors(path), path)
    return vae.requires_grad_(False)
