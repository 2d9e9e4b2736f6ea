"""Predicted x0 of one sampling, kept in memory."""

import torch

from lvd.x0.watch import watch_steps


class X0Recorder(watch_steps):
    """Keeps x0 of all denoising steps of a sampling in memory, on the CPU. A context manager.

    Args:
        scheduler: a scheduler of diffusers.
        unpack: function that makes [B, C, F, h, w] of the scheduler's tensors, such as
            `lvd.x0.layouts.find_layout(pipe).unpack`; None: they have that shape already.
        copies_are_others: as `watch_steps` takes it, such as that of the layout.

    Attributes:
        x0: [B, S, C, F, h, w], float32 (or wider).
        timesteps: [S], the timestep of each denoising step.
    """

    def __init__(self, scheduler, unpack=None, copies_are_others=False):
        super().__init__(scheduler, self._record, copies_are_others=copies_are_others)
        self._unpack = unpack

    def __enter__(self):
        self._steps = []
        self.timesteps = []
        return super().__enter__()

    def _record(self, step, timestep, x0, prev_sample):
        clips = self._unpack(x0) if self._unpack else x0
        self._steps.append(clips.to("cpu", copy=True))
        self.timesteps.append(timestep)

    @property
    def x0(self):
        """x0 of all steps, [B, S, C, F, h, w]."""
        return torch.stack(self._steps, 1)
