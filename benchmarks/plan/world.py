"""Random weights of a size in the real file layouts, and what is sampled with them."""

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from benchmarks.common import full_size
from benchmarks.gpu.model import SCHEDULER, TOKENIZER, Sizes
from lvd.detectors.videomae import BASE_MODEL
from lvd_plan.random_models import filled
from MagicTime.prepare_weights.tiny.export import BASE, MOTION_FILE, write_base, write_motion

DENOISING = 12  # steps of a video at full size: enough to see what one costs
TRAINED_STEP = 0  # whose video clips are built and trained on


@dataclass(frozen=True)
class World:
    """Files to sample, build and train with.

    Attributes:
        folder: where everything lies.
        sizes: benchmarks.gpu.model.Sizes.
        dtype: of the sampler.
        videos: unsafe ones, and as many normal ones.
        steps: denoising steps of a video.
    """

    folder: Path
    sizes: Sizes
    dtype: str
    videos: int
    steps: int

    @property
    def sampling(self):
        """Path of the sampling YAML."""
        return self.folder / "sampling.yaml"

    def prompts(self, kind):
        """Path of the prompts of "unsafe" or "normal" videos."""
        return self.folder / f"{kind}.txt"

    def config(self, representation):
        """Path of the file like build_x0.yaml of "latent" or "video" clips."""
        return self.folder / f"{representation}.yaml"

    def home(self, representation):
        """Folder of the results of a representation."""
        return self.folder / representation

    def training(self, size):
        """Path of the file like train_mae.yaml of a size."""
        return self.folder / f"train_{size}.yaml"

    @property
    def small(self):
        """The largest of the small sizes of detectors."""
        return self.sizes.detectors[-1]


def make_world(folder, sizes, device, dtype):
    """Write weights, prompts, labels and configs; returns the World."""
    videos = 6 if sizes.is_smoke else 8
    world = World(folder, sizes, dtype, videos, 3 if sizes.is_smoke else DENOISING)
    _write_weights(world, device)
    for kind in ("unsafe", "normal"):
        lines = [f"{kind} video {row} of a circle that moves up" for row in range(videos)]
        world.prompts(kind).write_text("\n".join(lines) + "\n")
    (folder / "label.csv").write_text("\n".join(["odd", *map(str, range(videos))]) + "\n")
    write_sampling(world, world.sampling, dtype)
    for representation in ("latent", "video"):
        _write(_data_config(world, representation), world.config(representation))
    base = {"size": "base", "base_model": str(folder / BASE_MODEL), "workers": 1}
    _write({**base, "epoch": 2 if sizes.is_smoke else 25}, world.training("base"))
    shared = {"epoch": 2 if sizes.is_smoke else 60}
    _write({"size": world.small, "shared": shared}, world.training(world.small))
    return world


def write_sampling(world, path, dtype):
    """Write a sampling YAML that computes in a dtype."""
    video = world.sizes.video
    model = {
        "pretrained_model_path": str(world.folder / BASE),
        "motion_module": str(world.folder / MOTION_FILE),
        "H": video["height"],
        "W": video["width"],
        "L": video["frames"],
        "steps": world.steps,
        "guidance_scale": full_size.GUIDANCE_SCALE,
        "seed": [2024],
        "n_prompt": [""],
        "dtype": dtype,
    }
    scheduler = {"noise_scheduler_kwargs": SCHEDULER}
    _write([model, scheduler], path)


def _data_config(world, representation):
    home = world.home(representation)
    return {
        "sample_config": str(world.sampling),
        "pred_x0": str(world.folder / "unsafe" / "pred_x0.pth"),
        "normal_pred_x0": str(world.folder / "normal" / "pred_x0.pth"),
        "label_file_dir": str(world.folder / "label.csv"),
        "out_dir": str(home / "train_detector_data"),
        "representation": representation,
    }


def _write_weights(world, device):
    """Write Stable Diffusion's folder, the motion module, and a VideoMAE to start from."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        VideoMAEConfig,
        VideoMAEForVideoClassification,
    )

    from MagicTime.utils.weights.motion_unet import make_motion_unet

    sizes, folder = world.sizes, world.folder
    torch.manual_seed(0)
    unet = filled(lambda: UNet2DConditionModel.from_config(sizes.unet), device, torch.float16)
    vae = filled(lambda: AutoencoderKL.from_config(sizes.vae), device, torch.float16)
    text = CLIPTextConfig(vocab_size=49408, max_position_embeddings=full_size.TOKENS, **sizes.text)
    write_base(folder / BASE, TOKENIZER / "tokenizer", vae, unet, CLIPTextModel(text))
    motion = filled(lambda: make_motion_unet(sizes.unet), device, torch.float16)
    _restore_positions(motion)
    write_motion(folder / MOTION_FILE, motion)
    small = {"image_size": sizes.pixels, "num_frames": sizes.latents[1], **sizes.base}
    config = VideoMAEConfig(**(small if sizes.is_smoke else {}))
    VideoMAEForVideoClassification(config).save_pretrained(folder / BASE_MODEL)


def _restore_positions(unet):
    """Tables of positions are computed, and refused where they say something else."""
    from diffusers.models.embeddings import SinusoidalPositionalEmbedding

    for module in unet.modules():
        if isinstance(module, SinusoidalPositionalEmbedding):
            length, width = module.pe.shape[1:]
            module.pe.copy_(SinusoidalPositionalEmbedding(width, length).pe)


def _write(content, path):
    path.write_text(yaml.safe_dump(content))
