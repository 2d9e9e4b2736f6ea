"""The sampler: prompts → latents of videos, with the predicted x0 of every step handed out on the
way.

Names: latents = x_t, noise = the guided epsilon, x0 = the finished video that the sampler predicts
at a step: x0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t), all [B, C, F, h, w] (video, channel,
frame, height, width).
"""

import torch


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
):
    """Latents [B, C, F, h, w] of one batch of prompts (height, width in pixels).

    Each prompt has its own noise, from its own seed, so a batch gives what its prompts give alone
    (to float tolerance). on_step(step, timestep, x0, latents) is called after every step with x0
    and latents [B, C, F, h, w]. It may return the positions in this batch to go on with, in order:
    the others are dropped, later steps and the result have the remaining videos only, and with none
    left sampling ends. safe_guidance: a SafeGuidance or None.
    """
    # 1. Words → embeddings [passes, B, tokens, width]: of the negatives, the prompts, the concept
    # to keep away from
    guided = guidance_scale > 1
    texts = [negatives, prompts] if guided else [prompts]
    if safe_guidance:
        texts.append([safe_guidance.concept] * len(prompts))
    text = torch.stack([encode(model, part) for part in texts])

    # 2. Seeds → noise
    latents = initial_noise(model, seeds, frames, height, width) * model.scheduler.init_noise_sigma
    momentum = torch.zeros_like(latents)  # of safe guidance

    # 3. Noise → latents
    model.scheduler.set_timesteps(steps, device=model.device)
    on_device = model.scheduler.timesteps
    for step, timestep in enumerate(
        on_device.tolist()
    ):  # numbers for the scheduler: no wait for the GPU at every step
        passes = torch.cat([latents] * len(text))
        words = text.flatten(0, 1).repeat_interleave(
            frames, dim=0
        )  # one text a frame: [passes * B * F, tokens, width]
        noise = model.unet(passes, on_device[step], encoder_hidden_states=words).sample
        if guided:
            unconditional, conditional, *concept = noise.chunk(len(text))
            direction = conditional - unconditional
            if safe_guidance:
                away, momentum = safe_guidance(step, unconditional, conditional, *concept, momentum)
                direction = direction - away
            noise = unconditional + guidance_scale * direction
        result = model.scheduler.step(noise, timestep, latents)
        latents, x0 = result.prev_sample, result.pred_original_sample
        if x0_mode == "released":
            x0 = released_x0(model.scheduler, noise, timestep, latents)
        keep = on_step(step, timestep, x0, latents) if on_step else None
        if keep is not None and len(keep) < len(latents):
            latents, text, momentum = latents[keep], text[:, keep], momentum[keep]
            if not len(keep):
                break
    return latents


def released_x0(scheduler, noise, timestep, latents):
    """What the paper's released code recorded as x0: the prediction of a second scheduler call on
    the latents that the step has already updated. Kept for people with old recordings; the usual
    way is the step's own pred_original_sample."""
    return scheduler.step(noise, timestep, latents).pred_original_sample


def encode(model, texts):
    """[N, tokens, width] of a list of texts: cut or padded to the encoder's length, no attention
    mask (as in SD 1.5)."""
    length = model.text_encoder.config.max_position_embeddings
    ids = model.tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return model.text_encoder(ids.to(model.device))[0]


def initial_noise(model, seeds, frames, height, width):
    """[B, C, F, h, w]: one draw (1, C, F, h, w) per seed from a generator of the sampling device,
    as the original makes it, so published seeds give the published noise. Drawn in float32 whatever
    the model's dtype: the same video in all."""
    shape = (
        1,
        model.unet.config.in_channels,
        frames,
        height // model.latent_factor,
        width // model.latent_factor,
    )
    draws = []
    for seed in seeds:
        generator = torch.Generator(model.device).manual_seed(seed)
        draws.append(torch.randn(shape, generator=generator, device=model.device))
    return torch.cat(draws).to(model.unet.dtype)


@torch.inference_mode()
def decode(vae, latents, chunk=None, device=None):
    """Latents [..., C, F, h, w] → pixels [..., 3, F, H, W] in [0, 1]; frame by frame, `chunk`
    frames at a time (default: 16 up to 128 x 128 pixels, else 2, so that 512 x 512 fits modest
    GPUs). `device`: where, if the VAE visits it only when called."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    chunk = chunk or (16 if max(latents.shape[-2:]) * factor <= 128 else 2)
    frames = (
        latents.movedim(-3, -4).flatten(0, -4).to(device or vae.device, vae.dtype)
    )  # [N, C, h, w]
    frames = frames / vae.config.scaling_factor
    pixels = torch.cat([vae.decode(part).sample for part in frames.split(chunk)])
    pixels = (pixels / 2 + 0.5).clamp(0, 1)
    return pixels.unflatten(0, (*latents.shape[:-4], latents.shape[-3])).movedim(-4, -3)


def to_bytes(pixels):
    """Pixels [3, F, H, W] in [0, 1] → uint8 [F, H, W, 3] on the CPU, truncated as in the original."""
    return (pixels * 255).to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()
