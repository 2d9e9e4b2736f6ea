"""Video pipelines of diffusers that are neither recorded nor guarded, and why, in plain words."""

PYRAMID = (
    "it samples small videos first and larger ones after, and the steps of a smaller one do not "
    "end in the video"
)
PER_FRAME = "each latent frame has a noise level, and a copy of the scheduler, of its own"
ZERO = (
    "it samples its first frame alone, moves it about for the other frames, and begins those in "
    "the middle of the schedule with a copy of its scheduler"
)
# Pipeline class → the reason, which follows "CLASS: ". A class is here or in layouts.KNOWN.
REFUSED = {
    "EasyAnimateControlPipeline": (
        "in diffusers 0.42.1 every call of it fails: it gives its encode_prompt an argument that "
        "this does not take, and has no decode_latents"
    ),
    "HeliosPyramidPipeline": PYRAMID,
    "Kandinsky6SRPipeline": "it samples the tiles of a video one after the other, not the video",
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": PER_FRAME,
    "SkyReelsV2DiffusionForcingPipeline": PER_FRAME,
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline": PER_FRAME,
    "TextToVideoZeroPipeline": ZERO,
    "TextToVideoZeroSDXLPipeline": ZERO,
}
