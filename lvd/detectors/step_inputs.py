"""How the shared detector is told the denoising step: by its number, or by its noise level.

By number, two tables have a row for each step (lvd.detectors.shared). By level, the small network
here takes their place, so that any level can be asked for, also one between those of the trained
steps (lvd.x0.levels).
"""

import math

import torch
from torch import nn

TABLE, LEVEL = "table", "level"
STEP_INPUTS = (TABLE, LEVEL)

# Sinusoids of the level, as of positions in "Attention Is All You Need" (arXiv 1706.03762, section
# 3.5). Levels lie in [-20, 20]: the longest period tells all of them apart. Neighbouring steps of
# 50 lie about a quarter apart: the shortest period is smooth between them.
LONGEST, SHORTEST, WAVES = 80.0, 2.0, 8


def sinusoids(levels):
    """Return the sinusoids of levels.

    Args:
        levels: [N].

    Returns:
        [N, 2 * WAVES]: sines, then cosines, of the longest period first.
    """
    powers = torch.arange(WAVES, dtype=levels.dtype, device=levels.device) / (WAVES - 1)
    periods = LONGEST * (SHORTEST / LONGEST) ** powers
    angles = 2 * math.pi * levels[:, None] / periods
    return torch.cat([angles.sin(), angles.cos()], 1)


class LevelNetwork(nn.Module):
    """By level: sinusoids and two linear layers."""

    def __init__(self, levels, width):
        """
        Args:
            levels: [S] of the trained steps.
            width: of the tokens.
        """
        super().__init__()
        # Of the file, but not of the weights; on the CPU also where the weights have no values yet.
        known = torch.tensor(levels, dtype=torch.float32, device="cpu")
        self.register_buffer("levels", known, persistent=False)
        self.hidden = nn.Linear(2 * WAVES, 2 * width)
        self.out = nn.Linear(2 * width, 3 * width)
        self.width = width

    def initialise(self, seed):
        """Begin as the tables do: small random additions to the tokens, and no modulation."""
        generator = torch.Generator().manual_seed(seed)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        nn.init.normal_(self.out.weight[: self.width], std=0.02, generator=generator)

    def forward(self, at, levels=None):
        """Return what is added to every token [N, width], and scale and shift [N, 2 * width].

        Args:
            at: [N] positions in the list of steps, whose levels count where `levels` is None.
            levels: [N].
        """
        if levels is None:
            levels = self.levels[at]
        found = self.out(nn.functional.silu(self.hidden(sinusoids(levels))))
        return found.split((self.width, 2 * self.width), 1)
