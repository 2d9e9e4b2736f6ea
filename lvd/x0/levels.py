"""Noise levels: what a denoising step is, whatever the scheduler and the number of its steps.

At a step the sample is x_t = alpha x0 + sigma noise. Its level is the log signal-to-noise ratio
log(alpha^2 / sigma^2), as in "Variational Diffusion Models" (arXiv 2107.00630, section 3.2): small
where nearly all is noise, and the same number for every scheduler that can stand at this step.
"""

import math
from typing import Annotated

from pydantic import Field

from lvd.x0.schedulers import positions_of, signal_and_noise

MOST = 20.0  # levels lie in [-MOST, MOST]: also where there is no signal, or no noise, at all
Level = Annotated[float, Field(ge=-MOST, le=MOST, allow_inf_nan=False)]  # as a file holds it


def levels_of(scheduler):
    """Return the level of each denoising step of the scheduler's present timesteps.

    Args:
        scheduler: a scheduler that x0 is known of (lvd.x0.schedulers), after `set_timesteps`.

    Returns:
        [S] floats in [-20, 20], in the scheduler's order: the noisiest first.

    Raises:
        InputError: no closed form is known here for the scheduler's class.
    """
    return [
        level_of(*signal_and_noise(scheduler, position)) for position in positions_of(scheduler)
    ]


def level_of(alpha, sigma):
    """Return the level of x_t = alpha x0 + sigma noise, limited to [-20, 20]."""
    if not alpha > 0:
        return -MOST
    if not sigma > 0:
        return MOST
    level = 2 * (math.log(alpha) - math.log(sigma))
    return min(max(level, -MOST), MOST)
