"""A mini-batch in parts trains what the whole one trains; base takes as much as 24 GB hold."""

from dataclasses import replace

import pytest
import torch

from lvd.detectors.videomae import scratch_config
from lvd.training import resumable
from lvd.training.parts import clips_at_once, parts_of, values_of_clip
from lvd.training.recipes import GridSettings, NamesSettings, PretrainSettings, SharedSettings
from lvd.utils.files import load_torch
from lvd_plan.memory import KEPT
from tests.worlds.detector_world import make_world
from tests.worlds.shared_runs import train

PICTURES, LATENTS = (3, 16, 512, 512), (4, 16, 64, 64)


def thirds(config, settings, clips):
    return [slice(0, clips // 3), slice(clips // 3, clips // 2), slice(clips // 2, clips)]


def test_parts_train_the_weights_of_the_whole(tmp_path, monkeypatch):
    """Shared detector and names; order, masks and mirroring are drawn for the whole mini-batch."""
    world = make_world(tmp_path)
    flags = ["--epoch", "2", "--names", "names.epoch=2", "names.batch_size=7", "flip=true"]
    assert train(world, *flags, save=tmp_path / "whole") == 0
    monkeypatch.setattr(resumable, "parts_of", thirds)
    assert train(world, *flags, save=tmp_path / "parts") == 0
    for name in ("shared.pth", "names.pth"):
        whole, parts = (load_torch(tmp_path / at / name) for at in ("whole", "parts"))
        for key, value in whole["state_dict"].items():
            torch.testing.assert_close(value, parts["state_dict"][key], rtol=2e-3, atol=2e-4)
        losses = [[p["train_loss"] for p in each["about"]["curve"]] for each in (whole, parts)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("schema", [SharedSettings, NamesSettings, PretrainSettings])
@pytest.mark.parametrize("shape, kind", [(PICTURES, "video"), (LATENTS, "latent")])
@pytest.mark.parametrize("mask", [0.0, 0.5, 0.75])
def test_base_fits_24_gb_and_small_sizes_are_whole(schema, shape, kind, mask):
    settings = replace(schema(size="base"), mask=mask or 0.01)
    config = scratch_config("base", shape, kind)
    slices = parts_of(config, settings, 256)
    covered = [place for part in slices for place in range(256)[part]]
    assert covered == list(range(256)) and len(slices) > 1
    hidden, layers = config.hidden_size, config.num_hidden_layers
    weights = 6 * layers * 12 * hidden * hidden
    at_once = len(range(256)[slices[0]])
    alive = KEPT["float32"] * at_once * values_of_clip(config, settings) + weights
    assert 4 * alive < 20e9
    for size in ("small", "tiny", "nano"):
        small = scratch_config(size, shape, kind)
        assert parts_of(small, replace(settings, size=size), 256) == [slice(0, 256)]
    assert clips_at_once(config, GridSettings()) == 4
