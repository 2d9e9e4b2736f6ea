"""A tiny pipeline of SANA-WM. Its own transformer cannot be made small: a stand-in takes its place,
with random weights."""

import torch

from benchmarks.common.tiny_inputs import TOKENS, WIDTH, embeddings, pictures
from benchmarks.common.tiny_ltx2 import ltx2_parts
from benchmarks.common.tiny_wan import OneGenerator

CHANNELS, FRAMES = 4, 9
SHAPE = CHANNELS, 5, 4, 8  # C, F, h, w


class Transformer(torch.nn.Module):
    """A velocity from the latents and the mean of the prompt's tokens."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Conv3d(CHANNELS, CHANNELS, 1)
        self.read = torch.nn.Linear(WIDTH, CHANNELS)

    def forward(self, latents, timestep, prompts, return_dict, **_):
        prompt = self.read(prompts.flatten(1, -2).mean(1))
        return (self.mix(latents) + prompt.view(*prompt.shape, 1, 1, 1),)


def sana_wm():
    """One video a call."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SanaWMPipeline

    pipe = SanaWMPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=ltx2_parts()["vae"],
        transformer=Transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    fixed = dict(
        prompt=None,
        action=f"w-{FRAMES - 1}",
        intrinsics=[30.0, 30.0, 16.0, 16.0],
        num_frames=FRAMES,
        height=32,
        width=64,
        guidance_scale=3.0,
    )

    def prompts(wanted):
        mask = torch.ones(1, TOKENS)
        return {
            "image": pictures(wanted)[0],
            "prompt_embeds": embeddings(wanted)[:, None],
            "prompt_attention_mask": mask,
            "negative_prompt_embeds": torch.zeros(1, 1, TOKENS, WIDTH),
            "negative_prompt_attention_mask": mask,
        }

    return OneGenerator(pipe, SHAPE, fixed, prompts, most=1)
