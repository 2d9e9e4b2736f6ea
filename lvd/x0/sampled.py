"""The x0 of the samplings that one call of a pipeline makes."""

import torch

from lvd.errors import InputError, plural
from lvd.x0.watch import watch_steps


class SampledVideos:
    """Collects x0 of every denoising step while a pipeline is called.

    Args:
        path: of the recording, for messages.
        scheduler: of the pipeline.
        rows: how many rows of the recording the call fills.
        layout: lvd.x0.layouts.Layout of the latents.
        dtype: of the recording.

    Attributes:
        watch: the watch_steps to enter around the call.
    """

    def __init__(self, path, scheduler, rows, layout, dtype):
        self.watch = watch_steps(
            scheduler,
            self._keep,
            self._begin,
            copies_are_others=layout.copies_are_others,
            several=True,
        )
        self._path = path
        self._rows = rows
        self._layout = layout
        self._dtype = dtype
        self._samplings = []  # those that have taken a step: (timesteps, levels, [x0 of a step])
        self._planned = None  # (timesteps, levels, []) of one that has taken none

    def _begin(self, timesteps):
        self._planned = timesteps, self.watch.state.levels, []

    def _keep(self, step, timestep, x0, prev_sample):
        if self._planned:
            self._samplings.append(self._planned)
            self._planned = None
        timesteps, _, steps = self._samplings[-1]
        if timestep != timesteps[step]:
            raise InputError(
                f"{self._path}: step {step} has timestep {timestep:g}, its scheduler's is "
                f"{timesteps[step]:g}; the steps of a recording are those of its scheduler"
            )
        clips = self._layout.unpack(x0)  # [B, C, F, h, w]
        if self._rows % len(clips):
            raise self._other_number(len(clips))
        steps.append(clips.to("cpu", self._dtype))

    def finished(self):
        """Return what was sampled when the call is over.

        Returns:
            x0 [R, S, C, F, h, w] of all rows, those of the first sampling first; and [R] dicts of
            what the recording says of their sampling: timesteps, levels and, where there were
            several in the call, the number of the sampling.

        Raises:
            InputError: not all denoising steps were taken, there are more or fewer videos than
                rows, or the samplings of the call are not alike.
        """
        if not self._samplings:
            planned = len(self._planned[0]) if self._planned else 0
            raise self._not_all(0, planned)
        shapes = {tuple(steps[0].shape) for _, _, steps in self._samplings}
        lengths = {len(timesteps) for timesteps, _, _ in self._samplings}
        for timesteps, _, steps in self._samplings:
            if len(steps) != len(timesteps):
                raise self._not_all(len(steps), len(timesteps))
        if len(shapes) > 1 or len(lengths) > 1:
            raise InputError(
                f"{self._path}: the samplings of this call differ in their number of steps or the "
                f"shape of their latents ({', '.join(map(str, sorted(shapes)))}); rows of one "
                "recording must be alike"
            )
        x0 = torch.cat([torch.stack(steps, 1) for _, _, steps in self._samplings])
        if len(x0) != self._rows:
            raise self._other_number(len(x0) // len(self._samplings))
        return x0, self._added(len(x0) // len(self._samplings))

    def _added(self, videos):
        added = []
        for number, (timesteps, levels, _) in enumerate(self._samplings):
            of_sampling = {"timesteps": timesteps, "levels": levels}
            if len(self._samplings) > 1:
                of_sampling["sampling"] = number
            added += [of_sampling] * videos
        return added

    def _other_number(self, videos):
        samplings = len(self._samplings)
        times = f", in each of its {samplings} samplings" if samplings > 1 else ""
        return InputError(
            f"{self._path}: {plural(self._rows, 'row')} named, the pipeline makes "
            f"{plural(videos, 'video')} at once{times}; each video of each sampling has its row"
        )

    def _not_all(self, taken, planned):
        return InputError(
            f"{self._path}: {taken} of {planned} denoising steps were taken in this block; all are "
            "needed"
        )
