"""The sampler: from prompts to latents of videos, handing out the predicted x0 of every step.

Names: latents is x_t; noise is the guided epsilon; x0 is the finished video that the sampler
predicts at a step: x0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t). All are [B, C, F, h, w]
(video, channel, frame, height, width).
"""

import torch
from einops import pack, rearrange, repeat, unpack

from MagicTime.utils.schedulers import alpha_bar_of, keep_videos, take_step


@torch.inference_mode()
def sample(
    model,
    prompts,
    negatives,
    seeds,
    frames,
    height,
    width,
    steps,
    guidance_scale,
    x0_mode="true",
    on_step=None,
    safe_guidance=None,
    on_guidance=None,
):
    """Sample one batch of prompts with classifier-free guidance, by the model's scheduler.

    Each prompt has its own noise, from its own seed, so a batch gives what its prompts give alone
    (to float tolerance).

    Args:
        model: MagicTime.utils.weights.load.MagicTime.
        prompts, negatives, seeds: lists of length B.
        frames, height, width: of the videos; height and width in pixels.
        steps: denoising steps.
        guidance_scale: w; guidance is off up to 1.
        x0_mode: "true", or "released" for what the paper's code recorded (`released_x0`), by DDIM.
        on_step: function (step, timestep, x0, latents), called after every step. It may return the
            places in this batch to go on with, in order: the others are dropped, and with none left
            sampling ends.
        safe_guidance: MagicTime.utils.safe_guidance.SafeGuidance, or None.
        on_guidance: function (step, direction), called before on_step. The direction
            [B, C, F, h, w] is where the prompt pulls x0: x0 by the prompt minus x0 by the negative
            prompt. Guidance must be on.

    Returns:
        Latents [B, C, F, h, w] of the videos that were not dropped.
    """
    # 1. Words → embeddings [passes, B, tokens, width]: of the negatives, the prompts and the
    # concept to keep away from
    guided = guidance_scale > 1
    texts = [negatives, prompts] if guided else [prompts]
    if safe_guidance:
        texts.append([safe_guidance.concept] * len(prompts))
    text = torch.stack([encode(model, part) for part in texts])

    # 2. Seeds → noise
    scheduler = model.scheduler
    scheduler.set_timesteps(steps, device=model.device)
    generators = [torch.Generator(model.device).manual_seed(seed) for seed in seeds]
    latents = draw_noise(model, generators, frames, height, width) * scheduler.init_noise_sigma
    momentum = torch.zeros_like(latents)  # of safe guidance

    # 3. Noise → latents
    on_device = scheduler.timesteps
    # The scheduler takes numbers: so no step waits for the GPU.
    for step, timestep in enumerate(on_device.tolist()):
        passes = torch.cat([scheduler.scale_model_input(latents, timestep)] * len(text))
        # one text a frame
        words = repeat(text, "passes b tokens width -> (passes b f) tokens width", f=frames)
        noise = model.unet(passes, on_device[step], encoder_hidden_states=words).sample
        if guided:
            unconditional, conditional, *concept = noise.chunk(len(text))
            direction = conditional - unconditional
            if on_guidance:
                on_guidance(step, x0_difference(scheduler, direction, step, timestep))
            if safe_guidance:
                away, momentum = safe_guidance(step, unconditional, conditional, *concept, momentum)
                direction = direction - away
            noise = unconditional + guidance_scale * direction
        latents, x0 = take_step(scheduler, noise, timestep, latents, generators)
        if x0_mode == "released":
            x0 = released_x0(scheduler, noise, timestep, latents)
        keep = on_step(step, timestep, x0, latents) if on_step else None
        if keep is not None and len(keep) < len(latents):
            latents, text, momentum = latents[keep], text[:, keep], momentum[keep]
            generators = [generators[place] for place in keep]
            keep_videos(scheduler, keep)
            if not len(keep):
                break
    return latents


def x0_difference(scheduler, difference, step, timestep):
    """Turn the difference of two predictions of the UNet into the difference of their x0.

    Both are of the same x_t, which falls out: x0 is linear in the prediction. Clipping, where the
    scheduler clips x0, is left out.

    Args:
        scheduler: its prediction_type says what the UNet predicts.
        difference: [B, C, F, h, w].
        step: its number, from 0.
        timestep: of the step.

    Returns:
        [B, C, F, h, w].
    """
    alpha_bar = alpha_bar_of(scheduler, step, timestep)
    slopes = {
        "epsilon": -(((1 - alpha_bar) / alpha_bar) ** 0.5) if alpha_bar else None,
        "v_prediction": -((1 - alpha_bar) ** 0.5),
        "sample": 1.0,
    }
    return slopes[scheduler.config.prediction_type] * difference


def released_x0(scheduler, noise, timestep, latents):
    """Predict x0 as the paper's released code recorded it.

    It called the scheduler a second time, on latents that the step has already updated. Kept for
    people with old recordings; the usual x0 is the step's own pred_original_sample.

    Args:
        scheduler: DDIMScheduler.
        noise: [B, C, F, h, w].
        timestep: of the step.
        latents: [B, C, F, h, w] after the step.

    Returns:
        x0 [B, C, F, h, w].
    """
    return scheduler.step(noise, timestep, latents).pred_original_sample


def encode(model, texts):
    """Encode N texts, cut or padded to the encoder's length, as Stable Diffusion 1.5 does.

    Returns:
        [N, tokens, width]. There is no attention mask.
    """
    length = model.text_encoder.config.max_position_embeddings
    ids = model.tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return model.text_encoder(ids.to(model.device))[0]


def initial_noise(model, seeds, frames, height, width):
    """Draw the noise of B videos, each from its own seed; see `draw_noise`."""
    generators = [torch.Generator(model.device).manual_seed(seed) for seed in seeds]
    return draw_noise(model, generators, frames, height, width)


def draw_noise(model, generators, frames, height, width):
    """Draw the noise of B videos, each from its own generator.

    It is drawn on the sampling device, as MagicTime does: published seeds give the published noise.
    It is drawn in float32 whatever the model's dtype: a seed is the same video in all.

    Args:
        model: MagicTime.utils.weights.load.MagicTime.
        generators: [torch.Generator] of length B, on the model's device.
        frames, height, width: of the videos; height and width in pixels.

    Returns:
        [B, C, F, h, w] in the model's dtype.
    """
    shape = (
        1,
        model.unet.config.in_channels,
        frames,
        height // model.latent_factor,
        width // model.latent_factor,
    )
    draws = [torch.randn(shape, generator=each, device=model.device) for each in generators]
    return torch.cat(draws).to(model.unet.dtype)


@torch.inference_mode()
def decode(vae, latents, chunk=None, device=None, check=None):
    """Decode latents into pixels, each frame by itself.

    Args:
        vae: AutoencoderKL.
        latents: [..., C, F, h, w].
        chunk: frames decoded together. None: 16 up to 128 x 128 pixels, else 2, so that 512 x 512
            pixels fit modest GPUs.
        device: where to decode, if the VAE visits it only when called.
        check: called with the values [n, 3, H, W] before they are put into [0, 1], which would
            hide an infinite one.

    Returns:
        Pixels [..., 3, F, H, W] in [0, 1].
    """
    if chunk is None:
        pixels_per_latent = 2 ** (len(vae.config.block_out_channels) - 1)
        chunk = 16 if max(latents.shape[-2:]) * pixels_per_latent <= 128 else 2
    clips, batch_shape = pack([latents], "* c f h w")
    frames = rearrange(clips, "n c f h w -> (n f) c h w")
    frames = frames.to(device or vae.device, vae.dtype) / vae.config.scaling_factor
    pixels = torch.cat([vae.decode(part).sample for part in frames.split(chunk)])
    if check:
        check(pixels)
    pixels = (pixels / 2 + 0.5).clamp(0, 1)
    pixels = rearrange(pixels, "(n f) c h w -> n c f h w", f=clips.shape[2])
    (pixels,) = unpack(pixels, batch_shape, "* c f h w")
    return pixels


def to_bytes(pixels):
    """Turn pixels [3, F, H, W] in [0, 1] into uint8 [F, H, W, 3], truncated as in MagicTime."""
    return rearrange((pixels * 255).to(torch.uint8), "c f h w -> f h w c").cpu().numpy()
