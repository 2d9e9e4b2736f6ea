"""Operation counts against torch's and against a second counter; weights against models."""

from dataclasses import asdict

import pytest
import torch
from torch import nn
from transformers import VideoMAEForVideoClassification

from lvd.data.transforms import input_size
from lvd.detectors.shared import SharedNet
from lvd.detectors.videomae import scratch_config, token_count
from lvd.utils.config import ROOT
from lvd.utils.files import load_json
from lvd_plan import flops
from lvd_plan.inputs import Models, _models
from lvd_plan.models import TEXT, UNET
from lvd_plan.models import VAE as VAE_OF_SD
from lvd_plan.networks import shared_weight_count, weight_count
from MagicTime.utils.config import read_config
from tests.worlds.magictime_world import TWO_LEVELS, VAE

SHAPES = {"latent": (4, 8, 8, 8), "rgb": (3, 8, 8, 8), "video": (3, 8, 64, 64)}


@pytest.mark.parametrize(
    "size, representation",
    [("nano", "latent"), ("nano", "rgb"), ("nano", "video"), ("tiny", "latent")],
)
def test_operations_of_detectors_are_those_that_torch_counts(size, representation):
    config = scratch_config(size, SHAPES[representation], representation)
    with torch.device("meta"):
        model = VideoMAEForVideoClassification(config)
        clip = torch.empty(1, config.num_frames, config.num_channels, *input_size(config))
    tokens = token_count(config)
    for seen in (tokens, tokens // 2):

        def one_pass(seen=seen):
            # Tokens that are not seen are left out after the projection, as VideoMAE does it.
            hidden = model.videomae.embeddings.patch_embeddings(clip)[:, :seen]
            hidden = model.videomae.encoder(hidden).last_hidden_state
            return model.classifier(hidden.mean(1))

        counted = flops.flops(one_pass), flops.flops_with_backward(one_pass)
        assert flops.detector_flops(config, seen) == counted


def test_operations_that_are_known_are_those_that_are_counted(monkeypatch):
    config = read_config(ROOT / "MagicTime/sample_configs/Tiny.yaml")
    models, latents = _models(config, True), (4, 8, 8, 8)
    known = load_json(flops.KNOWN)
    assert flops.key_of(Models(UNET, VAE_OF_SD, TEXT, []), (4, 16, 64, 64)) in known
    found = flops.count_sampler(models, latents)
    assert asdict(found) == known.pop(flops.key_of(models, latents))
    monkeypatch.setattr(flops, "load_json", lambda _: known)
    assert flops.count_sampler(models, latents) == found


@pytest.mark.parametrize("size, representation", [("nano", "latent"), ("tiny", "video")])
def test_weights_are_counted_as_the_models_have_them(size, representation):
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
