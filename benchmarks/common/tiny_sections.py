"""Tiny pipelines that sample several times in one call: each makes its video in sections.

A section begins with the end of the one before, so a part that is not checked would come out in the
next one too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from PIL import Image

from benchmarks.common import tiny_ltx2, tiny_windows
from benchmarks.common.tiny_inputs import PIXELS, TOKENS, WIDTH, Tiny, embeddings, guided, images


@dataclass(frozen=True)
class Sections:
    """A pipeline whose calls sample several times.

    build: makes the Tiny; samplings: of one call; finished: the pipeline, what it returns with
    output_type latent, the number of a sampling → the latents of that section when it was over, or
    None where it does not return them; clips: the pipeline, the scheduler's tensor → [B, C, F, h,
    w].
    """

    build: Callable
    samplings: int
    finished: Callable
    clips: Callable = lambda pipe, x: x


class Embedder(torch.nn.Module):
    """In the place of an image encoder: mean colours, repeated."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, width):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self._width = width

    def forward(self, pixel_values=None, output_hidden_states=False):
        found = pixel_values.mean((2, 3))[:, None].repeat(1, TOKENS, self._width)[
            ..., : self._width
        ]
        return SimpleNamespace(last_hidden_state=found, hidden_states=[found] * 3)


class Pixels(dict):
    """What feature extractors return."""

    def to(self, device=None, dtype=None):
        return Pixels({name: value.to(device, dtype) for name, value in self.items()})

    @property
    def pixel_values(self):
        return self["pixel_values"]


def extract(images, return_tensors=None, do_rescale=True):
    """In the place of an image processor."""
    if isinstance(images, Image.Image):
        images = torch.zeros(1, 3, 8, 8) + images.resize((1, 1)).getpixel((0, 0))[0] / 255
    return Pixels(pixel_values=torch.as_tensor(images, dtype=torch.float32))


def framepack():
    """The sections are sampled last to first, each of three latent frames."""
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoFramepackPipeline,
        HunyuanVideoFramepackTransformer3DModel,
    )

    transformer = HunyuanVideoFramepackTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        text_embed_dim=WIDTH,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
        has_image_proj=True,
        image_proj_dim=WIDTH,
        has_clean_x_embedder=True,
    )
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=True,
    )
    pipe = HunyuanVideoFramepackPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=None,
        tokenizer_2=None,
        image_encoder=Embedder(WIDTH),
        feature_extractor=extract,
    )

    def prompts(wanted):
        return {
            "prompt_embeds": embeddings(wanted),
            "pooled_prompt_embeds": embeddings(wanted, 1, 8)[:, 0],
            "prompt_attention_mask": torch.ones(len(wanted), TOKENS),
            "image": images(wanted),
        }

    fixed = dict(num_frames=13, latent_window_size=3, height=PIXELS, width=2 * PIXELS)

    return Tiny(pipe, (4, 3, 4, 8), fixed, prompts)


def of_framepack(pipe, returned, number):
    """All frames so far, the last ones first; the image stands in front of the last section."""
    return returned[1][:, :, 1:4] if number else returned[0][:, :, :3]


def wan_animate():
    """The pose of one video is there for all of a batch. A last frame of a segment is the first
    of the next."""
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanAnimatePipeline,
        WanAnimateTransformer3DModel,
    )

    transformer = WanAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=36,
        latent_channels=16,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=1,
        image_dim=WIDTH,
        rope_max_seq_len=32,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8},
        motion_encoder_size=16,
        motion_style_dim=8,
        motion_dim=4,
        motion_encoder_dim=8,
        face_encoder_hidden_dim=16,
        face_encoder_num_heads=2,
        inject_face_latents_blocks=1,
    )
    pipe = WanAnimatePipeline(
        tokenizer=None,
        text_encoder=None,
        vae=AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        image_processor=extract,
        image_encoder=Embedder(WIDTH),
        transformer=transformer,
    )
    pose = [Image.new("RGB", (2 * PIXELS, PIXELS), (9 * k, 0, 99)) for k in range(17)]
    face = [Image.new("RGB", (16, 16), (99, 9 * k, 0)) for k in range(17)]
    fixed = dict(
        image=Image.new("RGB", (2 * PIXELS, PIXELS), (200, 100, 50)),
        pose_video=pose,
        face_video=face,
        height=PIXELS,
        width=2 * PIXELS,
        segment_frame_length=9,
    )

    return Tiny(pipe, (16, 4, 4, 8), fixed, guided)


def of_wan_animate(pipe, returned, number):
    """The last segment, scaled for the decoder."""
    mean, std = (torch.tensor(pipe.vae.config[f"latents_{k}"]) for k in ("mean", "std"))
    return (returned - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1) if number else None


SECTIONS = {
    "HunyuanVideoFramepackPipeline": Sections(framepack, 2, of_framepack),
    "WanAnimatePipeline": Sections(wan_animate, 2, of_wan_animate),
    "HeliosPipeline": Sections(tiny_windows.helios, 2, tiny_windows.of_helios),
    "AnyFlowFARPipeline": Sections(
        tiny_windows.anyflow_far, 2, tiny_windows.of_anyflow_far, lambda pipe, x: x.transpose(1, 2)
    ),
    "LTXI2VLongMultiPromptPipeline": Sections(
        tiny_windows.ltx_long,
        2,
        tiny_windows.of_ltx_long,
        lambda pipe, x: pipe._unpack_latents(x, x.shape[1] // 6, 2, 3)[:, :, :3],
    ),
    "LTX2DFRTemporalRefinePipeline": Sections(
        tiny_ltx2.ltx2_temporal_refine,
        2,
        tiny_ltx2.of_temporal_refine,
        lambda pipe, x: x[:, : 5 * 4 * 8].transpose(1, 2).unflatten(2, (5, 4, 8)),
    ),
}
