"""Layouts of LTX-Video and LTX-2: one token for each patch of the latents."""

from einops import rearrange

from lvd.errors import InputError
from lvd.x0.layout import Layout, need_axes


class Tokens(Layout):
    """LTX-Video's layout: one token per patch of the latents.

    A token holds the channels of pt x p x p latents (frames, height, width) in one axis, the
    channel outermost.
    """

    axes = "B(FHW)C"
    grid = None

    def begin(self, pipe, latents, arguments):
        pt = pipe.transformer_temporal_patch_size
        p = pipe.transformer_spatial_patch_size
        frames = (arguments["num_frames"] - 1) // pipe.vae_temporal_compression_ratio + 1
        height = arguments["height"] // pipe.vae_spatial_compression_ratio
        width = arguments["width"] // pipe.vae_spatial_compression_ratio
        self.patch = pt, p
        self.grid = frames // pt, height // p, width // p

    def unpack(self, x):
        need_axes(x, self.axes)
        if self.grid is None:
            raise InputError(f"layout {self.axes}: the pipeline prepared no latents in this call")
        frames, height, width = self.grid
        if x.shape[1] != frames * height * width:
            raise InputError(
                f"layout {self.axes}: {x.shape[1]} tokens a video, {frames} x {height} x {width} "
                "are expected"
            )
        pt, p = self.patch
        pattern = "b (f h w) (c pt ph pw) -> b c (f pt) (h ph) (w pw)"
        return rearrange(x, pattern, f=frames, h=height, w=width, pt=pt, ph=p, pw=p)
