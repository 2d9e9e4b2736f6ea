"""Axes that a user has given for a pipeline that is not known, held against what it tells."""

from lvd.errors import InputError
from lvd.x0.layout import Layout, need_axes

# Attributes of pipelines: pixels to a latent, in height and width, and frames to a latent frame.
SPATIAL = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_scale_factor")
TEMPORAL = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")


class GivenAxes(Layout):
    """A layout of given axes, which is refused where the latents' sizes show other ones.

    The sizes are those that the pipeline gives its `prepare_latents`: videos, channels, frames,
    height and width. Where two orders fit, as with as many channels as frames, or where none does,
    the given axes are believed.

    Args:
        kind: class of the layout.
        others: classes of the layouts that it may be confused with.
    """

    def __init__(self, kind, others):
        self.axes = kind.axes
        self._layout = kind()
        self._orders = [other.axes for other in others if "(" not in other.axes]
        self._sizes = {}
        self._pipeline = ""

    def begin(self, pipe, latents, arguments):
        self._layout.begin(pipe, latents, arguments)
        self._pipeline = type(pipe).__name__
        self._sizes = sizes_told(pipe, arguments)

    def unpack(self, x):
        need_axes(x, self.axes)
        self._need_fit(list(x.shape))
        return self._layout.unpack(x)

    def _need_fit(self, shape):
        """InputError where the shape does not fit the given axes and fits others."""
        if "(" in self.axes or self._fits(self.axes, shape):
            return
        fitting = [axes for axes in self._orders if self._fits(axes, shape)]
        if fitting:
            sizes = ", ".join(f"{axis} {size}" for axis, size in self._sizes.items())
            raise InputError(
                f"layout {self.axes!r}: {self._pipeline} steps through latents of shape {shape}, "
                f"and prepares them for {sizes}, which is {' or '.join(fitting)}"
            )

    def _fits(self, axes, shape):
        return all(shape[axes.index(axis)] == size for axis, size in self._sizes.items())


def sizes_told(pipe, arguments):
    """Return {axis: size} of the latents as far as a pipeline tells.

    Args:
        pipe: the pipeline.
        arguments: {name: value} that its `prepare_latents` was given.
    """
    spatial, temporal = _first(pipe, SPATIAL), _first(pipe, TEMPORAL)
    told = {"B": arguments.get("batch_size"), "C": arguments.get("num_channels_latents")}
    frames = arguments.get("num_frames")
    if type(frames) is int and type(temporal) is int:
        told["F"] = (frames - 1) // temporal + 1
    for axis, name in (("H", "height"), ("W", "width")):
        pixels = arguments.get(name)
        if type(pixels) is int and type(spatial) is int:
            told[axis] = pixels // spatial
    return {axis: size for axis, size in told.items() if type(size) is int}


def _first(pipe, names):
    return next((found for name in names if (found := getattr(pipe, name, None))), None)
