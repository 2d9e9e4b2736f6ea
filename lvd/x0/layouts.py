"""How video pipelines lay out the latents that their scheduler steps through, one small adapter per
kind.

Everything here reads clips [B, C, F, h, w] (video, channel, frame, height, width of the latents).
The tensor that a pipeline hands to `scheduler.step` may have frames before channels, frames inside
the batch, or tokens. In all of them the video is the first axis, or the outer part of it, and
guidance is done with: there is one entry per video.
"""

from contextlib import contextmanager
from inspect import signature

from lvd.errors import InputError


class Layout:
    """One kind of layout. `unpack` is all that a new one has to say, `begin` if it needs to know
    more of each call."""

    # for messages and tables: B video, C channel, F frame, H height, W width; (..) are one axis
    axes = ""

    def begin(self, pipe, latents, arguments):
        """A call of the pipeline begins: `latents` and `arguments` are what its prepare_latents
        returned and was given."""

    def unpack(self, x):
        """The scheduler's tensor x, be it a sample, a prediction or x0 → [B, C, F, h, w], a view
        where that is possible."""
        raise NotImplementedError

    def videos(self, x):
        """B, the number of videos in the scheduler's tensor x."""
        return self.unpack(x).shape[0]

    def blank(self, x, videos):
        """A copy of the scheduler's tensor x in which these videos (numbers from 0) are zero and
        the others untouched."""
        x = x.clone()
        x.unflatten(0, (self.videos(x), -1))[list(videos)] = 0
        return x

    @contextmanager
    def following(self, pipe):
        """While the block runs, `begin` is told of each call of the pipeline."""
        prepare = getattr(pipe, "prepare_latents", None)
        if prepare is None or type(self).begin is Layout.begin:
            yield self
            return
        parameters = signature(prepare)

        def told(*args, **kwargs):
            found = prepare(*args, **kwargs)
            latents = found[0] if isinstance(found, tuple) else found
            self.begin(pipe, latents, parameters.bind(*args, **kwargs).arguments)
            return found

        own = vars(pipe).get("prepare_latents")
        pipe.prepare_latents = told
        try:
            yield self
        finally:
            del pipe.prepare_latents
            if own is not None:
                pipe.prepare_latents = own


class Dense(Layout):
    """Five axes, in the order used here: "BCFHW"."""

    axes = "BCFHW"

    def unpack(self, x):
        need_axes(x, self.axes)
        return x


class FramesFirst(Layout):
    """Five axes, frames before channels: "BFCHW"."""

    axes = "BFCHW"

    def unpack(self, x):
        need_axes(x, self.axes)
        return x.transpose(1, 2)


class FramesInBatch(Layout):
    """The frames of all videos one after the other, as of an image model: "(BF)CHW"."""

    axes = "(BF)CHW"

    def __init__(self, frames=None):
        """frames: of one video, for a pipeline without a prepare_latents that tells."""
        self.frames = frames

    def begin(self, pipe, latents, arguments):
        need_axes(latents, "BCFHW")
        self.frames = latents.shape[2]

    def unpack(self, x):
        need_axes(x, self.axes)
        if not self.frames or x.shape[0] % self.frames:
            raise InputError(
                f"layout {self.axes}: {x.shape[0]} frames of {self.frames or 'an unknown number'} "
                "a video; give layout=FramesInBatch(frames=...)"
            )
        return x.unflatten(0, (-1, self.frames)).transpose(1, 2)


class Tokens(Layout):
    """LTX-Video's: one token per patch of pt x p x p latents, each with the channels and the patch
    in one axis."""

    axes = "B(FHW)C"

    def begin(self, pipe, latents, arguments):
        self.patch = pipe.transformer_temporal_patch_size, pipe.transformer_spatial_patch_size
        frames = (arguments["num_frames"] - 1) // pipe.vae_temporal_compression_ratio + 1
        height, width = (
            arguments[key] // pipe.vae_spatial_compression_ratio for key in ("height", "width")
        )
        self.grid = frames // self.patch[0], height // self.patch[1], width // self.patch[1]

    def unpack(self, x):
        need_axes(x, self.axes)
        frames, height, width = self.grid
        if x.shape[1] != frames * height * width:
            raise InputError(
                f"layout {self.axes}: {x.shape[1]} tokens a video, {frames} x {height} x {width} "
                "are expected"
            )
        pt, p = self.patch
        x = x.unflatten(2, (-1, pt, p, p)).unflatten(1, self.grid)  # [B, F', H', W', C, pt, p, p]
        return x.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(2, 3)


# Pipeline class → its layout. Each was run: docs/pipelines.md.
KNOWN = {
    "AnimateDiffPipeline": Dense,
    "LattePipeline": Dense,
    "HunyuanVideoPipeline": Dense,
    "MochiPipeline": Dense,
    "WanPipeline": Dense,
    "WanImageToVideoPipeline": Dense,
    "StableVideoDiffusionPipeline": FramesFirst,
    "CogVideoXPipeline": FramesFirst,
    "CogVideoXImageToVideoPipeline": FramesFirst,
    "TextToVideoSDPipeline": FramesInBatch,
    "I2VGenXLPipeline": FramesInBatch,
    "LTXPipeline": Tokens,
    "LTXImageToVideoPipeline": Dense,
}


BY_AXES = {kind.axes: kind for kind in (Dense, FramesFirst, FramesInBatch)}


def find_layout(pipe, layout=None):
    """The Layout of a pipeline, by its class (or the one it derives from), or as the caller gives
    it.

    layout: the axes of the scheduler's tensor, "BCFHW", "BFCHW" or "(BF)CHW", or a Layout of one's
    own. InputError for a pipeline that is not known when none is given, and for axes that are not a
    known pipeline's: a wrong guess would show the detectors noise.
    """
    if isinstance(layout, Layout):
        return layout
    known = next((kind.__name__ for kind in type(pipe).__mro__ if kind.__name__ in KNOWN), None)
    if known and layout in (None, KNOWN[known].axes):
        return KNOWN[known]()
    if layout is not None:
        if layout not in BY_AXES:
            raise InputError(
                f"layout {layout!r}: one of {', '.join(BY_AXES)}, or a lvd.x0.layouts.Layout, is "
                "needed"
            )
        if known:  # with as many channels as frames, no shape would tell
            raise InputError(
                f"layout {layout!r}: a {known} steps through {KNOWN[known].axes}; leave layout= "
                "away, or give a lvd.x0.layouts.Layout if yours differs"
            )
        return BY_AXES[layout]()
    raise InputError(
        f"{type(pipe).__name__}: not a pipeline whose latents are known ({', '.join(KNOWN)}); "
        "give layout=, the axes of the sample that it passes to scheduler.step "
        f"({', '.join(BY_AXES)}; B video, C channel, F frame, H x W latents), or a "
        "lvd.x0.layouts.Layout of your own (docs/pipelines.md)"
    )


def can_interrupt(pipe):
    """Whether the pipeline skips the rest of its steps when told to: it has diffusers' property
    `interrupt`."""
    return isinstance(getattr(type(pipe), "interrupt", None), property)


def interrupt(pipe):
    """Ask a pipeline that `can_interrupt` to skip its remaining steps; it then decodes the latents
    that it has."""
    pipe._interrupt = True


def need_axes(x, axes):
    """InputError unless x has as many axes as `axes` ((..) count as one)."""
    wanted = len(axes) - sum(len(part.partition(")")[0]) + 1 for part in axes.split("(")[1:])
    if x.dim() != wanted:
        raise InputError(
            f"layout {axes}: the scheduler's sample has shape {list(x.shape)}, {wanted} axes are "
            "needed"
        )
