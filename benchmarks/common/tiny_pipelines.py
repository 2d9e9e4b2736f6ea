"""The video pipelines of diffusers with tiny random components: nothing is downloaded, a run takes
a fraction of a second.

The tests of the guard and benchmarks/guard/pipelines.py build them here, by the name of their
class.
"""

import warnings

import diffusers
import torch

from benchmarks.common.tiny_kandinsky import cosmos3, kandinsky5, kandinsky5_image, kandinsky6
from benchmarks.common.tiny_ltx2 import (
    ltx2,
    ltx2_condition,
    ltx2_dfr,
    ltx2_hdr,
    ltx2_image,
    ltx2_in_context,
    ltx_condition,
)
from benchmarks.common.tiny_modular import wan_modular
from benchmarks.common.tiny_single_transformers import hunyuan, latte, mochi
from benchmarks.common.tiny_transformers import (
    cogvideox,
    cogvideox_image,
    ltx,
    ltx_image,
    wan,
    wan_image,
)
from benchmarks.common.tiny_unets import animatediff, i2vgen, modelscope, svd
from benchmarks.common.tiny_video_to_video import (
    animatediff_video,
    animatediff_video_controlnet,
    cogvideox_video,
    modelscope_video,
    wan_video,
)

FAMILIES = {
    "AnimateDiffPipeline": animatediff,
    "TextToVideoSDPipeline": modelscope,
    "StableVideoDiffusionPipeline": svd,
    "I2VGenXLPipeline": i2vgen,
    "CogVideoXPipeline": cogvideox,
    "CogVideoXImageToVideoPipeline": cogvideox_image,
    "LTXPipeline": ltx,
    "LTXImageToVideoPipeline": ltx_image,
    "WanPipeline": wan,
    "WanImageToVideoPipeline": wan_image,
    "HunyuanVideoPipeline": hunyuan,
    "MochiPipeline": mochi,
    "LattePipeline": latte,
}
# Tried in tests/guard/test_pipelines_more.py.
MORE = {
    "Kandinsky5T2VPipeline": kandinsky5,
    "Kandinsky5I2VPipeline": kandinsky5_image,
    "Kandinsky6TI2VAPipeline": kandinsky6,
    "Cosmos3OmniPipeline": cosmos3,
    "LTXConditionPipeline": ltx_condition,
    "LTX2Pipeline": ltx2,
    "LTX2ImageToVideoPipeline": ltx2_image,
    "LTX2ConditionPipeline": ltx2_condition,
    "LTX2InContextPipeline": ltx2_in_context,
    "LTX2HDRPipeline": ltx2_hdr,
    "LTX2DFRPipeline": ltx2_dfr,
    "AnimateDiffVideoToVideoPipeline": animatediff_video,
    "AnimateDiffVideoToVideoControlNetPipeline": animatediff_video_controlnet,
    "CogVideoXVideoToVideoPipeline": cogvideox_video,
    "WanVideoToVideoPipeline": wan_video,
    "VideoToVideoSDPipeline": modelscope_video,
    "WanModularPipeline": wan_modular,
}
FLOW = dict(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
# Other schedulers that people use with a pipeline, and their settings.
SCHEDULERS = {
    "AnimateDiffPipeline": {
        "DDPMScheduler": {},
        "PNDMScheduler": {"skip_prk_steps": True},
        "EulerDiscreteScheduler": {},
        "EulerAncestralDiscreteScheduler": {},
        "DPMSolverMultistepScheduler": {},
        "LCMScheduler": {},
    },
    "TextToVideoSDPipeline": {"DPMSolverMultistepScheduler": {}, "UniPCMultistepScheduler": {}},
    "CogVideoXPipeline": {"CogVideoXDPMScheduler": {}},
    "WanPipeline": {
        "FlowMatchEulerDiscreteScheduler": {"shift": 3.0},
        "DPMSolverMultistepScheduler": FLOW,
    },
}


def build(name, scheduler=None, seed=0):
    """The Tiny of a pipeline class, by its name, with its usual scheduler or another of SCHEDULERS;
    weights by the seed."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated pipelines are in use all the same
        torch.manual_seed(seed)
        tiny = (FAMILIES | MORE)[name]()
    for part in tiny.pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    if scheduler:
        settings = SCHEDULERS[name][scheduler]
        tiny.pipe.scheduler = getattr(diffusers, scheduler).from_config(
            tiny.pipe.scheduler.config, **settings
        )
    tiny.pipe.set_progress_bar_config(disable=True)
    return tiny
