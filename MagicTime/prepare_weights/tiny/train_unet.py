"""Stages 2 and 3: the 2D UNet and text encoder on single frames, then motion modules on clips.

What stage 2 learns becomes the base folder; what stage 3 makes of it becomes the DreamBooth file
(UNet, text encoder) and motion_module.ckpt.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import nn

from lvd.utils.files import save_torch
from lvd.utils.progress import progress
from MagicTime.prepare_weights.tiny.text import token_ids
from MagicTime.prepare_weights.tiny.train_vae import SCALING, draw_effects, to_pixels
from MagicTime.prepare_weights.tiny.training import processes, train_stage
from MagicTime.prepare_weights.tiny.world import FRAMES, caption, random_scene, render
from MagicTime.utils.weights.motion_unet import make_motion_unet, silence_motion

UNET = dict(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    layers_per_block=1,
    block_out_channels=(32, 64, 96),
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    cross_attention_dim=64,
    attention_head_dim=4,
    norm_num_groups=32,
)
NOISE = dict(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="linear",
    steps_offset=1,
    clip_sample=False,
)
NO_CAPTION = 0.1  # share of captions dropped, for classifier-free guidance


class Clips:
    """Scenes and their latents [N, F, 4, 8, 8] (scaled: unit variance), drawn once and kept."""

    def __init__(self, path, vae, count, seed, grows):
        rng = np.random.default_rng([seed, count, int(grows)])
        self.scenes = [
            random_scene(rng, () if grows else draw_effects(rng, none=0.4, two=0.15), grows=grows)
            for _ in range(count)
        ]
        if not Path(path).exists():
            with torch.inference_mode():
                z = [
                    vae.encode(to_pixels(render(s))).latent_dist.mean * SCALING
                    for s in progress(self.scenes, "latents", unit="clip")
                ]
            save_torch(torch.stack(z), path)
        self.latents = torch.load(path, weights_only=True)

    def captions(self, rows, rng):
        return [caption(self.scenes[r], rng) if rng.random() >= NO_CAPTION else "" for r in rows]


class Denoiser(nn.Module):
    """UNet and text encoder, trained together on the guided sampler's noise prediction."""

    def __init__(self, unet, text_encoder, tokenizer):
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        self.tokenizer = tokenizer
        self.register_buffer(
            "alphas_cumprod", DDIMScheduler(**NOISE).alphas_cumprod, persistent=False
        )

    def loss(self, z, texts, rng):
        """Compute the noise-prediction error, weighted by min-SNR (arXiv 2303.09556, eq. 5).

        Args:
            z: clean latents [N, 4, 8, 8] or [N, 4, F, 8, 8].
            texts: [caption] of length N.
            rng: numpy Generator.

        Returns:
            The mean squared error, weighted by min(SNR, 5) / SNR.
        """
        t = torch.from_numpy(rng.integers(0, len(self.alphas_cumprod), len(z)))
        abar = self.alphas_cumprod[t].view(-1, *[1] * (z.dim() - 1))
        noise = torch.randn_like(z)
        words = self.text_encoder(token_ids(self.tokenizer, texts)).last_hidden_state
        if z.dim() == 5:
            words = words.repeat_interleave(z.shape[2], dim=0)  # one row a frame
        predicted = self.unet(abar.sqrt() * z + (1 - abar).sqrt() * noise, t, words).sample
        snr = abar / (1 - abar)
        return (torch.clamp(5 / snr, max=1) * (predicted - noise) ** 2).mean()


def train_images(out, clips, tokenizer, text_encoder, steps, seed, batch=96):
    """Stage 2: single frames."""
    torch.manual_seed(seed)
    model = Denoiser(UNet2DConditionModel(**UNET), text_encoder, tokenizer)

    def loss_of(step, rng):
        rows = rng.integers(0, len(clips.scenes), batch // processes()[1])
        z = clips.latents[rows, rng.integers(0, FRAMES, len(rows))]
        return model.loss(z, clips.captions(rows, rng), rng)

    return train_stage("image", out, model, steps, loss_of, lr=2e-3, seed=seed)


def clip_loss(model, clips, batch):
    """Return loss_of(step, rng) over whole clips."""

    def loss_of(step, rng):
        rows = rng.integers(0, len(clips.scenes), batch // processes()[1])
        z = clips.latents[rows].transpose(1, 2)  # [N, 4, F, 8, 8]
        return model.loss(z, clips.captions(rows, rng), rng)

    return loss_of


def motion_denoiser(unet2d_state, text_encoder, tokenizer):
    """Make a Denoiser whose motion modules start inert (zero output projection)."""
    unet = make_motion_unet(UNET)
    missing, unexpected = unet.load_state_dict(unet2d_state, strict=False)
    if unexpected or any("motion_modules" not in k for k in missing):
        raise RuntimeError(f"2D weights do not fit: {unexpected[:3]} {missing[:3]}")
    return Denoiser(silence_motion(unet), text_encoder, tokenizer)


def train_clips(out, clips, image_model, tokenizer, steps, seed, batch=16):
    """Stage 3: motion modules, UNet and text encoder on clips."""
    torch.manual_seed(seed)
    model = motion_denoiser(image_model.unet.state_dict(), image_model.text_encoder, tokenizer)
    model.requires_grad_(True)
    return train_stage(
        "clip", out, model, steps, clip_loss(model, clips, batch), lr=1e-3, seed=seed
    )
