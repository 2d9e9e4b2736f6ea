"""More tiny pipelines that sample several times in one call: chunks and windows of a long video."""

from types import SimpleNamespace

import torch

from benchmarks.common.tiny_inputs import PIXELS, TOKENS, WIDTH, Tiny, embeddings, guided, wide
from benchmarks.common.tiny_transformers import ltx_parts

STEPS = 3


def wan_vae():
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def helios():
    """Two chunks of three latent frames."""
    from diffusers import HeliosPipeline, HeliosScheduler, HeliosTransformer3DModel

    transformer = HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=1,
        rope_dim=(4, 4, 4),
    )
    pipe = HeliosPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=wan_vae(),
        scheduler=HeliosScheduler(stages=1, stage_range=[0, 1]),
        transformer=transformer,
    )
    fixed = dict(
        num_frames=18,
        num_latent_frames_per_chunk=3,
        history_sizes=[4, 2, 1],
        height=PIXELS,
        width=2 * PIXELS,
        guidance_scale=3.0,
    )
    return Tiny(pipe, (16, 3, 4, 8), fixed, guided)


def of_helios(pipe, returned, number):
    return returned[:, :, 3 * number : 3 * number + 3]


def anyflow():
    """One chunk: the whole video at once."""
    from diffusers import AnyFlowPipeline, AnyFlowTransformer3DModel

    pipe = AnyFlowPipeline(**anyflow_parts(AnyFlowTransformer3DModel))
    return Tiny(pipe, (16, 3, 4, 8), wide(9), guided)


def anyflow_far():
    """Two chunks of three latent frames."""
    from diffusers import AnyFlowFARPipeline, AnyFlowFARTransformer3DModel

    chunks = dict(full_chunk_limit=2, chunk_partition=(3, 3))
    pipe = AnyFlowFARPipeline(**anyflow_parts(AnyFlowFARTransformer3DModel, **chunks))

    def prompts(wanted):
        return {"prompt_embeds": embeddings(wanted)}

    fixed = dict(num_frames=21, height=PIXELS, width=2 * PIXELS)
    return Tiny(pipe, (16, 3, 4, 8), fixed, prompts)


def anyflow_parts(transformer, **settings):
    from diffusers import FlowMapEulerDiscreteScheduler

    return {
        "tokenizer": None,
        "text_encoder": None,
        "transformer": transformer(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=WIDTH,
            freq_dim=16,
            ffn_dim=32,
            num_layers=1,
            rope_max_seq_len=32,
            **settings,
        ),
        "vae": wan_vae(),
        "scheduler": FlowMapEulerDiscreteScheduler(shift=5.0),
    }


def of_anyflow_far(pipe, returned, number):
    return returned[:, :, 3 * number : 3 * number + 3]


class Texts(torch.nn.Module):
    """In the place of tokenizer and text encoder: "unsafe" in a prompt is one side of the world."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, ids, attention_mask=None):
        return (embeddings([(int(kind), 0) for kind in ids[:, 0]], ids.shape[1]),)


class Tokenizer:
    model_max_length = TOKENS

    def __call__(self, prompts, max_length=TOKENS, **_):
        ids = torch.tensor([[1 if "unsafe" in prompt else -1] * max_length for prompt in prompts])
        return SimpleNamespace(input_ids=ids, attention_mask=torch.ones_like(ids))

    def batch_decode(self, ids):
        return [""] * len(ids)


def ltx_long():
    """Two windows of three latent frames, of which the second begins with one of the first."""
    from diffusers import LTXEulerAncestralRFScheduler, LTXI2VLongMultiPromptPipeline

    parts = {**ltx_parts(), "scheduler": LTXEulerAncestralRFScheduler(eta=0.0)}
    pipe = LTXI2VLongMultiPromptPipeline(text_encoder=Texts(), tokenizer=Tokenizer(), **parts)
    fixed = dict(
        num_frames=33,
        height=64,
        width=96,
        temporal_tile_size=24,
        temporal_overlap=8,
        max_sequence_length=TOKENS,
        decode_horizontal_tiles=1,
        decode_vertical_tiles=1,
    )

    def prompts(wanted):
        ((kind, _),) = wanted
        return {"prompt": "unsafe" if kind > 0 else "fine"}

    def steps(number):
        return {"sigmas": torch.linspace(1, 0, number + 1)}

    return Tiny(pipe, (8, 3, 2, 3), fixed, prompts, steps=steps, most=1)


def of_ltx_long(pipe, returned, number):
    """The first window; the second one is blended with it."""
    return None if number else returned[:, :, :2]
