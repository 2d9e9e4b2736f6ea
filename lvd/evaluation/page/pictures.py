"""Small frames of x0, all of one video in one picture: a line for each step, a cell for each frame.

The cells are whole blocks of 8 x 8 px, which JPEG compresses one by one: no cell colours another.
"""

import io
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange

BLOCK = 8  # px of JPEG's blocks
QUALITY = 75
BYTES_PER_PIXEL = 0.47  # of such pictures, measured on the tiny world
MOST_STEPS = 50
SIDES = (32, 16, 8)  # px of a frame, at most
FRAMES = (8, 4, 2, 1)


@dataclass(frozen=True)
class Cells:
    """What is shown of each video.

    Attributes:
        steps, frames: numbers of those shown.
        height, width: of a frame, in px.
    """

    steps: list
    frames: list
    height: int
    width: int

    @property
    def cell(self):
        """Height and width of a cell, whole blocks."""
        return tuple(-(-size // BLOCK) * BLOCK for size in (self.height, self.width))

    @property
    def bytes(self):
        """About how large the picture of a video is."""
        height, width = self.cell
        return len(self.steps) * len(self.frames) * height * width * BYTES_PER_PIXEL


def cells_for(shape, videos, limit):
    """Choose what is shown of each video, so that all pictures together keep a limit.

    Args:
        shape: [S, C, F, h, w] of a video's x0.
        videos: how many there are.
        limit: bytes of all their pictures.

    Returns:
        The Cells of the largest frames, and of the most of them, that are within the limit; the
        smallest ones where none is.
    """
    steps, _, frames, height, width = shape
    shown_steps = spread(steps, MOST_STEPS)
    for side, count in product(SIDES, FRAMES):
        scale = min(1, side / max(height, width))
        size = (max(1, round(scale * height)), max(1, round(scale * width)))
        cells = Cells(shown_steps, spread(frames, count), *size)
        if videos * cells.bytes <= limit:
            break
    return cells


def spread(count, most):
    """Return at most `most` of the numbers 0 to count - 1, evenly spread; with the first one."""
    if count <= most:
        return list(range(count))
    return [place * count // most for place in range(most)]


def picture(x0, rgb, cells):
    """Draw the x0 of one video.

    Args:
        x0: [S, C, F, h, w], which may be mapped: only what is shown is read.
        rgb: lvd.data.rgb.LatentToRGB.
        cells: Cells.

    Returns:
        The bytes of a JPEG file.
    """
    from PIL import Image

    latents = torch.stack([x0[step][:, cells.frames] for step in cells.steps]).float()
    colours = rgb(latents.nan_to_num(0.0, 0.0, 0.0))
    frames = rearrange((colours / 2 + 0.5).clamp(0, 1), "s c f h w -> (s f) c h w")
    if frames.shape[-2:] != (cells.height, cells.width):
        frames = F.interpolate(frames, (cells.height, cells.width), mode="area")
    height, width = cells.cell
    margins = (0, width - cells.width, 0, height - cells.height)
    frames = F.pad(frames, margins, mode="replicate")
    pixels = rearrange(frames, "(s f) c h w -> (s h) (f w) c", f=len(cells.frames))
    memory = io.BytesIO()
    image = Image.fromarray((255 * pixels).round().byte().numpy())
    image.save(memory, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return memory.getvalue()
