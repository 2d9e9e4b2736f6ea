"""From predicted x0 to what a detector reads: decoded, rounded as on the disk, resized, normalised.

The order is the same for recordings, folders of clips, votes on recordings and the live guard, so
that all of them see the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange

from lvd.errors import InputError


@dataclass(frozen=True)
class ClipSpec:
    """What clips are made of x0.

    Args:
        representation: "latent", "rgb" or "video".
        decode: float32 latents [n, C, F, h, w] → clips [n, 3, F, H, W] (rgb: about -1 to 1; video:
            0 to 1). None where nothing is to decode.
        model: the VideoMAEConfig whose frames and size the clips get. None: they keep their own.
    """

    representation: str
    decode: Callable | None = None
    model: Any = None


def prepare_clips(x0, spec, check=None):
    """Make the clips that a detector reads.

    First the latents are decoded, in float32. Then the clips are rounded to what a folder of clips
    stores: float16, or 8 bits a pixel for videos. Only then they are resized, in float32, and
    rounded to float16.

    Args:
        x0: latents [n, C, F, h, w], recorded or live; or clips as a folder stores them.
        spec: a ClipSpec.
        check: called with the clips before they are resized; it raises what is wrong with them.

    Returns:
        float16 [n, C', F', H', W'].
    """
    with torch.autocast(x0.device.type, enabled=False):  # whatever a caller's pipeline runs under
        clips = spec.decode(x0.float()) if spec.decode else x0
        clips = _round_as_stored(clips, spec.representation)
        if check:
            check(clips)
        if spec.model is not None:
            clips = resize_clips(clips, spec.model)
        return clips.half()


def _round_as_stored(clips, representation):
    if representation != "video":
        return clips.half()
    return from_uint8(clips if clips.dtype == torch.uint8 else to_uint8(clips))


def to_uint8(pixels):
    """Pixels in [0, 1], any shape → uint8 on the CPU, truncated as in the released code."""
    return (pixels.detach().float().clamp(0, 1) * 255).to("cpu", torch.uint8)


def from_uint8(pixels):
    """uint8 → float32 pixels in [0, 1]."""
    return pixels.float() / 255


def resize_clips(clips, config):
    """Give clips the frames and the size that a model takes.

    Frames are chosen evenly (and repeated when the model takes more than there are); pictures are
    resized bilinearly, with antialiasing.

    Args:
        clips: [N, C, F, H, W].
        config: the model's VideoMAEConfig.

    Returns:
        [N, C, F', H', W']: float32 where the size changed, else of the clips' own type.

    Raises:
        InputError: clips of other channels than the model's.
    """
    if clips.dim() != 5 or clips.shape[1] != config.num_channels:
        raise InputError(
            f"the detector takes clips of {config.num_channels} channels, found clips of shape "
            f"{list(clips.shape[1:])}"
        )
    frames = config.num_frames
    if clips.shape[2] != frames:
        # The middle of each of `frames` equal parts, in whole numbers.
        chosen = [(2 * k + 1) * clips.shape[2] // (2 * frames) for k in range(frames)]
        clips = clips[:, :, torch.tensor(chosen, dtype=torch.long, device=clips.device)]
    size = input_size(config)
    if tuple(clips.shape[3:]) != size:
        pictures = rearrange(clips.float(), "n c f h w -> (n f) c h w")
        pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True)
        clips = rearrange(pictures, "(n f) c h w -> n c f h w", f=frames)
    return clips


def normalise(clips, mean, std, at=None):
    """Subtract a mean and divide by a standard deviation, each of one channel.

    Args:
        clips: [..., C, F, H, W].
        mean, std: [C], or [..., C] with leading dimensions that broadcast; lists or tensors.
        at: for clips [N, C, F, H, W] of several steps: [N] positions of their steps in mean and
            std, which are then [S, C].

    Returns:
        float32 [..., C, F, H, W].
    """
    mean = torch.as_tensor(mean, dtype=torch.float32, device=clips.device)
    std = torch.as_tensor(std, dtype=torch.float32, device=clips.device)
    if at is not None:
        mean, std = mean[at], std[at]
    return (clips.float() - mean[..., None, None, None]) / std[..., None, None, None]


def input_size(config):
    """(height, width) that a model takes, of its VideoMAEConfig."""
    size = config.image_size
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)


def need_finite(clips, name_of):
    """Refuse clips with a value that is not finite.

    Args:
        clips: [n, ...].
        name_of: function of a clip's number → what a message calls it.

    Raises:
        InputError: naming the first such clip.
    """
    # The extremes pass NaN on, and finding them is ten times as fast as looking at each value.
    if all(map(torch.isfinite, clips.aminmax())):
        return
    for number, clip in enumerate(clips):
        if not torch.isfinite(clip).all():
            raise InputError(f"{name_of(number)}: holds values that are not finite")
