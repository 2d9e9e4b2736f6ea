"""Layouts of pipelines that step the sound of their videos too, with a copy of the scheduler."""

from einops import rearrange

from lvd.x0.layout import Layout, need_axes, need_prepared


class DenseWithSound(Layout):
    """LTX-2 from an image: five axes in the order that lvd uses, without the image's frame."""

    axes = "BCFHW"
    copies_are_others = True

    def unpack(self, x):
        need_axes(x, self.axes)
        return x


class ChannelsLastWithSound(Layout):
    """Kandinsky 6: the channels last; from an image, its latents are one more frame at the end,
    which the pipeline drops before it decodes."""

    axes = "BFHWC"
    copies_are_others = True
    frames = None

    def begin(self, pipe, latents, arguments):
        need_axes(latents, self.axes, "what the pipeline prepared")
        self.frames = latents.shape[1]

    def unpack(self, x):
        need_axes(x, self.axes)
        need_prepared(self.frames, self.axes)
        return rearrange(x[:, : self.frames], "b f h w c -> b c f h w")


class OneMoreAxis(Layout):
    """Cosmos 3: one video a call, and one more axis of length 1 in front."""

    axes = "1BCFHW"
    copies_are_others = True

    def unpack(self, x):
        need_axes(x, self.axes)
        return x[0]
