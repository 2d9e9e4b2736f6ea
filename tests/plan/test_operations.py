"""Operation counts against closed forms and against a second counter; weights against models."""

import pytest
import torch
from torch import nn

from lvd.detectors.shared import SharedNet
from lvd.detectors.videomae import scratch_config, token_count
from lvd_plan import flops
from lvd_plan.networks import shared_weight_count, weight_count
from tests.worlds.magictime_world import TWO_LEVELS, VAE

SHAPES = {"latent": (4, 8, 8, 8), "rgb": (3, 8, 8, 8), "video": (3, 8, 64, 64)}


@pytest.mark.parametrize(
    "size, representation",
    [("nano", "latent"), ("nano", "rgb"), ("nano", "video"), ("tiny", "latent")],
)
def test_detectors_are_counted_as_the_closed_form_says(size, representation):
    config = scratch_config(size, SHAPES[representation], representation)
    tokens, width, inner = token_count(config), config.hidden_size, config.intermediate_size
    layers = config.num_hidden_layers
    for seen in (tokens, tokens // 2):
        patch = config.num_channels * config.tubelet_size * config.patch_size**2
        projection, head = 2 * tokens * patch * width, 2 * width * 2
        products = 2 * seen * (4 * width * width + 2 * width * inner)
        layer = products + 4 * seen * seen * width
        one_pass, with_gradients = flops.detector_flops(config, seen)
        assert one_pass == projection + layers * layer + head
        # A product has two gradients; the clip itself needs none.
        assert with_gradients == 3 * one_pass - projection


@pytest.mark.parametrize("size, representation", [("nano", "latent"), ("tiny", "video")])
def test_weights_are_counted_as_the_models_have_them(size, representation):
    from transformers import VideoMAEForVideoClassification

    config = scratch_config(size, SHAPES[representation], representation)
    with torch.device("meta"):
        model = VideoMAEForVideoClassification(config)
        shared = SharedNet(VideoMAEForVideoClassification(config), 7, 5)
    assert weight_count(config) == sum(weight.numel() for weight in model.parameters())
    count = sum(weight.numel() for weight in shared.parameters())
    assert shared_weight_count(config, 7, 5) == count


def test_the_sampler_is_counted_as_by_hooks_on_real_passes(monkeypatch):
    latents = (4, 4, 8, 8)
    unet, vae = flops.unet_on_meta(TWO_LEVELS), flops.vae_on_meta(VAE)
    with torch.device("meta"):
        text = torch.empty(8, flops.TOKENS, TWO_LEVELS["cross_attention_dim"])
        clips, frames = torch.empty(2, *latents), torch.empty(4, 4, 8, 8)
        of_unet = hooked(unet, monkeypatch, clips, torch.empty(()), encoder_hidden_states=text)
        of_vae = hooked(vae.decoder, monkeypatch, frames)
    assert flops.unet_flops(unet, latents) == of_unet
    quantised = 2 * frames.numel() * 4  # the VAE's 1 x 1 convolution before its decoder
    assert flops.decode_flops(vae, latents) == of_vae + quantised


def hooked(model, monkeypatch, *inputs, **more):
    """Operations of a pass: hooks on layers with weights, and what attention is called with."""
    total = []

    def of_layer(layer, given, result):
        weights = layer.weight[0].numel() if layer.weight.dim() > 2 else layer.in_features
        total.append(2 * result.numel() * weights)

    def of_attention(query, key, value, *_, **__):
        total.append(4 * query.numel() * key.shape[-2])
        return torch.empty_like(query)

    hooks = [
        layer.register_forward_hook(of_layer)
        for layer in model.modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    ]
    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(nn.functional, "scaled_dot_product_attention", of_attention)
        model(*inputs, **more)
    for hook in hooks:
        hook.remove()
    return sum(total)
