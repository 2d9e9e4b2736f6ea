"""The list of weights that download.py loads, and the scripts that name parts of it."""

import os
import subprocess

import yaml

from MagicTime.prepare_weights import download
from MagicTime.prepare_weights.manifest import MANIFEST, read_manifest
from MagicTime.utils.config import WEIGHTS
from tests.worlds import magictime_world

CONFIGS = magictime_world.ROOT / "MagicTime" / "sample_configs"
REAL = ("RealisticVision.yaml", "ToonYou.yaml", "RcnzCartoon.yaml")


def test_the_manifest_covers_the_sample_configs():
    weights = read_manifest()
    for name in REAL:
        needed = {weight.name for weight in weights.values() if name in weight.needed_by}
        files = {
            file.here
            for weight in weights.values()
            if weight.name in needed
            for file in weight.files
        }
        settings = yaml.safe_load((CONFIGS / name).read_text())[0]
        paths = [settings[key].removeprefix("./ckpts/") for key in WEIGHTS]
        assert all(
            any(file == path or file.startswith(path + "/") for file in files) for path in paths
        )
        assert all(
            any(file == path or file.startswith(path + "/") for path in paths) for file in files
        )  # and nothing else
    for weight in weights.values():
        for file in weight.files:
            assert file.hash is None or len(file.hash) in (40, 64)
            assert not file.name.endswith((".safetensors", ".ckpt")) or len(file.hash) == 64


def test_the_scripts_of_the_original_names():
    """down_*.sh from inside MagicTime/ hand their weights and flags to download.py."""
    for script, weights in (
        ("down_base_model", "base motion"),
        ("down_dreambooth", "dreambooth"),
        ("down_magictime_module", "magic"),
        ("down_videomae", "videomae"),
    ):
        done = subprocess.run(
            ["sh", f"prepare_weights/{script}.sh", "--dry-run"],
            cwd=magictime_world.ROOT / "MagicTime",
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHON": "echo"},
        )
        assert done.stdout == f"prepare_weights/download.py --what {weights} --dry-run\n"


def test_the_manifest_is_the_default():
    assert download.build_parser().parse_args(["--what", "all"]).manifest == MANIFEST
