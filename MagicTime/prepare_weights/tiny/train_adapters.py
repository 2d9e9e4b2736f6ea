"""Stage 4: the three Magic adapters, low-rank updates that teach growing (time-lapse) clips.

The stages before never saw a time-lapse caption, so what the adapters add can be seen.
"""

import re

import torch
from torch import nn
from torch.nn.utils import parametrize

from MagicTime.prepare_weights.tiny.train_unet import Denoiser, clip_loss
from MagicTime.prepare_weights.tiny.training import train_stage

# name: (which Linear layers, rank, factor on up @ down that the format implies)
ADAPTERS = {
    # (2 up) @ (2 down)
    "s": (r"unet\..*\.attentions\.\d+\..*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)$", 8, 4.0),
    "t": (
        r"unet\..*motion_modules\..*\."
        r"(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)$",
        8,
        2.0,
    ),
    "text": (r"text_encoder\..*self_attn\.(q|k|v|out)_proj$", 4, 2.0),
}


class LowRank(nn.Module):
    """weight → weight + scale * up @ down; inert until trained (up is zero)."""

    def __init__(self, linear, rank, scale):
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / rank)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        self.scale = scale

    def forward(self, weight):
        return weight + self.scale * self.up @ self.down


class MixedClips:
    """Growing clips and ordinary ones, half and half, so that what was learned before stays."""

    def __init__(self, growing, ordinary):
        self.scenes = growing.scenes + ordinary.scenes[: len(growing.scenes)]
        self.latents = torch.cat([growing.latents, ordinary.latents[: len(growing.scenes)]])
        self.captions = lambda rows, rng: type(growing).captions(self, rows, rng)


def train_adapters(out, growing, ordinary, clip_model, steps, seed, batch=16):
    """Train the adapters s, t and text: {adapter: {layer name: (down, up)}}."""
    torch.manual_seed(seed)
    model = Denoiser(clip_model.unet, clip_model.text_encoder, clip_model.tokenizer).requires_grad_(
        False
    )
    for pattern, rank, scale in ADAPTERS.values():
        for name, layer in list(model.named_modules()):
            if re.match(pattern, name):
                parametrize.register_parametrization(layer, "weight", LowRank(layer, rank, scale))
    train_stage(
        "adapters",
        out,
        model,
        steps,
        clip_loss(model, MixedClips(growing, ordinary), batch),
        lr=4e-3,
        seed=seed,
    )
    return {key: _taken(model, pattern) for key, (pattern, _, _) in ADAPTERS.items()}


@torch.no_grad()
def _taken(model, pattern):
    """Remove the updates that match from the model and return their matrices."""
    matrices = {}
    for name, layer in list(model.named_modules()):
        if re.match(pattern, name) and parametrize.is_parametrized(layer):
            update = layer.parametrizations.weight[0]
            pair = (update.down.detach().clone(), update.up.detach().clone())
            matrices[name.split(".", 1)[1]] = pair
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    return matrices
