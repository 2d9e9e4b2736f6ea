"""Where size base starts: what cannot be loaded is said at once, in one line with the flag."""

import os
import subprocess
import sys

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from lvd.detectors.detector import build_detector
from lvd.errors import InputError
from tests.worlds.magictime_world import ROOT

LATENT = (4, 8, 8, 8)
NAME = "MCG-NJU/videomae-base"
TRY = f"""
import time
time.sleep = lambda seconds: print("slept")  # as retries do, between two tries
from lvd.detectors.detector import build_detector
print(build_detector("base", {LATENT}, "latent", 0, base_model="{NAME}").model.config.patch_size)
"""


def started(cache, **environment):
    """Start a process with a cache of its own that cannot reach a hub; no proxy stands between."""
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    kept |= {"HF_HOME": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9", **environment}
    return subprocess.run(
        [sys.executable, "-c", TRY], cwd=ROOT, env=kept, capture_output=True, text=True
    )


@pytest.mark.parametrize("offline, said", [("0", "is not reached"), ("1", "HF_HUB_OFFLINE is set")])
def test_without_the_hub(tmp_path, offline, said):
    """The hub is asked once: retries take half a minute."""
    done = started(tmp_path, HF_HUB_OFFLINE=offline)
    assert "slept" not in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"lvd.errors.InputError: --base_model {NAME}: cannot be loaded")
    assert said in last and "give --base_model FOLDER, or set HF_HOME" in last
    assert last.endswith(")") and len(last) < 300


def test_a_model_in_the_cache_needs_no_hub(tmp_path):
    snapshot = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}" / "snapshots" / ("c0" * 20)
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = VideoMAEConfig(intermediate_size=64, image_size=64, **sizes)
    VideoMAEForVideoClassification(config).save_pretrained(snapshot)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text(snapshot.name)
    assert started(tmp_path).stdout == "2\n"


@pytest.mark.parametrize(
    "files, said",
    [
        (None, "no such folder, and no name of the hub"),
        ({}, "no file named model.safetensors"),
        ({"config.json": b"{}"}, "model.safetensors"),
        ({"config.json": b"no JSON"}, "config file"),
        ({"config.json": b"{}", "model.safetensors": b"xx"}, "header too small"),
    ],
)
def test_a_folder_that_holds_no_model(tmp_path, files, said):
    folder = tmp_path / "base" / "model"
    if files is not None:
        folder.mkdir(parents=True)
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"--base_model .*{said}") as error:
        build_detector("base", LATENT, "latent", 3, base_model=str(folder))
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_weights_are_float32_whatever_the_defaults(tmp_path):
    config = VideoMAEConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64
    )
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path)
    try:
        torch.set_default_dtype(torch.float64)
        found = build_detector("base", LATENT, "latent", 0, base_model=str(tmp_path)).model
    finally:
        torch.set_default_dtype(torch.float32)
    assert {weight.dtype for weight in found.parameters()} == {torch.float32}
