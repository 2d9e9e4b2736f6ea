"""The layout of SANA-WM: one token for each latent pixel of each frame."""

from einops import rearrange

from lvd.errors import InputError
from lvd.x0.layout import Layout, need_axes, need_prepared


class PixelTokens(Layout):
    """Tokens of one latent pixel each, frame after frame. The first frame is the image's."""

    axes = "B(FHW)C"
    grid = None

    def begin(self, pipe, latents, arguments):
        need_axes(latents, "BCFHW", "what the pipeline prepared")
        self.grid = tuple(latents.shape[2:])

    def unpack(self, x):
        need_axes(x, self.axes)
        need_prepared(self.grid, self.axes)
        frames, height, width = self.grid
        if x.shape[1] != frames * height * width:
            grid = " x ".join(map(str, self.grid))
            raise InputError(
                f"layout {self.axes}: {x.shape[1]} tokens a video, {grid} are expected"
            )
        return rearrange(x, "b (f h w) c -> b c f h w", f=frames, h=height, w=width)
