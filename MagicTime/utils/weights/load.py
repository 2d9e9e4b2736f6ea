"""All of MagicTime's weights, in the order that counts.

Base, motion module, DreamBooth, then the adapters S, T and text.
"""

from dataclasses import dataclass, field

import torch
from diffusers import AutoencoderKL, SchedulerMixin, UNetMotionModel
from transformers import CLIPTextModel, CLIPTokenizer

from lvd.errors import InputError
from MagicTime.utils.weights import base
from MagicTime.utils.weights.adapters import merge_adapter_s, merge_adapter_t, merge_text_adapter
from MagicTime.utils.weights.dreambooth import load_dreambooth, load_dreambooth_vae
from MagicTime.utils.weights.motion import load_motion, motion_options, read_motion
from MagicTime.utils.weights.motion_unet import empty_motion
from MagicTime.utils.weights.tensors import own, say_left_out


@dataclass
class MagicTime:
    """The parts that the sampler needs.

    Attributes:
        report: {weight file's YAML key: what went where, in words}.
        run_on: the device that the parts visit when they are kept elsewhere; None: they stay.
    """

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNetMotionModel
    scheduler: SchedulerMixin
    report: dict = field(default_factory=dict)
    run_on: torch.device | None = None

    def to(self, device, dtype=torch.float32):
        """Move all parts to a device, as `dtype`. Returns the model."""
        for part in (self.text_encoder, self.vae, self.unet):
            if part.dtype != dtype:
                own(part, dtype)
            part.to(device).requires_grad_(False)
        return self

    @property
    def device(self):
        """Return the device that samples."""
        return self.run_on or self.unet.device

    @property
    def latent_factor(self):
        """Return the pixels per latent along a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)


def load_magictime(
    paths, scheduler, heads=None, max_length=None, mid_block=None, dtype=torch.float32
):
    """Load MagicTime onto the CPU.

    Adapters are merged into the weights, in float32: this is exact and has none of the dropout that
    the original leaves active in them. Without a motion module the motion layers pass their input
    on.

    Args:
        paths: {YAML key: path}; all but pretrained_model_path may be empty.
        scheduler: of MagicTime.utils.schedulers.make_scheduler.
        heads, max_length, mid_block: of the motion modules, as the YAML says (`max_length` in
            frames); None: the motion file decides.
        dtype: of the model; float16 and bfloat16 take half the memory from the start.

    Returns:
        MagicTime.

    Raises:
        InputError: names a file that does not go with the others.
    """
    if paths.get("magic_adapter_t_path") and not paths.get("motion_module"):
        raise InputError(
            f"magic_adapter_t_path {paths['magic_adapter_t_path']}: updates the motion module, "
            "but there is none (motion_module, use_motion_module); leave this path empty too"
        )
    folder = paths["pretrained_model_path"]
    motion = read_motion(paths["motion_module"]) if paths.get("motion_module") else None
    options = motion_options(motion, heads=heads, max_length=max_length, mid_block=mid_block)
    unet, unet_count = base.load_unet(folder, **options)
    vae, vae_count = base.load_vae(folder)
    encoder, text_count, left = base.load_text_encoder(folder)
    model = MagicTime(base.load_tokenizer(folder), encoder, vae, unet, scheduler)
    model.report["pretrained_model_path"] = (
        f"{unet_count} unet, {vae_count} vae, {text_count} text_encoder tensors{say_left_out(left)}"
    )
    if motion:
        model.report["motion_module"] = load_motion(unet, motion)
    else:
        empty_motion(unet)
    if path := paths.get("dreambooth_path"):
        model.report["dreambooth_path"] = load_dreambooth(model, path)
    _merge_adapters(model, paths)
    for part in (unet, vae, encoder):
        own(part, dtype)
    return model


def _merge_adapters(model, paths):
    for key, merge, part in (
        ("magic_adapter_s_path", merge_adapter_s, model.unet),
        ("magic_adapter_t_path", merge_adapter_t, model.unet),
        ("magic_text_encoder_path", merge_text_adapter, model.text_encoder),
    ):
        if path := paths.get(key):
            model.report[key] = f"{merge(part, path)} layers merged"


def load_sampling_vae(paths, dtype=torch.float32):
    """Load the VAE that the sampler decodes with: the DreamBooth file's, or else the base's.

    Args:
        paths: {YAML key: path}.
        dtype: of its weights.
    """
    vae, _ = base.load_vae(paths["pretrained_model_path"])
    if path := paths.get("dreambooth_path"):
        load_dreambooth_vae(vae, path)
    return own(vae, dtype)
