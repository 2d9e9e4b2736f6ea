"""From diffusers' parameter names to the original latent diffusion (LDM) names, at any depth.

The way back is diffusers' own converter, so the two check each other.
"""

import re

UNET_ENDS = {
    "conv_in.": "input_blocks.0.0.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}
UNET_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "time_emb_proj.": "emb_layers.1.",
    "conv_shortcut.": "skip_connection.",
}
VAE_ATTENTION = {
    "group_norm.": "norm.",
    "to_q.": "q.",
    "to_k.": "k.",
    "to_v.": "v.",
    "to_out.0.": "proj_out.",
}
PLACE = re.compile(
    r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
MID = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def ldm_unet(tensors, layers_per_block):
    """Rename a UNet2DConditionModel's state dict to LDM (without `model.diffusion_model.`)."""
    return {_unet_name(name, layers_per_block, tensors): t for name, t in tensors.items()}


def _unet_name(name, layers, tensors):
    for new, ldm in UNET_ENDS.items():
        if name.startswith(new):
            return ldm + name.removeprefix(new)
    if parts := MID.fullmatch(name):
        kind, number, rest = parts.groups()
        # the middle is resnet, attention, resnet, ...
        return f"middle_block.{2 * int(number) + (kind == 'attentions')}.{_inside(kind, rest)}"
    side, block, kind, layer, rest = PLACE.fullmatch(name).groups()
    # A level is `layers` layers and a downsampler, or `layers + 1` layers.
    first = int(block) * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.{rest.replace('conv.', 'op.')}"
    if kind == "upsamplers":  # follows the last layer, behind its attention if it has one
        has_attention = any(other.startswith(f"up_blocks.{block}.attentions.") for other in tensors)
        return f"output_blocks.{first + layers}.{1 + has_attention}.{rest}"
    number = first + int(layer) + (side == "down")  # input_blocks.0 is conv_in
    where = "input_blocks" if side == "down" else "output_blocks"
    return f"{where}.{number}.{int(kind == 'attentions')}.{_inside(kind, rest)}"


def _inside(kind, rest):
    return _replace_start(rest, UNET_RESNET) if kind == "resnets" else rest


def ldm_vae(tensors, levels):
    """Rename an AutoencoderKL's state dict to LDM (without `first_stage_model.`).

    Attention weights become 1x1 convolutions.
    """
    renamed = {}
    for name, tensor in tensors.items():
        if ".attentions." in name and tensor.dim() == 2:
            tensor = tensor[:, :, None, None]
        renamed[_vae_name(name, levels)] = tensor
    return renamed


def _vae_name(name, levels):
    half, _, rest = name.partition(".")
    if half not in ("encoder", "decoder"):
        return name  # quant_conv, post_quant_conv
    if parts := MID.fullmatch(rest):
        kind, number, inside = parts.groups()
        if kind == "attentions":
            return f"{half}.mid.attn_{int(number) + 1}.{_replace_start(inside, VAE_ATTENTION)}"
        return (
            f"{half}.mid.block_{int(number) + 1}.{inside.replace('conv_shortcut', 'nin_shortcut')}"
        )
    if not (parts := PLACE.fullmatch(rest)):
        return f"{half}.{rest.replace('conv_norm_out.', 'norm_out.')}"
    side, block, kind, layer, inside = parts.groups()
    if side == "up":  # LDM counts both sides from the pixels
        block = levels - 1 - int(block)
    if kind == "resnets":
        return (
            f"{half}.{side}.{block}.block.{layer}.{inside.replace('conv_shortcut', 'nin_shortcut')}"
        )
    return f"{half}.{side}.{block}.{side}sample.{inside}"


def _replace_start(name, table):
    for old, new in table.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
