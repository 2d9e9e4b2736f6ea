"""MagicTime's denoiser: diffusers' UNetMotionModel with AnimateDiff's per-frame normalisation.

A Stable Diffusion 1.5 UNet (2D, applied to every frame) with a motion module (attention over
frames) after each of its layers. Two things differ from diffusers' defaults: the motion modules'
GroupNorm normalises each frame by itself, as in AnimateDiff and MagicTime (diffusers normalises all
frames jointly: one pass is then off by half its standard deviation), and there is no motion module
in the mid block.
"""

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from einops import rearrange
from torch import nn

from lvd.errors import InputError, shorten
from MagicTime.utils.weights.tensors import load_exactly

MOTION = "motion_modules."  # what every motion parameter's name holds, and no 2D one's
TABLE = "pos_embed.pe"  # the end of a position table's name
# UNetMotionModel knows no other values of these keys of a 2D UNet.
FIXED_2D = {"flip_sin_to_cos": True, "freq_shift": 0, "center_input_sample": False}


class PerFrameGroupNorm(nn.GroupNorm):
    """GroupNorm of clips [B, C, F, H, W] that normalises each frame by itself.

    Its parameters are nn.GroupNorm's.
    """

    def forward(self, clips):
        frames = rearrange(clips, "b c f h w -> (b f) c h w")
        normed = super().forward(frames)
        return rearrange(normed, "(b f) c h w -> b c f h w", b=len(clips))


def motion_transformers(unet):
    """Return the motion modules of a UNetMotionModel."""
    return [m for m in unet.modules() if isinstance(m, AnimateDiffTransformer3D)]


def per_frame_norm(unet, groups=None):
    """Make every motion module's norm a PerFrameGroupNorm, in place; names and weights stay.

    Args:
        unet: UNetMotionModel.
        groups: number of groups in place of the one that diffusers takes from the 2D UNet.

    Returns:
        `unet`.
    """
    for module in motion_transformers(unet):
        old = module.norm
        count = groups or old.num_groups
        if old.num_channels % count:
            raise InputError(
                f"motion module of {old.num_channels} channels: not divisible into {count} norm "
                "groups"
            )
        new = PerFrameGroupNorm(count, old.num_channels, eps=old.eps)
        new.weight = old.weight
        new.bias = old.bias
        module.norm = new
    return unet


def make_motion_unet(
    unet2d_config, motion_heads=8, max_length=32, mid_block=False, motion_norm_groups=32
):
    """Make a UNetMotionModel with random weights around a 2D UNet.

    Its 2D part has the parameter names and shapes of UNet2DConditionModel. The model takes and
    gives latents [B, 4, F, h, w], and takes text [B * F, tokens, cross_attention_dim].

    Args:
        unet2d_config: config.json of a UNet2DConditionModel; its `attention_head_dim` is the number
            of heads, as in Stable Diffusion 1.5.
        motion_heads: attention heads of a motion module.
        max_length: the most frames that the motion modules reach.
        mid_block: whether the mid block has a motion module.
        motion_norm_groups: groups of the motion modules' norms.
    """
    config = {key: value for key, value in unet2d_config.items() if not key.startswith("_")}
    for key, value in FIXED_2D.items():
        if config.get(key, value) != value:
            raise InputError(
                f"unet config: {key}={shorten(config[key])} is not supported, only {shorten(value)}"
            )
    with torch.device("meta"):  # only names and shapes are wanted of these two
        unet2d = UNet2DConditionModel.from_config(config)
        adapter = MotionAdapter(
            block_out_channels=tuple(unet2d.config.block_out_channels),
            motion_layers_per_block=unet2d.config.layers_per_block,
            motion_num_attention_heads=motion_heads,
            motion_norm_num_groups=unet2d.config.norm_num_groups,
            motion_max_seq_length=max_length,
            use_motion_mid_block=mid_block,
        )
    unet = UNetMotionModel.from_unet2d(unet2d, adapter, load_weights=False)
    wanted = {name: tensor.shape for name, tensor in unet2d.state_dict().items()}
    states = unet.state_dict().items()
    shapes = {name: tensor.shape for name, tensor in states if MOTION not in name}
    if shapes != wanted:
        raise InputError(
            "unet config: this kind of 2D UNet is not supported, a Stable Diffusion 1.5 one is "
            "needed"
        )
    return per_frame_norm(unet, motion_norm_groups)


def silence_motion(unet):
    """Zero the motion modules' output projections: they pass their input on. Returns `unet`."""
    for module in motion_transformers(unet):
        nn.init.zeros_(module.proj_out.weight)
        nn.init.zeros_(module.proj_out.bias)
    return unet


def is_motion(name):
    """Tell whether a name in a UNetMotionModel's state dict is a weight of a motion module.

    Position tables are none: they are computed.
    """
    return MOTION in name and not name.endswith(TABLE)


def empty_motion(unet):
    """Give motion modules without values zeros: they pass their input on. Returns `unet`."""
    zeros = {
        name: torch.zeros(1).expand(t.shape)
        for name, t in unet.state_dict().items()
        if is_motion(name)
    }
    unet.load_state_dict(zeros, strict=False, assign=True)
    return unet


def load_2d(unet, state_dict, source="2D UNet weights"):
    """Load a UNet2DConditionModel's state dict into the 2D part of `unet`.

    Returns:
        The number of tensors.

    Raises:
        InputError: names the first wrong key.
    """
    return load_exactly(unet, state_dict, source, wanted=lambda name: MOTION not in name)
