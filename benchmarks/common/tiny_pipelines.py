"""The video pipelines of diffusers with tiny random components: nothing is downloaded, a run takes
a fraction of a second.

The tests of the guard and benchmarks/guard/pipelines.py build them here, by the name of their
class.
"""

import warnings

import diffusers
import torch

from benchmarks.common import (
    tiny_animatediff,
    tiny_cogvideox,
    tiny_cosmos,
    tiny_easyanimate,
    tiny_hunyuan,
    tiny_kandinsky,
    tiny_ltx2,
    tiny_modular,
    tiny_sana_motif,
    tiny_sana_wm,
    tiny_sections,
    tiny_single_transformers,
    tiny_transformers,
    tiny_unets,
    tiny_video_to_video,
    tiny_wan,
    tiny_windows,
)

FAMILIES = {
    "AnimateDiffPipeline": tiny_unets.animatediff,
    "AnimateDiffControlNetPipeline": tiny_animatediff.controlnet,
    "AnimateDiffSparseControlNetPipeline": tiny_animatediff.sparse_controlnet,
    "AnimateDiffPAGPipeline": tiny_animatediff.perturbed_attention,
    "AnimateDiffSDXLPipeline": tiny_animatediff.sdxl,
    "PIAPipeline": tiny_animatediff.pia,
    "TextToVideoSDPipeline": tiny_unets.modelscope,
    "StableVideoDiffusionPipeline": tiny_unets.svd,
    "I2VGenXLPipeline": tiny_unets.i2vgen,
    "CogVideoXPipeline": tiny_transformers.cogvideox,
    "CogVideoXImageToVideoPipeline": tiny_transformers.cogvideox_image,
    "CogVideoXFunControlPipeline": tiny_cogvideox.fun_control,
    "ConsisIDPipeline": tiny_cogvideox.consisid,
    "LTXPipeline": tiny_transformers.ltx,
    "LTXImageToVideoPipeline": tiny_transformers.ltx_image,
    "WanPipeline": tiny_transformers.wan,
    "WanImageToVideoPipeline": tiny_transformers.wan_image,
    "AnyFlowPipeline": tiny_windows.anyflow,
    "WanVACEPipeline": tiny_wan.vace,
    "LucyEditPipeline": tiny_wan.lucy,
    "ChronoEditPipeline": tiny_wan.chronoedit,
    "SkyReelsV2Pipeline": tiny_wan.skyreels,
    "SkyReelsV2ImageToVideoPipeline": tiny_wan.skyreels_image,
    "HunyuanVideoPipeline": tiny_hunyuan.hunyuan,
    "HunyuanVideoImageToVideoPipeline": tiny_hunyuan.hunyuan_image,
    "HunyuanSkyreelsImageToVideoPipeline": tiny_hunyuan.skyreels_image,
    "HunyuanVideo15Pipeline": tiny_hunyuan.hunyuan_15,
    "HunyuanVideo15ImageToVideoPipeline": tiny_hunyuan.hunyuan_15_image,
    "CosmosTextToWorldPipeline": tiny_cosmos.text_to_world,
    "CosmosVideoToWorldPipeline": tiny_cosmos.video_to_world,
    "Cosmos2VideoToWorldPipeline": tiny_cosmos.video_to_world_2,
    "Cosmos2_5_PredictBasePipeline": tiny_cosmos.predict_25,
    "Cosmos2_5_TransferPipeline": tiny_cosmos.transfer_25,
    "SanaVideoPipeline": tiny_sana_motif.sana,
    "SanaImageToVideoPipeline": tiny_sana_motif.sana_image,
    "SanaWMPipeline": tiny_sana_wm.sana_wm,
    "MotifVideoPipeline": tiny_sana_motif.motif,
    "MotifVideoImage2VideoPipeline": tiny_sana_motif.motif_image,
    "EasyAnimatePipeline": tiny_easyanimate.easyanimate,
    "EasyAnimateInpaintPipeline": tiny_easyanimate.easyanimate_inpaint,
    "AllegroPipeline": tiny_easyanimate.allegro,
    "MochiPipeline": tiny_single_transformers.mochi,
    "LattePipeline": tiny_single_transformers.latte,
}
# Tried in tests/guard/test_pipelines_more.py.
MORE = {
    "Kandinsky5T2VPipeline": tiny_kandinsky.kandinsky5,
    "Kandinsky5I2VPipeline": tiny_kandinsky.kandinsky5_image,
    "Kandinsky6TI2VAPipeline": tiny_kandinsky.kandinsky6,
    "Cosmos3OmniPipeline": tiny_kandinsky.cosmos3,
    "LTXConditionPipeline": tiny_ltx2.ltx_condition,
    "LTX2Pipeline": tiny_ltx2.ltx2,
    "LTX2ImageToVideoPipeline": tiny_ltx2.ltx2_image,
    "LTX2ConditionPipeline": tiny_ltx2.ltx2_condition,
    "LTX2InContextPipeline": tiny_ltx2.ltx2_in_context,
    "LTX2HDRPipeline": tiny_ltx2.ltx2_hdr,
    "LTX2DFRPipeline": tiny_ltx2.ltx2_dfr,
    "AnimateDiffVideoToVideoPipeline": tiny_video_to_video.animatediff_video,
    "AnimateDiffVideoToVideoControlNetPipeline": tiny_video_to_video.animatediff_video_controlnet,
    "CogVideoXVideoToVideoPipeline": tiny_video_to_video.cogvideox_video,
    "WanVideoToVideoPipeline": tiny_video_to_video.wan_video,
    "VideoToVideoSDPipeline": tiny_video_to_video.modelscope_video,
    "WanModularPipeline": tiny_modular.wan_modular,
    "HunyuanVideo15ModularPipeline": tiny_modular.hunyuan_15_modular,
}
# Several samplings in one call. Tried in tests/guard/test_sections.py.
SECTIONS = {name: sections.build for name, sections in tiny_sections.SECTIONS.items()}
ALL = FAMILIES | MORE | SECTIONS  # every known class
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
        tiny = ALL[name]()
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
