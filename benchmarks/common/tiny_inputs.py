"""What tiny pipelines are called with: prompts and images of two kinds.

Prompts are embeddings (no tokenizer, no text encoder), images are made here. A video's `kind` is 1
or -1: its prompt lies to that side of a direction, its image is bright or dark, so that a detector
can tell the two apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import torch

WIDTH, TOKENS = 16, 4  # width and number of the tokens of a prompt
PIXELS = 32  # of images and, where the pipeline allows it, of videos


@dataclass(frozen=True)
class Tiny:
    """A pipeline and what to call it with: pipe(**tiny.inputs([kind, ...], seeds)).

    shape: (C, F, h, w) of one video's latents; fixed: arguments of every call; prompts: [(kind,
    row), ...] → arguments; clips: latents that the pipeline returns → [B, C, F, h, w]; videos: what
    it returns → videos or latents; steps: number of steps → arguments; most: how many videos it can
    make in one call, None: any number.
    """

    pipe: object
    shape: tuple
    fixed: dict
    prompts: Callable
    clips: Callable = lambda frames: frames
    videos: Callable = attrgetter("frames")
    steps: Callable = lambda number: {"num_inference_steps": number}
    most: int | None = None

    def inputs(self, kinds, seeds=(0,), first=0, steps=3, **changes):
        """Arguments of a call that makes len(kinds) videos. seeds: of the noise of each (one: the
        same for all); prompts of a kind differ a little from row to row, which count from `first`.
        """
        seeds = [*seeds] * (len(kinds) if len(seeds) == 1 else 1)
        wanted = list(zip(kinds, range(first, first + len(kinds)), strict=True))
        given = dict(
            **self.steps(steps),
            output_type="latent",
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        )
        return {**self.fixed, **given, **self.prompts(wanted), **changes}


def embeddings(wanted, tokens=TOKENS, width=WIDTH):
    """[B, tokens, width]: each kind times one direction, and a little of the row's own."""
    direction = 6 * own(1000, tokens, width)
    return torch.stack([kind * direction + 0.1 * own(row, tokens, width) for kind, row in wanted])


def guided(wanted, mask=False, width=WIDTH):
    """Prompts and empty negative ones, as most pipelines take them; mask: with the attention masks
    of both."""
    arguments = {
        "prompt_embeds": embeddings(wanted, width=width),
        "negative_prompt_embeds": torch.zeros(len(wanted), TOKENS, width),
    }
    if mask:
        ones = torch.ones(len(wanted), TOKENS, dtype=torch.bool)
        arguments |= {"prompt_attention_mask": ones, "negative_prompt_attention_mask": ones}
    return arguments


def guided_images(wanted, mask=False):
    """Prompts and the image that each video begins with."""
    return {**guided(wanted, mask), "image": images(wanted)}


def wide(frames, guidance_scale=3.0):
    """Arguments of a call: videos twice as wide as high, so that no two axes of the latents are
    alike."""
    return dict(num_frames=frames, height=PIXELS, width=2 * PIXELS, guidance_scale=guidance_scale)


def images(wanted):
    """[B, 3, H, W] in [0, 1]: bright or dark, with a little noise of the row's own."""
    pictures = [0.5 + 0.4 * kind + 0.05 * own(row, 3, PIXELS, PIXELS) for kind, row in wanted]
    return torch.stack(pictures).clamp(0, 1)


def pictures(wanted):
    """The same as a list of PIL images."""
    from PIL import Image

    return [
        Image.fromarray((255 * image).byte().permute(1, 2, 0).numpy()) for image in images(wanted)
    ]


def own(row, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(row))
