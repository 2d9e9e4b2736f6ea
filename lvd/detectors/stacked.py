"""Many small detectors as one network: stacked weights, one optimiser, one pass over all clips.

Detectors of one category have the same rows and the same number of optimiser steps at every
denoising step; only clips and seeds differ. AdamW works weight by weight, so stacking changes
nothing but the order of additions. What VideoMAE computes for one detector is written here as
products over the stack (`torch.bmm`); tests compare it with the library's model.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from lvd.detectors.videomae import frames_first, token_count, token_grid

PATCH = "videomae.embeddings.patch_embeddings.projection"


class StackedDetectors:
    """The weights of K detectors of one architecture, as trainable tensors [K, ...].

    Attributes:
        weights: {name of VideoMAEForVideoClassification: nn.Parameter [K, ...]}.
        module: nn.Module of these weights, for an optimiser.
        config: VideoMAEConfig of each.
    """

    def __init__(self, models, device):
        """
        Args:
            models: [K] VideoMAEForVideoClassification; their dropout is left out. They are read
                here and written by `store` alone.
            device: of the stacked weights.
        """
        self.models, self.config = models, models[0].config
        if not can_be_stacked(self.config):
            raise ValueError("only networks with GELU can be stacked")
        self.weights = {}
        for name, _ in models[0].named_parameters():
            stack = torch.stack([model.get_parameter(name).detach() for model in models])
            self.weights[name] = nn.Parameter(stack.to(device))
        self.module = nn.ParameterList(self.weights.values())
        self.positions = models[0].videomae.embeddings.position_embeddings[0].to(device)  # [T, D]

    def stacked(self):
        """Return all weights as tensors [K, ...] that write through."""
        return [weight.detach() for weight in self.weights.values()]

    def logits(self, inputs, kept=None):
        """Return float32 logits [K, B, 2].

        Args:
            inputs: normalised clips [K, B, C, F, H, W].
            kept: [K, B, t] numbers of the tokens that are seen, in rising order; None: all.
        """
        tokens = patches(inputs, self.config)  # [K, B, T, P]
        positions = self.positions
        if kept is not None:
            tokens = tokens.gather(2, kept[..., None].expand(*kept.shape, tokens.shape[-1]))
            positions = positions[kept]
        hidden = self._linear(PATCH, tokens) + positions
        for layer in range(self.config.num_hidden_layers):
            hidden = self._layer(f"videomae.encoder.layer.{layer}", hidden)
        if self.config.use_mean_pooling:
            hidden = self._norm("fc_norm", hidden.mean(2, keepdim=True), 1e-5)
        else:
            hidden = self._norm("videomae.layernorm", hidden, self.config.layer_norm_eps)[:, :, :1]
        return self._linear("classifier", hidden)[:, :, 0].float()

    def store(self):
        """Write the weights back into the models."""
        with torch.no_grad():
            for name, stacked in self.weights.items():
                for model, weight in zip(self.models, stacked, strict=True):
                    model.get_parameter(name).copy_(weight)

    def _layer(self, name, hidden):
        """One pre-norm transformer block on [K, B, T, D]."""
        eps = self.config.layer_norm_eps
        normed = self._norm(f"{name}.layernorm_before", hidden, eps)
        attended = self._attention(f"{name}.attention.attention", normed)
        hidden = hidden + self._linear(f"{name}.attention.output.dense", attended)
        normed = self._norm(f"{name}.layernorm_after", hidden, eps)
        inner = F.gelu(self._linear(f"{name}.intermediate.dense", normed))
        return hidden + self._linear(f"{name}.output.dense", inner)

    def _attention(self, name, hidden):
        """Attention of every head over the tokens of its own clip: [K, B, T, D] → the same."""
        heads = self.config.num_attention_heads
        query, key, value = (
            rearrange(self._linear(f"{name}.{part}", hidden), "k b t (h d) -> (k b h) t d", h=heads)
            for part in ("query", "key", "value")
        )
        scale = query.shape[-1] ** -0.5
        scores = torch.baddbmm(query.new_zeros(1), query, key.transpose(1, 2), beta=0, alpha=scale)
        mixed = torch.bmm(scores.softmax(-1), value)
        return rearrange(mixed, "(k b h) t d -> k b t (h d)", k=len(hidden), h=heads)

    def _linear(self, name, hidden):
        """Linear layers, or the projection of flat patches: [K, B, T, in] → [K, B, T, out]."""
        weight = self.weights[f"{name}.weight"].flatten(2).transpose(1, 2)
        bias = self.weights.get(f"{name}.bias")
        flat = rearrange(hidden, "k b t i -> k (b t) i")
        if bias is None:
            out = torch.bmm(flat, weight)
        else:
            out = torch.baddbmm(bias[:, None], flat, weight)
        return rearrange(out, "k (b t) o -> k b t o", t=hidden.shape[2])

    def _norm(self, name, hidden, eps):
        weight = self.weights[f"{name}.weight"][:, None, None]
        bias = self.weights[f"{name}.bias"][:, None, None]
        return torch.addcmul(bias, F.layer_norm(hidden, hidden.shape[-1:], eps=eps), weight)


def can_be_stacked(config):
    """Whether StackedDetectors computes what the models of this VideoMAEConfig compute."""
    return config.hidden_act == "gelu"


class SingleDetector:
    """One detector by transformers' own model, with the methods of StackedDetectors.

    This is how VideoMAE-base is trained. Its dropout, if it has any, draws from torch's global
    generator.
    """

    def __init__(self, model, device):
        self.module, self.config = model.to(device), model.config

    def stacked(self):
        """Return all weights as tensors [1, ...] that write through."""
        return [weight.detach()[None] for weight in self.module.parameters()]

    def logits(self, inputs, kept=None):
        """Return float32 logits [1, B, 2].

        Args:
            inputs: normalised clips [1, B, C, F, H, W].
            kept: [1, B, t] numbers of the tokens that are seen; None: all.
        """
        self.module.train(torch.is_grad_enabled())
        hidden = None
        if kept is not None:
            shape = inputs.shape[1], token_count(self.config)
            hidden = torch.ones(shape, dtype=torch.bool, device=inputs.device)
            hidden = hidden.scatter(1, kept[0], False)
        clips = frames_first(inputs[0])
        return self.module(clips, bool_masked_pos=hidden).logits.float()[None]

    def store(self):
        """Do nothing: the weights are the model's already."""


def patches(inputs, config):
    """Cut clips [K, B, C, F, H, W] into flat patches [K, B, T, P], in the order of the tokens.

    P is channels * frames of a token * patch * patch.
    """
    frames, height, width = token_grid(config)
    return rearrange(
        inputs,
        "k b c (frames f) (height h) (width w) -> k b (frames height width) (c f h w)",
        frames=frames,
        height=height,
        width=width,
    )
