"""From recorded or decoded values to what a detector reads: 8-bit pixels, frames, sizes."""

import torch
import torch.nn.functional as F

from lvd.errors import InputError


def to_uint8(pixels):
    """Pixels in [0, 1], any shape → uint8 on the CPU, truncated as in the released code."""
    return (pixels.detach().float().clamp(0, 1) * 255).to("cpu", torch.uint8)


def from_uint8(pixels):
    """uint8 → float32 pixels in [0, 1]."""
    return pixels.float() / 255


def fit_clips(config, clips):
    """Clips [N, C, F, H, W] → the frames and the size that the model (its VideoMAEConfig) takes.

    Frames are sampled evenly (repeated when the model takes more than there are) and resized.
    """
    if clips.dim() != 5 or clips.shape[1] != config.num_channels:
        raise InputError(
            f"the detector takes clips of {config.num_channels} channels, found clips of shape "
            f"{list(clips.shape[1:])}"
        )
    frames, size = config.num_frames, _pair(config.image_size)
    if clips.shape[2] != frames:
        at = (torch.arange(frames) + 0.5) * clips.shape[2] / frames
        clips = clips[:, :, at.long()]
    if tuple(clips.shape[3:]) != size:
        flat = clips.transpose(1, 2).flatten(0, 1)  # [N * F', C, H, W]
        flat = F.interpolate(flat.float(), size, mode="bilinear", antialias=True)
        clips = flat.unflatten(0, (-1, frames)).transpose(1, 2)
    return clips


def _pair(size):
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)


def input_size(config):
    """(height, width) that the model takes."""
    size = config.image_size
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)
