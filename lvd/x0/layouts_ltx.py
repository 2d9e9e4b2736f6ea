"""Layouts of LTX-Video and LTX-2: one token for each patch of the latents.

A call may put tokens of conditions (images, other videos) before or behind the video's own. The
pipeline drops them before it decodes, so the detectors do not see them either. LTX-2 also steps
the sound of its videos, with a copy of the scheduler.
"""

from einops import rearrange

from lvd.errors import InputError
from lvd.x0.layout import Layout, need_axes, need_prepared


class Tokens(Layout):
    """The video's own tokens alone.

    A token holds the channels of pt x p x p latents (frames, height, width) in one axis, the
    channel outermost.
    """

    axes = "B(FHW)C"
    grid = None
    conditions = None  # where their tokens may stand: "before" the video's own, or "behind" them

    def begin(self, pipe, latents, arguments):
        given = arguments.get("latents")
        if given is not None and given.dim() == 5:  # their size counts, not the one asked for
            frames, height, width = given.shape[2:]
        else:
            frames = (arguments["num_frames"] - 1) // pipe.vae_temporal_compression_ratio + 1
            height = arguments["height"] // pipe.vae_spatial_compression_ratio
            width = arguments["width"] // pipe.vae_spatial_compression_ratio
        pt = pipe.transformer_temporal_patch_size
        p = pipe.transformer_spatial_patch_size
        self.patch = pt, p
        self.grid = frames // pt, height // p, width // p

    def unpack(self, x):
        need_axes(x, self.axes)
        need_prepared(self.grid, self.axes)
        frames, height, width = self.grid
        pt, p = self.patch
        pattern = "b (f h w) (c pt ph pw) -> b c (f pt) (h ph) (w pw)"
        own = self._own(x, frames * height * width)
        return rearrange(own, pattern, f=frames, h=height, w=width, pt=pt, ph=p, pw=p)

    def _own(self, x, count):
        """The `count` tokens of each video that are its own."""
        if x.shape[1] == count:
            return x
        if x.shape[1] < count or self.conditions is None:
            grid = " x ".join(map(str, self.grid))
            raise InputError(
                f"layout {self.axes}: {x.shape[1]} tokens a video, {grid} are expected"
            )
        return x[:, -count:] if self.conditions == "before" else x[:, :count]


class TokensBehindConditions(Tokens):
    """LTX-Video with conditions, whose tokens come first."""

    axes = "B(K+FHW)C"  # K: tokens of conditions
    conditions = "before"


class TokensBeforeConditions(Tokens):
    """LTX-2: tokens of conditions, references and keyframes come last."""

    axes = "B(FHW+K)C"
    conditions = "behind"
    copies_are_others = True


class TokensOfWindows(Tokens):
    """A long LTX-Video, window after window: what one takes over from others comes last."""

    axes = "B(FHW+K)C"
    conditions = "behind"

    def begin(self, pipe, latents, arguments):
        super().begin(pipe, latents, arguments)
        self._pipe = pipe

    def unpack(self, x):
        if self.grid is not None:
            self.grid = self._pipe._current_tile_T // self.patch[0], *self.grid[1:]
        return super().unpack(x)
