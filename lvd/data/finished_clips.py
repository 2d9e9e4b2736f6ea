"""The finished clips beside a recording: videos/{name}.mp4 or .gif, one for each row.

A row's name is the fact "video" of the sidecar; where it says none, it is the row in four digits.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange

from lvd.utils.video import read_mp4
from lvd.x0.sidecar import video_name

VIDEOS = "videos"  # the folder
CLIP_KINDS = {".mp4": "video/mp4", ".gif": "image/gif"}
BEGIN, GIFS = 8, (b"GIF87a", b"GIF89a")  # bytes that tell what a file is


def finished_clip(x0_file, row):
    """Return the path of a row's finished clip; None where there is none.

    Another file under a clip's name is none: whoever gets a page would get its content.

    Args:
        x0_file: lvd.x0.file.X0File.
        row: its number.
    """
    name = video_name(row, x0_file.info.get(row, {}))
    folder = x0_file.path.parent / VIDEOS
    paths = (folder / f"{name}{suffix}" for suffix in CLIP_KINDS)
    return next((path for path in paths if _is_clip(path)), None)


def _is_clip(path):
    """Tell whether a file begins as an mp4 or a GIF does."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        begin = file.read(BEGIN)
    return begin[4:] == b"ftyp" if path.suffix == ".mp4" else begin[:6] in GIFS


def pixels_like(path, shape):
    """Read a clip, averaged down to the sizes of latents.

    Video autoencoders such as Wan's make one latent frame of the first frame and one of every r
    frames after it; where the numbers fit, frames are averaged like this, else evenly.

    Args:
        path: of the clip.
        shape: (F, h, w) of the latents.

    Returns:
        float32 pixels [3, F, h, w], in [0, 1].

    Raises:
        InputError: the file is no readable video.
    """
    pixels = rearrange(torch.from_numpy(read_mp4(path)), "f h w c -> c f h w").float() / 255
    pixels = F.interpolate(pixels.movedim(0, 1), shape[1:], mode="area").movedim(0, 1)
    after = math.gcd(pixels.shape[1] - 1, shape[0] - 1)  # latent frames after the first one
    if 0 < after == shape[0] - 1:
        first, rest = pixels[:, :1], pixels[:, 1:].unflatten(1, (after, -1)).mean(2)
        return torch.cat([first, rest], 1)
    return F.adaptive_avg_pool3d(pixels, shape)
