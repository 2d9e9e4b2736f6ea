"""What all layouts have in common: clips from the tensor of a scheduler, and how it is blanked."""

from contextlib import contextmanager
from inspect import signature

from einops import rearrange

from lvd.errors import InputError
from lvd.x0.calls import watch_method


class Layout:
    """One layout. A new kind defines `unpack`, and `begin` if it needs the arguments of a call."""

    # B video, C channel, F frame, H height, W width of the latents; (..) is one axis. For messages.
    axes = ""
    # Whether copies of the pipeline's scheduler step something else, such as the videos' sound.
    copies_are_others = False

    def begin(self, pipe, latents, arguments):
        """Read what `unpack` needs to know at the beginning of a call of the pipeline.

        Args:
            pipe: the pipeline.
            latents: what its `prepare_latents` returned (the first part of a tuple).
            arguments: {name: value} that its `prepare_latents` was given.
        """

    def unpack(self, x):
        """Rearrange the scheduler's tensor.

        Args:
            x: a sample, a prediction or x0, as the pipeline passes it to `scheduler.step`.

        Returns:
            The clips [B, C, F, H, W], a view of x where that is possible.
        """
        raise NotImplementedError

    def videos(self, x):
        """Return B, the number of videos in the scheduler's tensor x."""
        return self.unpack(x).shape[0]

    def blank(self, x, videos):
        """Return a copy of the scheduler's tensor x in which these videos are zero.

        Args:
            x: the scheduler's tensor.
            videos: numbers from 0. The other videos stay as they are.
        """
        x = x.clone()
        # A view: writing to it writes to x.
        by_video = rearrange(x, "(video part) ... -> video part ...", video=self.videos(x))
        by_video[list(videos)] = 0
        return x

    @contextmanager
    def following(self, pipe):
        """While the block runs, call `begin` at each call of the pipeline."""
        is_told = type(self).begin is not Layout.begin
        if not is_told or not callable(getattr(type(pipe), "prepare_latents", None)):
            yield self
            return
        own = vars(pipe).pop("prepare_latents", None)  # someone's, on this one object

        def begin_after(method, args, kwargs):
            prepare = own or method
            prepared = prepare(*args, **kwargs)
            latents = prepared[0] if isinstance(prepared, tuple) else prepared
            self.begin(pipe, latents, signature(prepare).bind(*args, **kwargs).arguments)
            return prepared

        try:
            with watch_method(pipe, "prepare_latents", begin_after):
                yield self
        finally:
            if own is not None:
                pipe.prepare_latents = own


def need_axes(x, axes, what="the scheduler's sample"):
    """Check that x has as many axes as `axes` names; what stands in (..) is one axis.

    Args:
        x: a tensor.
        axes: of a layout.
        what: x, in words.

    Raises:
        InputError: x has more or fewer.
    """
    merged = sum(len(part.partition(")")[0]) + 1 for part in axes.split("(")[1:])
    count = len(axes) - merged
    if x.dim() != count:
        raise InputError(
            f"layout {axes}: {what} has shape {list(x.shape)}, {count} axes are needed"
        )


def need_prepared(known, axes):
    """InputError if `known`, what `begin` reads of the call, is None: it prepared no latents."""
    if known is None:
        raise InputError(f"layout {axes}: the pipeline prepared no latents in this call")
