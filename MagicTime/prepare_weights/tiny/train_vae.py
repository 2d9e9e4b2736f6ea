"""Stage 1: the tiny AutoencoderKL (factor 8, 4 latent channels), trained on drawn frames."""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from einops import rearrange

from MagicTime.prepare_weights.tiny.training import train_stage
from MagicTime.prepare_weights.tiny.world import CATEGORIES, FRAMES, random_scene, render

SCALING = 0.18215  # Stable Diffusion 1.5's; the latents are rescaled so that it is right here too
CONFIG = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    sample_size=64,
    norm_num_groups=8,
    layers_per_block=1,
    block_out_channels=(8, 16, 32, 64),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    scaling_factor=SCALING,
)


def draw_effects(rng, none=0.3, two=0.2):
    """Draw no effect, one, or two of the five, as a tuple in the order of CATEGORIES."""
    u = rng.random()
    count = 1
    if u < none:
        count = 0
    elif u > 1 - two:
        count = 2
    drawn = rng.choice(CATEGORIES, count, replace=False).tolist()
    return tuple(sorted(drawn, key=CATEGORIES.index))


def to_pixels(frames):
    """Turn frames, uint8 [..., H, W, 3], into pixels [..., 3, H, W] in [-1, 1]."""
    pixels = rearrange(torch.from_numpy(frames).float(), "... h w c -> ... c h w")
    return pixels / 127.5 - 1


def train_vae(out, steps, seed, batch=32):
    """Train the VAE on drawn frames; its latents have mean 0 and variance 1 when scaled."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(**CONFIG).to(memory_format=torch.channels_last)

    def loss_of(step, rng):
        frames = []
        for _ in range(batch // 2):  # two frames of each scene
            clip = render(random_scene(rng, draw_effects(rng), grows=rng.random() < 0.12))
            frames.append(clip[rng.choice(FRAMES, 2, replace=False)])
        x = torch.cat([to_pixels(f) for f in frames]).contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
        return (
            F.l1_loss(y, x)
            + F.mse_loss(y, x)
            + 0.5 * _edges(y, x)
            + 1e-5 * posterior.kl().mean() / 256
        )

    train_stage("vae", out, vae, steps, loss_of, lr=2e-3, seed=seed, ema=0.998)
    return _normalise(vae, seed)


def _edges(y, x):
    """L1 between the images' horizontal and vertical differences: keeps outlines sharp."""
    return F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(y.diff(dim=-2), x.diff(dim=-2))


@torch.no_grad()
def _normalise(vae, seed):
    """Shift and scale the latent channels inside the 1x1 convs: mean 0, std 1 / SCALING each."""
    from MagicTime.prepare_weights.tiny.training import step_rng

    rng = step_rng(seed, "normalise", 0)
    clips = [render(random_scene(rng, draw_effects(rng))) for _ in range(64)]
    z = torch.cat([vae.encode(to_pixels(c)).latent_dist.mean for c in clips])
    mean = z.mean((0, 2, 3))
    gain = 1 / (SCALING * z.std((0, 2, 3)))
    quant = vae.quant_conv
    post = vae.post_quant_conv
    quant.weight[:4] *= gain[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) * gain
    quant.bias[4:] += 2 * gain.log()  # the log-variance half follows the mean half
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight /= gain[None, :, None, None]
    return vae.eval().requires_grad_(False)
