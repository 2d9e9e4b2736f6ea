"""Tiny pipelines that derive from Wan: SkyReels V2, VACE, Lucy and ChronoEdit, with random
weights."""

from benchmarks.common.tiny_inputs import WIDTH, Tiny, guided, images, pictures, wide
from benchmarks.common.tiny_transformers import wan_parts
from benchmarks.common.tiny_unets import clip_vision, image_processor

SHAPE = 16, 3, 4, 8  # C, F, h, w
FRAMES = 9


def skyreels():
    from diffusers import SkyReelsV2Pipeline

    pipe = SkyReelsV2Pipeline(
        tokenizer=None, text_encoder=None, **wan_parts(16, "SkyReelsV2Transformer3DModel")
    )
    return Tiny(pipe, SHAPE, wide(FRAMES), guided)


def skyreels_image():
    """One image for all videos of a call."""
    from diffusers import SkyReelsV2ImageToVideoPipeline

    pipe = SkyReelsV2ImageToVideoPipeline(**image_parts("SkyReelsV2Transformer3DModel"))
    return Tiny(pipe, SHAPE, wide(FRAMES), one_image)


def chronoedit():
    """One image for all videos of a call."""
    from diffusers import ChronoEditPipeline

    pipe = ChronoEditPipeline(**image_parts("ChronoEditTransformer3DModel"))
    fixed = {**wide(FRAMES), "enable_temporal_reasoning": False}
    return Tiny(pipe, (16, 2, 4, 8), fixed, one_image)  # two frames, whatever is asked for


def vace():
    """One video a call, and one generator."""
    from diffusers import WanVACEPipeline

    parts = wan_parts(
        16, "WanVACETransformer3DModel", vace_layers=[0], vace_in_channels=2 * 16 + 64
    )
    pipe = WanVACEPipeline(tokenizer=None, text_encoder=None, **parts)
    return OneGenerator(pipe, SHAPE, wide(FRAMES), guided, most=1)


def lucy():
    from diffusers import LucyEditPipeline

    pipe = LucyEditPipeline(tokenizer=None, text_encoder=None, **wan_parts(32))

    def prompts(wanted):
        return {**guided(wanted), "video": [FRAMES * [image] for image in pictures(wanted)]}

    return Tiny(pipe, SHAPE, wide(FRAMES), prompts)


def wan_22_image():
    """Wan 2.2 (5B): the image takes the place of the first frame, in each step and in the end."""
    from diffusers import WanImageToVideoPipeline

    pipe = WanImageToVideoPipeline(
        tokenizer=None, text_encoder=None, expand_timesteps=True, **wan_parts(16)
    )
    return Tiny(
        pipe, SHAPE, wide(FRAMES), lambda wanted: {**guided(wanted), "image": images([(1, 0)])}
    )


class OneGenerator(Tiny):
    """Called with one generator where others are called with a list of them."""

    def inputs(self, *args, **kwargs):
        given = super().inputs(*args, **kwargs)
        (generator,) = given["generator"]
        return {**given, "generator": generator}


def image_parts(transformer):
    parts = wan_parts(36, transformer, image_dim=WIDTH, added_kv_proj_dim=24)
    encoder = {"image_encoder": clip_vision(), "image_processor": image_processor()}
    return {"tokenizer": None, "text_encoder": None, **encoder, **parts}


def one_image(wanted):
    return {**guided(wanted), "image": pictures(wanted)[0]}
