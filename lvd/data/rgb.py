"""Latents → small RGB frames by one matrix: what the clip shows, at a two-thousandth of the
autoencoder's cost.

The matrix is the one published for Stable Diffusion 1.x, or fitted to any other autoencoder by
least squares on frames that it decoded (fit_rgb.py).
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

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
    """Scaled latents (as the sampler has them) [..., C, F, h, w] → RGB [..., 3, F, h, w], about -1
    to 1.

    matrix: C rows of 3 numbers; bias: 3 numbers. about: how they were fitted.
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
            for channel, row in zip(
                channels, self.matrix, strict=True
            ):  # in this order, so that batches change no bit
                colour += channel * row[k]
            colours.append(colour)
        return torch.stack(colours, -4)

    @property
    def numbers(self):
        """The matrix's rows and then the bias, as plain lists: what identifies it."""
        return [*map(list, self.matrix), list(self.bias)]

    def need_channels(self, channels):
        if channels != len(self.matrix):
            raise InputError(
                f"rgb_matrix: made for {len(self.matrix)} latent channels, these latents have "
                f"{channels}; fit one with fit_rgb.py"
            )


def load_rgb(path=None):
    """LatentToRGB of a file of fit_rgb.py; None: the published one."""
    if path is None:
        return LatentToRGB()
    found = load_json(path)
    found = found if isinstance(found, dict) else {}
    matrix, bias = found.get("matrix"), found.get("bias")
    if not (isinstance(matrix, list) and matrix and all(map(_three_numbers, [*matrix, bias]))):
        raise InputError(
            f"{path}: not an rgb matrix; 'matrix', a row of 3 numbers per latent channel, and "
            "'bias', 3 numbers, are needed"
        )
    about = {key: value for key, value in found.items() if key not in ("matrix", "bias")}
    return LatentToRGB(tuple(map(tuple, matrix)), tuple(bias), about)


def save_rgb(rgb, path):
    """Write a JSON file, atomically."""
    save_json({"matrix": rgb.numbers[:-1], "bias": rgb.numbers[-1], **rgb.about}, path)


class Fit:
    """Least squares of RGB on latents, from parts that are added one after the other; nothing of
    them is kept."""

    def __init__(self):
        self._inner, self._cross, self._squares, self._sum, self._count = 0, 0, 0, 0, 0

    def add(self, latents, pixels):
        """latents [n, C, F, h, w]; pixels [n, 3, F, H, W] in [0, 1], averaged down to h x w."""
        x = latents.double().movedim(1, -1).flatten(0, -2)
        frames = pixels.transpose(1, 2).flatten(0, 1).float()  # [n * F, 3, H, W]
        small = F.interpolate(frames, latents.shape[-2:], mode="area")
        y = 2 * small.double().movedim(1, -1).flatten(0, -2).to(x.device) - 1
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        self._inner, self._cross = self._inner + x.T @ x, self._cross + x.T @ y
        self._squares, self._sum, self._count = (
            self._squares + (y**2).sum(0),
            self._sum + y.sum(0),
            self._count + len(y),
        )

    def solve(self):
        """The LatentToRGB of least squares, its numbers rounded to 6 digits."""
        weights = torch.linalg.pinv(self._inner, hermitian=True) @ self._cross  # [C + 1, 3]
        rows = [tuple(float(f"{number:.6g}") for number in row) for row in weights.tolist()]
        return LatentToRGB(tuple(rows[:-1]), rows[-1])

    def r2(self, rgb):
        """Share of the pixels' variance that a LatentToRGB explains: {"r2": of all colours,
        "r2_red": ..., ...}."""
        weights = torch.tensor(rgb.numbers, dtype=torch.float64, device=self._inner.device)
        left = (
            self._squares
            - 2 * (weights * self._cross).sum(0)
            + (weights * (self._inner @ weights)).sum(0)
        )
        total = self._squares - self._sum**2 / self._count
        found = {
            "r2": left.sum() / total.sum(),
            **{f"r2_{k}": v for k, v in zip(COLOURS, left / total, strict=True)},
        }
        return {key: round(1 - float(share), 4) for key, share in found.items()}


def _three_numbers(row):
    return (
        isinstance(row, list)
        and len(row) == 3
        and all(type(x) in (int, float) and abs(x) < 1e6 for x in row)
    )
