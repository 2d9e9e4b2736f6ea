"""MagicTime at the size of Stable Diffusion 1.5, without its weights: shapes, and a random UNet.

One video has 16 frames of 512 x 512 pixels and 50 guided denoising steps. What such a step costs
does not hang on the values of the weights, so small random ones stand for the real ones.
"""

import torch

from benchmarks.common.report import Report
from benchmarks.common.results import results_path
from benchmarks.common.timing import Clock
from lvd.utils.progress import progress
from lvd_plan.flops import TOKENS
from lvd_plan.models import UNET

STEPS = 50  # denoising steps of a video
LATENTS = (4, 16, 64, 64)  # of one video: channels, frames, height, width
PIXELS = (3, 16, 512, 512)  # of the decoded video
GUIDANCE_SCALE = 8.5


def add_full_flags(parser):
    """Add `--full` and `--dtype`."""
    parser.add_argument("--full", action="store_true", help="measure full size instead of Tiny")
    parser.add_argument(
        "--dtype", help="of the full-size UNet (default: float16 on a GPU, bfloat16 on a CPU)"
    )


def measure_either(args, tiny, full):
    """Measure Tiny, or with --full the full size, and save the figures.

    tiny, full: (title, result file, function of (args, report)).
    """
    title, result_file, measure = full if args.full else tiny
    report = Report(title, results_path(args, result_file))
    measure(args, report)
    report.say_where()


def random_unet(config, device, dtype):
    """MagicTime's UNet with small random weights, made in seconds: nothing is initialised twice."""
    from MagicTime.utils.weights.motion_unet import make_motion_unet

    with torch.device("meta"):
        unet = make_motion_unet(config)
    torch.nn.Module.to(unet, dtype)  # diffusers' own `to` warns of modules that it has none of
    unet = unet.to_empty(device=device).requires_grad_(False).eval()
    for tensor in (*unet.parameters(), *unet.buffers()):
        tensor.normal_(std=0.02)
    return unet


def measure_steps(device, dtype, count):
    """Time guided denoising steps of one video by a random UNet, without recording or guard.

    Args:
        device: torch.device.
        dtype: name of the UNet's dtype, or None: float16 on a GPU, bfloat16 on a CPU.
        count: steps to time on a GPU, where two more warm up; on a CPU one step is timed.

    Returns:
        (seconds of each step, what was measured in words).
    """
    on_gpu = device.type == "cuda"
    dtype = dtype or ("float16" if on_gpu else "bfloat16")
    with Clock(device) as making:
        unet = random_unet(UNET, device, getattr(torch, dtype))
    parameters = sum(weight.numel() for weight in unet.parameters()) / 1e6
    warm_up = 2 if on_gpu else 0
    seconds = guided_steps(unet, LATENTS, warm_up + count if on_gpu else 1)[warm_up:]
    note = (
        f"one guided UNet step of one video on {device.type} in {dtype}, {list(LATENTS)} latents, "
        f"{parameters:.0f} M random parameters (made in {making.seconds:.0f} s)"
    )
    return seconds, note


@torch.inference_mode()
def guided_steps(unet, latent_shape, count):
    """Seconds of `count` guided denoising steps of one video: two UNet passes and the scheduler."""
    from diffusers import DDIMScheduler

    device, dtype = unet.device, unet.dtype
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(STEPS, device=device)
    text_shape = (2 * latent_shape[1], TOKENS, unet.config.cross_attention_dim)
    text = torch.randn(text_shape, device=device, dtype=dtype)
    latents = torch.randn(1, *latent_shape, device=device, dtype=dtype)
    seconds = []
    for timestep in progress(scheduler.timesteps[:count], "steps"):
        with Clock(device) as clock:
            both = unet(torch.cat([latents, latents]), timestep, encoder_hidden_states=text).sample
            unconditional, conditional = both.chunk(2)
            noise = unconditional + GUIDANCE_SCALE * (conditional - unconditional)
            latents = scheduler.step(noise, timestep, latents).prev_sample
        seconds.append(clock.seconds)
    return seconds
