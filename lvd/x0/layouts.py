"""How the video pipelines of diffusers lay out the latents that their scheduler steps through.

Everything in lvd reads clips [B, C, F, H, W] (video, channel, frame, height and width of the
latents). The tensor that a pipeline hands to `scheduler.step` may have frames before channels,
frames inside the batch, or tokens. In all of these layouts the video is the first axis or the
outer part of it. Classifier-free guidance is finished by then: there is one entry per video.
"""

from einops import rearrange

from lvd.errors import InputError, plural, shorten
from lvd.x0.given_axes import GivenAxes
from lvd.x0.layout import Layout, need_axes
from lvd.x0.layouts_ltx import (
    Tokens,
    TokensBeforeConditions,
    TokensBehindConditions,
    TokensOfWindows,
)
from lvd.x0.layouts_sana import PixelTokens
from lvd.x0.layouts_sound import ChannelsLastWithSound, DenseWithSound, OneMoreAxis
from lvd.x0.refused import REFUSED


class Dense(Layout):
    """Five axes in the order that lvd uses."""

    axes = "BCFHW"

    def unpack(self, x):
        need_axes(x, self.axes)
        return x


class DenseThroughout(Dense):
    """ChronoEdit, which can leave frames away in the middle of a sampling."""

    size = None

    def begin(self, pipe, latents, arguments):
        self.size = latents.shape[2:]

    def unpack(self, x):
        need_axes(x, self.axes)
        if self.size and x.shape[2:] != self.size:
            raise InputError(
                f"the video has {self.size[0]} latent frames when its sampling begins and "
                f"{x.shape[2]} later (enable_temporal_reasoning); the same size at all steps is "
                "needed"
            )
        return x


class FramesFirst(Layout):
    """Five axes, frames before channels."""

    axes = "BFCHW"

    def unpack(self, x):
        need_axes(x, self.axes)
        return rearrange(x, "b f c h w -> b c f h w")


class ChannelsLast(Layout):
    """Five axes, the channels last."""

    axes = "BFHWC"

    def unpack(self, x):
        need_axes(x, self.axes)
        return rearrange(x, "b f h w c -> b c f h w")


class FramesInBatch(Layout):
    """The frames of all videos one after the other, as an image model takes them.

    Args:
        frames: latent frames of one video, for a pipeline without a `prepare_latents` that tells.
    """

    axes = "(BF)CHW"

    def __init__(self, frames=None):
        self.frames = frames
        self._given = frames

    def begin(self, pipe, latents, arguments):
        if self._given is None:
            self.frames = latents.shape[2] if latents.dim() == 5 else None  # BCFHW

    def unpack(self, x):
        need_axes(x, self.axes)
        if not self.frames:
            raise InputError(
                f"layout {self.axes}: the pipeline does not tell how many latent frames a video "
                "has; give layout=lvd.x0.layouts.FramesInBatch(frames=...)"
            )
        if x.shape[0] % self.frames:
            raise InputError(
                f"layout {self.axes}: the scheduler's sample has shape {list(x.shape)}, and "
                f"{plural(x.shape[0], 'frame')} cannot be videos of {plural(self.frames, 'frame')}"
            )
        return rearrange(x, "(b f) c h w -> b c f h w", f=self.frames)


# Pipeline class → its layout. Each was run: docs/pipelines_table.md.
KNOWN = {
    "AllegroPipeline": Dense,
    "AnimateDiffControlNetPipeline": Dense,
    "AnimateDiffPAGPipeline": Dense,
    "AnimateDiffPipeline": Dense,
    "AnimateDiffSDXLPipeline": Dense,
    "AnimateDiffSparseControlNetPipeline": Dense,
    "ChronoEditPipeline": DenseThroughout,
    "Cosmos2VideoToWorldPipeline": Dense,
    "Cosmos2_5_PredictBasePipeline": Dense,
    "Cosmos2_5_TransferPipeline": Dense,
    "CosmosTextToWorldPipeline": Dense,
    "CosmosVideoToWorldPipeline": Dense,
    "EasyAnimateInpaintPipeline": Dense,
    "EasyAnimatePipeline": Dense,
    "HunyuanSkyreelsImageToVideoPipeline": Dense,
    "HunyuanVideo15ImageToVideoPipeline": Dense,
    "HunyuanVideo15Pipeline": Dense,
    "HunyuanVideoImageToVideoPipeline": Dense,
    "HunyuanVideoPipeline": Dense,
    "LTXImageToVideoPipeline": Dense,
    "LattePipeline": Dense,
    "LucyEditPipeline": Dense,
    "MochiPipeline": Dense,
    "MotifVideoImage2VideoPipeline": Dense,
    "MotifVideoPipeline": Dense,
    "PIAPipeline": Dense,
    "SanaImageToVideoPipeline": Dense,
    "SanaVideoPipeline": Dense,
    "SkyReelsV2ImageToVideoPipeline": Dense,
    "SkyReelsV2Pipeline": Dense,
    "WanImageToVideoPipeline": Dense,
    "WanPipeline": Dense,
    "WanVACEPipeline": Dense,
    # Frames before channels, or in the batch.
    "AnyFlowPipeline": FramesFirst,
    "CogVideoXFunControlPipeline": FramesFirst,
    "CogVideoXImageToVideoPipeline": FramesFirst,
    "CogVideoXPipeline": FramesFirst,
    "ConsisIDPipeline": FramesFirst,
    "StableVideoDiffusionPipeline": FramesFirst,
    "I2VGenXLPipeline": FramesInBatch,
    "TextToVideoSDPipeline": FramesInBatch,
    # Tokens.
    "LTXPipeline": Tokens,
    "SanaWMPipeline": PixelTokens,
    # Channels last.
    "Kandinsky5T2VPipeline": ChannelsLast,
    "Kandinsky5I2VPipeline": ChannelsLast,
    "Kandinsky6TI2VAPipeline": ChannelsLastWithSound,
    "Cosmos3OmniPipeline": OneMoreAxis,
    # Tokens of conditions beside the video's; sound.
    "LTXConditionPipeline": TokensBehindConditions,
    "LTX2Pipeline": TokensBeforeConditions,
    "LTX2ImageToVideoPipeline": DenseWithSound,
    "LTX2ConditionPipeline": TokensBeforeConditions,
    "LTX2InContextPipeline": TokensBeforeConditions,
    "LTX2HDRPipeline": TokensBeforeConditions,
    "LTX2DFRPipeline": TokensBeforeConditions,
    # Video to video: they begin in the middle of the schedule.
    "AnimateDiffVideoToVideoPipeline": Dense,
    "AnimateDiffVideoToVideoControlNetPipeline": Dense,
    "CogVideoXVideoToVideoPipeline": FramesFirst,
    "WanVideoToVideoPipeline": Dense,
    "VideoToVideoSDPipeline": FramesInBatch,
    # Put together of blocks. Those of Wan 2.2 and from an image derive from it.
    "WanModularPipeline": Dense,
    "HunyuanVideo15ModularPipeline": Dense,
    # Several samplings in one call: sections of a video.
    "HunyuanVideoFramepackPipeline": Dense,
    "WanAnimatePipeline": Dense,
    "HeliosPipeline": Dense,
    "AnyFlowFARPipeline": FramesFirst,
    "LTX2DFRTemporalRefinePipeline": TokensBeforeConditions,
    "LTXI2VLongMultiPromptPipeline": TokensOfWindows,
}


BY_AXES = {kind.axes: kind for kind in (Dense, FramesFirst, ChannelsLast, FramesInBatch)}


def find_layout(pipe, layout=None):
    """Find the layout of a pipeline by its class, or by a class that it derives from.

    Args:
        pipe: a video pipeline of diffusers.
        layout: for other pipelines, the axes of the scheduler's tensor: "BCFHW", "BFCHW",
            "BFHWC" or "(BF)CHW"; or a Layout of your own, which always wins.

    Returns:
        A Layout.

    Raises:
        InputError: the pipeline is unknown or refused and no layout is given, or the axes are not
            those of a known pipeline. A wrong guess would show noise to the detectors.
    """
    if isinstance(layout, Layout):
        return layout
    if layout is not None and not isinstance(layout, str):
        raise _unknown(layout)
    names = [kind.__name__ for kind in type(pipe).__mro__]
    name = next((name for name in names if name in KNOWN or name in REFUSED), None)
    known = KNOWN.get(name)
    if known and layout in (None, known.axes):
        return known()
    if layout is None:
        raise _not_known(type(pipe).__name__, name)
    if layout not in BY_AXES:
        raise _unknown(layout)
    if known:  # the shape alone would not tell when there are as many channels as frames
        raise InputError(
            f"layout {layout!r}: a {name} steps through {known.axes}; leave layout= "
            "away, or give a lvd.x0.layouts.Layout if yours differs"
        )
    return GivenAxes(BY_AXES[layout], BY_AXES.values())


def _not_known(kind, refused):
    """The InputError for a class without a layout; refused: its name in REFUSED, if any."""
    if refused:
        return InputError(f"{kind}: not supported: {REFUSED[refused]} (docs/pipelines.md)")
    return InputError(
        f"{kind}: not a pipeline whose latents are known (docs/pipelines.md lists those); give "
        f"layout=, the axes of the sample in its scheduler.step ({', '.join(BY_AXES)}; B video, C "
        "channel, F frame), or a lvd.x0.layouts.Layout of your own"
    )


def _unknown(layout):
    return InputError(
        f"layout {shorten(layout)}: one of {', '.join(BY_AXES)}, or a lvd.x0.layouts.Layout, is "
        "needed"
    )


def can_interrupt(pipe):
    """Tell whether the pipeline can skip the rest of its steps: diffusers' property `interrupt`."""
    return isinstance(getattr(type(pipe), "interrupt", None), property)


def interrupt(pipe):
    """Tell a pipeline that `can_interrupt` to skip its remaining steps.

    It then decodes the latents that it has.
    """
    pipe._interrupt = True


def may_begin_later(pipe):
    """Tell whether the pipeline can begin in the middle of its timesteps, as video to video does:
    diffusers' method `get_timesteps`, which takes the strength."""
    return callable(getattr(type(pipe), "get_timesteps", None))
