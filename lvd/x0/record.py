"""Record the predicted x0 of any diffusers video pipeline into an x0 file, to train detectors on.

    with lvd.record(pipe, "unsafe/pred_x0.pth", videos=len(prompts)) as recording:
        for row, prompt in enumerate(prompts):
            if row not in recording.whole:
                with recording.row(row, prompt=prompt, seed=row):
                    pipe(prompt, generator=torch.Generator().manual_seed(row))

A row is a video's place among the prompts; label files refer to it. When the script is stopped and
run again, it goes on. Sampling inside the outer block but outside of a row raises InputError,
because that video would be recorded nowhere.
"""

from contextlib import contextmanager
from pathlib import Path

import torch

from lvd.errors import InputError
from lvd.utils.config import versions
from lvd.x0.file import create_x0_file, open_x0_file
from lvd.x0.layouts import find_layout
from lvd.x0.schedulers import describe_scheduler, need_scheduler
from lvd.x0.sidecar import need_same_recording, new_sidecar
from lvd.x0.watch import WATCH, watch_steps

DTYPES = ("float16", "bfloat16", "float32")


def record(pipe, path, videos, dtype="float16", layout=None, about=None):
    """Record the videos that a pipeline makes: `with record(pipe, path, videos) as recording:`.

    Args:
        pipe: a video pipeline of diffusers.
        path: of the x0 file; its sidecar and journals lie beside it.
        videos: number of rows of the file.
        dtype: of the file: "float16", "bfloat16" or "float32".
        layout: how the pipeline lays out its latents, as in `lvd.x0.layouts.find_layout`.
        about: plain JSON dict of what else makes these recordings: the model, the prompts, the
            guidance scale. A file that was made with another one is refused.

    Returns:
        A Recording, which is a context manager.

    Raises:
        InputError: the pipeline or scheduler is unknown, or the file that is there was made
            otherwise.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: one of {', '.join(DTYPES)} is needed")
    need_scheduler(pipe.scheduler)
    layout = find_layout(pipe, layout)
    return Recording(pipe, Path(path), videos, getattr(torch, dtype), layout, about or {})


class Recording:
    """Made by `record`. The file is made when the first video is finished.

    Attributes:
        whole: set of the rows that are recorded.
    """

    def __init__(self, pipe, path, videos, dtype, layout, about):
        self.pipe = pipe
        self.path = path
        self.videos = videos
        self.dtype = dtype
        self.layout = layout
        self.meta = {
            "pipeline": type(pipe).__name__,
            "layout": layout.axes,
            "x0_mode": "true",
            "scheduler": describe_scheduler(pipe.scheduler),
            **about,
            "versions": versions(),
        }
        self.whole = self._existing_rows() if path.exists() else set()
        self._writer = None
        self._refusal = None

    def row(self, row, **facts):
        """Record the one video that the pipeline makes while the block runs.

        Args:
            row: its number, from 0.
            facts: what the sidecar says of it, such as prompt and seed; plain JSON.
        """
        return self.rows([row], [facts])

    @contextmanager
    def rows(self, rows, facts=None):
        """Record the videos that one call of the pipeline makes while the block runs.

        Nothing is written when the block fails or not all steps were taken.

        Args:
            rows: [B] numbers, in the order of the videos.
            facts: [B] dicts of what the sidecar says of each.

        Raises:
            InputError: a row is out of range, the pipeline makes another number of videos, or not
                all of its denoising steps were taken.
        """
        self._need_rows(rows, facts)
        x0_of_steps = []
        planned = []

        def begin(timesteps):
            planned[:] = timesteps

        def keep(step, timestep, x0, prev_sample):
            clips = self.layout.unpack(x0)  # [B, C, F, h, w]
            self._need_step(step, timestep, planned, len(clips), len(rows))
            x0_of_steps.append(clips.to("cpu", self.dtype))

        with (
            _allow_steps(self.pipe.scheduler),
            self.layout.following(self.pipe),
            watch_steps(self.pipe.scheduler, keep, begin),
        ):
            yield
        if not x0_of_steps or len(x0_of_steps) != len(planned):
            raise InputError(
                f"{self.path}: {len(x0_of_steps)} of {len(planned)} denoising steps were taken in "
                "this block; all are needed"
            )
        x0 = torch.stack(x0_of_steps, 1)  # [B, S, C, F, h, w]
        self._writer = self._writer or self._open(x0.shape[1:])
        infos = [{**of_row, "timesteps": planned} for of_row in facts or [{}] * len(rows)]
        self._writer.write_rows(rows, x0.unbind(), infos)
        self.whole.update(rows)

    def _need_rows(self, rows, facts):
        for row in rows:
            if not 0 <= row < self.videos:
                raise InputError(
                    f"{self.path}: row {row} is outside the {self.videos} videos of this recording"
                )
        if facts is not None and len(facts) != len(rows):
            raise InputError(f"{self.path}: facts of {len(facts)} video(s) for {len(rows)} row(s)")

    def _need_step(self, step, timestep, planned, videos, rows):
        if videos != rows:
            raise InputError(
                f"{self.path}: {rows} row(s) named, the pipeline makes {videos} video(s) at once"
            )
        if timestep != planned[step]:
            raise InputError(
                f"{self.path}: step {step} has timestep {timestep:g}, its scheduler's is "
                f"{planned[step]:g}; a sampling that begins in the middle cannot be recorded"
            )

    def _existing_rows(self):
        """Return the whole rows of the existing file, which this recording must have made."""
        existing = open_x0_file(self.path)
        planned = new_sidecar((self.videos, *existing.tensor.shape[1:]), self.dtype, self.meta)
        need_same_recording(self.path, planned)
        return set(existing.rows)

    def _open(self, shape):
        return create_x0_file(
            self.path, self.videos, shape[0], tuple(shape[1:]), self.dtype, self.meta
        )

    def __enter__(self):
        if _refusal_of(self.pipe.scheduler) is None:  # else another recording's serves both
            self._refusal = _RefuseSteps(self.pipe.scheduler, self.path)
            self._refusal.__enter__()
        return self

    def __exit__(self, *_):
        if self._refusal:
            self._refusal.__exit__()
            self._refusal = None
        if self._writer:
            self._writer.close()


class _RefuseSteps(watch_steps):
    """Refuses all steps of a scheduler: a recording is open, and none of its rows is."""

    def __init__(self, scheduler, path):
        super().__init__(scheduler, self._refuse)
        self._path = path

    def _refuse(self, *_):
        raise InputError(
            f"{self._path}: a sampling outside of `with recording.row(...):`, which would not be "
            "recorded; make each video in its row, or before the recording begins"
        )


def _refusal_of(scheduler):
    """The _RefuseSteps that watches the scheduler, or None."""
    watch = getattr(type(scheduler), WATCH, None)
    return watch if isinstance(watch, _RefuseSteps) else None


@contextmanager
def _allow_steps(scheduler):
    """While the block runs, the scheduler may take steps."""
    refusal = _refusal_of(scheduler)
    if refusal is None:
        yield
        return
    refusal.__exit__()
    try:
        yield
    finally:
        refusal.__enter__()
