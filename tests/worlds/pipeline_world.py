"""The tiny pipelines of the benchmarks, built once, for tests of layouts, records and guard."""

from functools import cache

import torch

from benchmarks.common import tiny_pipelines
from benchmarks.common.pipeline_world import STEPS

tiny_of = cache(tiny_pipelines.build)


def run(tiny, kinds, **changes):
    """Run a pipeline on prompts that no detector was trained on.

    Returns:
        [B, C, F, h, w] of the latents, or of the pixels where `output_type` is changed.
    """
    torch.manual_seed(100)
    output = tiny.pipe(**tiny.inputs(kinds, first=100, steps=STEPS, **changes))
    videos = tiny.videos(output)
    return videos if "output_type" in changes else tiny.clips(videos)
