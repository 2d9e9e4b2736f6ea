"""Latents → small RGB frames by one matrix: they show what the clip shows, at a two-thousandth of
the autoencoder's cost.

The matrix is the one published for Stable Diffusion 1.x, or fitted to any other autoencoder by
least squares on frames that it decoded (fit_rgb.py).
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange

from lvd.errors import InputError
from lvd.utils.files import load_json, save_json

# One row per latent channel, one column per colour: ComfyUI's previews of Stable Diffusion 1.x
# latents.
SD1 = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
)
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class LatentToRGB:
    """Turns latents [..., C, F, h, w] into RGB [..., 3, F, h, w], from about -1 to 1.

    The latents are scaled, as in the sampler.

    Args:
        matrix: C rows of 3 numbers.
        bias: 3 numbers.
        about: how they were fitted.
    """

    matrix: tuple = SD1
    bias: tuple = (0.0, 0.0, 0.0)
    about: dict = field(default_factory=dict, compare=False)

    def __call__(self, latents):
        self.need_channels(latents.shape[-4])
        channels = latents.unbind(-4)
        colours = []
        for k, offset in enumerate(self.bias):
            colour = torch.full_like(channels[0], offset)
            # One channel after the other: a matrix product's last bits depend on the batch.
            for channel, row in zip(channels, self.matrix, strict=True):
                colour += channel * row[k]
            colours.append(colour)
        return torch.stack(colours, -4)

    @property
    def numbers(self):
        """The matrix's rows and then the bias, as plain lists: what identifies it."""
        return [*map(list, self.matrix), list(self.bias)]

    @classmethod
    def of_numbers(cls, numbers):
        """Return the LatentToRGB whose `numbers` these are."""
        *matrix, bias = map(tuple, numbers)
        return cls(tuple(matrix), bias)

    def need_channels(self, channels):
        """Raise InputError for latents of another number of channels."""
        if channels != len(self.matrix):
            raise InputError(
                f"rgb_matrix: made for {len(self.matrix)} latent channels, these latents have "
                f"{channels}; fit one with fit_rgb.py"
            )


def load_rgb(path=None):
    """Read the LatentToRGB of a file that fit_rgb.py wrote; None: the published one."""
    if path is None:
        return LatentToRGB()
    contents = load_json(path)
    if not isinstance(contents, dict):
        contents = {}
    matrix, bias = contents.get("matrix"), contents.get("bias")
    is_matrix = isinstance(matrix, list) and len(matrix) > 0
    if not is_matrix or not all(map(_is_three_numbers, [*matrix, bias])):
        raise InputError(
            f"{path}: not an rgb matrix; 'matrix', a row of 3 numbers per latent channel, and "
            "'bias', 3 numbers, are needed"
        )
    about = {key: value for key, value in contents.items() if key not in ("matrix", "bias")}
    return LatentToRGB(tuple(map(tuple, matrix)), tuple(bias), about)


def save_rgb(rgb, path):
    """Write a LatentToRGB as a JSON file, atomically."""
    save_json({"matrix": rgb.numbers[:-1], "bias": rgb.numbers[-1], **rgb.about}, path)


class LeastSquares:
    """Least squares of RGB on latents, from parts that are added one after the other.

    Only sums are kept, in float64: of products of the latents (and 1) with each other and with the
    colours, of the colours' squares, and of the colours.
    """

    def __init__(self):
        self._inner, self._cross, self._squares, self._sum, self._count = 0, 0, 0, 0, 0

    def add(self, latents, pixels):
        """Add latents [n, C, F, h, w] and their pixels [n, 3, F, H, W] in [0, 1], which are
        averaged down to h x w."""
        x = rearrange(latents.double(), "n c f h w -> (n f h w) c")
        pictures = rearrange(pixels, "n c f h w -> (n f) c h w").float()
        small = F.interpolate(pictures, latents.shape[-2:], mode="area")
        y = 2 * rearrange(small.double(), "n c h w -> (n h w) c").to(x.device) - 1
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        self._inner = self._inner + x.T @ x
        self._cross = self._cross + x.T @ y
        self._squares = self._squares + (y**2).sum(0)
        self._sum = self._sum + y.sum(0)
        self._count = self._count + len(y)

    def solve(self):
        """Return the LatentToRGB of least squares, its numbers rounded to 6 digits."""
        weights = torch.linalg.pinv(self._inner, hermitian=True) @ self._cross  # [C + 1, 3]
        rows = [tuple(float(f"{number:.6g}") for number in row) for row in weights.tolist()]
        return LatentToRGB(tuple(rows[:-1]), rows[-1])

    def r2(self, rgb):
        """Share of the pixels' variance that a LatentToRGB explains.

        Returns:
            {"r2": of all colours, "r2_red": ..., "r2_green": ..., "r2_blue": ...}.
        """
        weights = torch.tensor(rgb.numbers, dtype=torch.float64, device=self._inner.device)
        squares_of_rgb = (weights * (self._inner @ weights)).sum(0)
        residual = self._squares - 2 * (weights * self._cross).sum(0) + squares_of_rgb
        total = self._squares - self._sum**2 / self._count
        unexplained = {"r2": residual.sum() / total.sum()}
        for colour, share in zip(COLOURS, residual / total, strict=True):
            unexplained[f"r2_{colour}"] = share
        return {key: round(1 - float(share), 4) for key, share in unexplained.items()}


def _is_three_numbers(row):
    if not isinstance(row, list) or len(row) != 3:
        return False
    return all(type(number) in (int, float) and abs(number) < 1e6 for number in row)
