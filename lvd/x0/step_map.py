"""Which trained step a denoising step is: the one whose noise level is nearest.

Detectors are trained on the steps of one sampling, the *trained steps*, and another sampling of
the same model may have more or fewer of them, another spacing or another scheduler. What a
detector reads at a step depends on how noisy it is, and not on its number.
"""

import inspect
from dataclasses import dataclass
from itertools import pairwise

import torch

from lvd.errors import InputError
from lvd.x0.levels import level_of, levels_of
from lvd.x0.schedulers import (
    ALPHAS,
    SCHEDULERS,
    adds_noise,
    class_name,
    need_scheduler,
    timesteps_of,
)

# How far the level of a step may lie from that of its trained step: its signal-to-noise ratio may
# be up to 4.5 times as high or as low. Fifty DDIM steps lie 0.1 to 0.3 apart while the sample is
# noisy, and up to 2.5 at its cleanest end.
TOLERANCE = 1.5
# Below this level less than 1% of the sample is the video's: such steps are all alike.
NOISIEST = -10.0
SAME = 1e-3  # two levels that are nearer are the same, computed in two ways
EXACT = (  # flows whose timesteps are sigma times num_train_timesteps, and are not rounded
    "FlowMapEulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "LTXEulerAncestralRFScheduler",
)
MOST_TRAIN_TIMESTEPS = 100_000  # of a scheduler that a file describes
MOST_TIMESTEPS = 1000  # that are set on it; karras sigmas of 50,000 would take a minute


@dataclass(frozen=True)
class StepMap:
    """The steps of a sampling as trained steps.

    Attributes:
        trained: [S] numbers of the nearest trained steps.
        distances: [S] of |level - level of the trained step|.
        levels: [S] levels of the sampling; None where steps are trained steps by number.
    """

    trained: list
    distances: list
    levels: list | None = None

    def first(self, steps):
        """Return the StepMap of the first `steps` steps."""
        levels = None if self.levels is None else self.levels[:steps]
        return StepMap(self.trained[:steps], self.distances[:steps], levels)

    def level(self, step):
        """Return the noise level of a step; None where it is the trained step's own.

        It is NOISIEST or above: beyond that, a network that is told the level would be asked far
        from all that it has learned, about what looks alike.
        """
        return max(self.levels[step], NOISIEST) if self.distances[step] else None

    def looks(self, horizon):
        """Return how many steps, from the first on, a rule looks at: see `looks_of`."""
        return looks_of(self.trained, horizon)

    def need_near(self, steps, where):
        """InputError if one of the first `steps` steps lies too far from all trained ones.

        Args:
            steps: how many.
            where: what messages call the detectors.
        """
        for step in range(steps):
            if not self.distances[step] <= TOLERANCE:  # also where it is NaN
                raise InputError(
                    f"{where}: step {step} of this sampling has noise level "
                    f"{self.levels[step]:.2f} (log SNR), and the nearest trained one is "
                    f"{self.distances[step]:.2f} away; at most {TOLERANCE} is served, so train "
                    "detectors on a sampling of such steps"
                )

    def need_rising(self, where):
        """InputError if a later step is noisier than one before it: noise is added to the video
        again, and what a rule has seen of it by then says nothing of what comes out.

        Args:
            where: what messages call the detectors.
        """
        for step, (before, level) in enumerate(pairwise(self.levels), 1):
            if not level >= before - SAME:
                raise InputError(
                    f"{where}: step {step} of this sampling has noise level {level:.2f} (log SNR), "
                    f"after {before:.2f} at the step before; steps that are ever less noisy are "
                    "needed"
                )


def looks_of(trained_steps, horizon):
    """Return how many steps of a sampling, from the first on, a rule looks at.

    It looks at as wide a stretch of trained steps as its horizon, beginning where the sampling
    begins.

    Args:
        trained_steps: [S] numbers of the trained steps that judge the steps of the sampling.
        horizon: of the rule, in trained steps.

    Returns:
        A number of steps of this sampling, at least 1.
    """
    end = trained_steps[0] + horizon
    for step, trained in enumerate(trained_steps):
        if trained >= end:
            return step
    return len(trained_steps)


def same_steps(steps):
    """Return the StepMap of a sampling whose steps are the trained steps."""
    return StepMap(list(range(steps)), [0.0] * steps)


def same_levels(before, now):
    """Tell whether two lists of levels are the same, whichever machine has computed them."""
    if len(before) != len(now):
        return False
    return all(abs(a - b) <= SAME for a, b in zip(before, now, strict=True))


def map_steps(trained_levels, levels):
    """Find the nearest trained step of each step of a sampling.

    Args:
        trained_levels: [T] levels of the sampling that detectors were trained on.
        levels: [S] levels of another one.

    Returns:
        A StepMap. Each step of the same sampling is itself. Of several trained steps that are
        equally near, such as those beyond NOISIEST, the one of the nearest level as it stands is
        taken, then the earliest.
    """
    if same_levels(trained_levels, levels):
        return StepMap(list(range(len(levels))), [0.0] * len(levels), list(levels))
    trained, distances = [], []
    for level in levels:
        noisy = max(level, NOISIEST)
        near = [(abs(noisy - max(own, NOISIEST)), abs(level - own)) for own in trained_levels]
        nearest = min(range(len(near)), key=near.__getitem__)
        distance = near[nearest][0]
        trained.append(nearest)
        distances.append(0.0 if distance <= SAME else distance)
    return StepMap(trained, distances, list(levels))


def levels_of_sampling(sampling):
    """Return the levels of a described sampling, or None where they cannot be told.

    Args:
        sampling: dict as in lvd.x0.provenance. Without `levels`, as recordings and detectors were
            written before, they follow from its scheduler and timesteps.

    Returns:
        [S] floats, or None.
    """
    if sampling.get("levels"):
        return list(sampling["levels"])
    recorded, timesteps = sampling.get("scheduler"), sampling.get("timesteps")
    scheduler = _scheduler_of(recorded) if recorded and timesteps else None
    if scheduler is None:
        return None
    try:
        return _levels_at(scheduler, timesteps)
    except Exception:  # settings of a file that this scheduler cannot work with
        return None


def _scheduler_of(recorded):
    """Make the scheduler that a file describes; None if x0 is not known of it."""
    import diffusers

    name = recorded.get("class")
    kind = getattr(diffusers, str(name), None) if name in SCHEDULERS else None
    most = recorded.get("num_train_timesteps", 1000)
    if kind is None or type(most) is not int or not 1 <= most <= MOST_TRAIN_TIMESTEPS:
        return None
    known = inspect.signature(kind.__init__).parameters
    settings = {key: value for key, value in recorded.items() if key in known and key != "self"}
    try:
        return kind(**settings)
    except Exception:  # whatever a file says of it
        return None


def _levels_at(scheduler, timesteps):
    """The levels of a scheduler at these timesteps; None if they do not follow from them."""
    kind = need_scheduler(scheduler)
    if kind == ALPHAS:
        bars = scheduler.alphas_cumprod[torch.tensor(timesteps).long()].tolist()
        return [level_of(bar**0.5, (1 - bar) ** 0.5) for bar in bars]
    if _takes_own(scheduler, timesteps):
        return levels_of(scheduler)
    if class_name(scheduler) not in EXACT:
        return None  # timesteps that are rounded, or other than sigma
    sigmas = [timestep / scheduler.config.num_train_timesteps for timestep in timesteps]
    if scheduler.config.get("invert_sigmas"):
        return [level_of(sigma, 1 - sigma) for sigma in sigmas]
    if adds_noise(sigmas):
        return [level_of(1.0, sigma) for sigma in sigmas]
    return [level_of(1 - sigma, sigma) for sigma in sigmas]


def _takes_own(scheduler, timesteps):
    """Set the timesteps as many as these are, and tell whether they are these."""
    if len(timesteps) > MOST_TIMESTEPS:
        return False
    try:
        scheduler.set_timesteps(len(timesteps))
    except Exception:  # it needs to know the size of the video, too
        return False
    own = timesteps_of(scheduler)
    return len(own) == len(timesteps) and all(
        abs(one - other) <= 1e-3 for one, other in zip(own, timesteps, strict=True)
    )
