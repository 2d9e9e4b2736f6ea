"""Many small detectors as one network: their weights stacked, one optimiser, one pass over all of
their clips.

Detectors of one category have the same rows and the same number of optimiser steps at every
denoising step; only clips and seeds differ. AdamW works weight by weight, so stacking changes
nothing but the order of additions. What VideoMAE computes for one detector is written here as
products over the stack (`torch.bmm`); tests hold it against the library's model.
"""

import torch
import torch.nn.functional as F

from lvd.detectors.videomae import token_grid

PATCH = "videomae.embeddings.patch_embeddings.projection"


class StackedDetectors:
    """The weights of K detectors of one architecture, as trainable tensors [K, ...] on `device`.

    models: VideoMAEForVideoClassification, without dropout: its masks would be drawn for all at
    once. They are read by `__init__` and written by `store` alone.
    """

    def __init__(self, models, device):
        self.models, self.config = models, models[0].config
        if (
            self.config.hidden_act != "gelu"
            or self.config.hidden_dropout_prob
            or self.config.attention_probs_dropout_prob
        ):
            raise ValueError("only networks with GELU and without dropout can be stacked")
        names = dict(models[0].named_parameters())
        self.weights = {
            name: torch.stack([model.get_parameter(name).detach() for model in models])
            .to(device)
            .requires_grad_()
            for name in names
        }
        self.positions = models[0].videomae.embeddings.position_embeddings[0].to(device)  # [T, D]

    def parameters(self):
        return list(self.weights.values())

    def stacked(self):
        """All weights as tensors [K, ...] that write through."""
        return [weight.detach() for weight in self.weights.values()]

    def logits(self, inputs, kept=None):
        """float32 [K, B, 2] of normalised inputs [K, B, C, F, H, W].

        kept: [K, B, t] numbers of the tokens that are seen, from 0, in rising order; None: all.
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
        config = self.config
        normed = self._norm(f"{name}.layernorm_before", hidden, config.layer_norm_eps)
        hidden = hidden + self._linear(
            f"{name}.attention.output.dense", self._attention(f"{name}.attention", normed)
        )
        normed = self._norm(f"{name}.layernorm_after", hidden, config.layer_norm_eps)
        inner = F.gelu(self._linear(f"{name}.intermediate.dense", normed))
        return hidden + self._linear(f"{name}.output.dense", inner)

    def _attention(self, name, hidden):
        """Attention of every head over the tokens of its own clip: [K, B, T, D] → the same."""
        models, clips, tokens, width = hidden.shape
        heads = self.config.num_attention_heads

        def split(part):
            found = self._linear(f"{name}.attention.{part}", hidden)
            return (
                found.view(models * clips, tokens, heads, width // heads)
                .transpose(1, 2)
                .flatten(0, 1)
            )

        query, key, value = split("query"), split("key"), split("value")
        scale = (width // heads) ** -0.5
        scores = torch.baddbmm(query.new_zeros(1), query, key.transpose(1, 2), beta=0, alpha=scale)
        found = torch.bmm(scores.softmax(-1), value).view(
            models * clips, heads, tokens, width // heads
        )
        return found.transpose(1, 2).reshape(models, clips, tokens, width)

    def _linear(self, name, hidden):
        """Linear layers, or the projection of flat patches, on [K, B, T, in] → [K, B, T, out]."""
        weight, bias = (
            self.weights[f"{name}.weight"].flatten(2).transpose(1, 2),
            self.weights.get(f"{name}.bias"),
        )
        flat = hidden.flatten(1, 2)
        found = (
            torch.bmm(flat, weight) if bias is None else torch.baddbmm(bias[:, None], flat, weight)
        )
        return found.view(*hidden.shape[:3], -1)

    def _norm(self, name, hidden, eps):
        weight, bias = (
            self.weights[f"{name}.weight"][:, None, None],
            self.weights[f"{name}.bias"][:, None, None],
        )
        return torch.addcmul(bias, F.layer_norm(hidden, hidden.shape[-1:], eps=eps), weight)


def patches(inputs, config):
    """[K, B, C, F, H, W] → flat patches [K, B, T, C * tubelet * patch * patch], in the order of
    VideoMAE's tokens."""
    frames, height, width = token_grid(config)
    tubelet, patch = config.tubelet_size, config.patch_size
    models, clips, channels = inputs.shape[:3]
    cut = inputs.view(models, clips, channels, frames, tubelet, height, patch, width, patch)
    return cut.permute(0, 1, 3, 5, 7, 2, 4, 6, 8).reshape(
        models, clips, frames * height * width, -1
    )
