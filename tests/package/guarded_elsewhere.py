"""A program of somebody who has installed lvd: it records x0 of a pipeline's videos, waits for a
line on stdin while somebody makes detectors, and guards the pipeline with them.

It runs where nothing but the wheel and its requirements are installed.
"""

import importlib
import sys

import torch
from diffusers import AnimateDiffPipeline, AutoencoderKL, DDIMScheduler, UNetMotionModel

import lvd

VIDEOS, STEPS = 6, 4  # of the detectors that tests.worlds.guard_world makes
LAMBDA, ETA = 0.6, 3
# Imported only where they are needed, and not above.
LAZY = ("lvd.detectors.calibration", "lvd.data.rgb", "scipy.special", "lvd.utils.config")


def tiny_pipeline():
    torch.manual_seed(0)
    unet = UNetMotionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        norm_num_groups=4,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        use_motion_mid_block=False,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
    )
    pipe = AnimateDiffPipeline(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        motion_adapter=None,
        scheduler=DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(pipe, row):
    """Make the video of a row; its prompt and its noise are drawn from the row's number."""
    draw = torch.Generator().manual_seed(row)
    return pipe(
        prompt_embeds=torch.randn(1, 4, 16, generator=draw),
        negative_prompt_embeds=torch.zeros(1, 4, 16),
        num_frames=3,
        height=16,
        width=32,
        num_inference_steps=STEPS,
        generator=draw,
        output_type="latent",
    ).frames


def record(pipe):
    with lvd.record(pipe, "pred_x0.pth", videos=VIDEOS) as recording:
        for row in range(VIDEOS):
            with recording.row(row):
                sample(pipe, row)


def guard(pipe):
    """Print each row's verdict."""
    watching = lvd.Guard("detectors", lambda_=LAMBDA, eta=ETA)
    for row in range(VIDEOS):
        try:
            with watching.watch(pipe) as watch:
                sample(pipe, row)
            print(row, watch.results[0].verdict)
        except lvd.UnsafeVideoError as error:
            print(row, error.results[0].verdict)


if __name__ == "__main__":
    record(tiny_pipeline())
    print("recorded", flush=True)
    sys.stdin.readline()
    guard(tiny_pipeline())
    for name in LAZY:
        importlib.import_module(name)
    print(lvd.__file__)
