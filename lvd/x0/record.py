"""Record the predicted x0 of any pipeline of diffusers into an x0 file, from which the detectors'
scripts start.

    with lvd.record(pipe, "unsafe/pred_x0.pth", videos=len(prompts)) as recording:
        for row, prompt in enumerate(prompts):
            if row not in recording.whole:
                with recording.row(row, prompt=prompt, seed=row):
                    pipe(prompt, generator=torch.Generator().manual_seed(row))

A row is a video's place among the prompts, to which label files refer. Stopped and run again, it
goes on. What is sampled in the block and in no row would be recorded nowhere: InputError.
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
NOT_IDENTITY = ("versions",)


def record(pipe, path, videos, dtype="float16", layout=None, about=None):
    """A context manager: the Recording of `videos` videos that `pipe` makes, in the x0 file `path`
    and its sidecar.

    layout: as of `find_layout`. about: plain JSON dict, what else tells these recordings from
    others (the model, the prompts, the guidance); a file made with another one is not added to.
    InputError for a pipeline or scheduler that is not known.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: one of {', '.join(DTYPES)} is needed")
    need_scheduler(pipe.scheduler)
    return Recording(
        pipe, Path(path), videos, getattr(torch, dtype), find_layout(pipe, layout), about or {}
    )


class Recording:
    """What `record` hands out. whole: the rows that are recorded. The file is made when the first
    video is done."""

    def __init__(self, pipe, path, videos, dtype, layout, about):
        self.pipe, self.path, self.videos, self.dtype, self.layout = (
            pipe,
            path,
            videos,
            dtype,
            layout,
        )
        self.meta = {
            "pipeline": type(pipe).__name__,
            "layout": layout.axes,
            "x0_mode": "true",
            "scheduler": describe_scheduler(pipe.scheduler),
            **about,
            "versions": versions(),
        }
        self.whole, self._writer = self._there() if path.exists() else set(), None
        self._between = None

    def row(self, row, **facts):
        """While the block runs, the one video that the pipeline makes is recorded; facts: what the
        sidecar says of it."""
        return self.rows([row], [facts])

    @contextmanager
    def rows(self, rows, facts=None):
        """The same for a call of the pipeline that makes several videos, in their order; facts: a
        dict for each. Nothing is written when the block fails or not all steps were taken."""
        kept, planned = [], []
        if bad := [row for row in rows if not 0 <= row < self.videos]:
            raise InputError(
                f"{self.path}: row {bad[0]} is outside the {self.videos} videos of this recording"
            )
        if facts is not None and len(facts) != len(rows):
            raise InputError(f"{self.path}: facts of {len(facts)} video(s) for {len(rows)} row(s)")

        def keep(step, timestep, x0, prev_sample):
            clips = self.layout.unpack(x0)  # [B, C, F, h, w]
            if len(clips) != len(rows):
                raise InputError(
                    f"{self.path}: {len(rows)} row(s) named, the pipeline makes {len(clips)} "
                    "video(s) at once"
                )
            if timestep != planned[step]:
                raise InputError(
                    f"{self.path}: step {step} has timestep {timestep:g}, its scheduler's is "
                    f"{planned[step]:g}; a sampling that begins in the middle cannot be recorded"
                )
            kept.append(clips.to("cpu", self.dtype))

        def begin(timesteps):
            planned[:] = timesteps

        with (
            _aside(self.pipe.scheduler),
            self.layout.following(self.pipe),
            watch_steps(self.pipe.scheduler, keep, begin),
        ):
            yield
        if not kept or len(kept) != len(planned):
            raise InputError(
                f"{self.path}: {len(kept)} of {len(planned)} denoising steps were taken in this "
                "block; all are needed"
            )
        x0 = torch.stack(kept, 1)  # [B, S, C, F, h, w]
        self._writer = self._writer or self._open(x0.shape[1:])
        infos = [{**said, "timesteps": planned} for said in facts or [{}] * len(rows)]
        self._writer.write_rows(rows, x0.unbind(), infos)
        self.whole.update(rows)

    def _there(self):
        """The rows of the file that is there, which must be this recording's: found out before the
        first video is made."""
        found = open_x0_file(self.path)
        planned = new_sidecar((self.videos, *found.tensor.shape[1:]), self.dtype, self.meta)
        need_same_recording(self.path, planned, NOT_IDENTITY)
        return set(found.rows)

    def _open(self, shape):
        return create_x0_file(
            self.path, self.videos, shape[0], tuple(shape[1:]), self.dtype, self.meta, NOT_IDENTITY
        )

    def __enter__(self):
        if not isinstance(
            getattr(type(self.pipe.scheduler), WATCH, None), _Between
        ):  # another recording's does for both
            self._between = _Between(self.pipe.scheduler, self.path)
            self._between.__enter__()
        return self

    def __exit__(self, *_):
        if self._between:
            self._between.__exit__()
            self._between = None
        if self._writer:
            self._writer.close()


class _Between(watch_steps):
    """Refuses the steps that a scheduler takes while a recording is open and none of its rows is."""

    def __init__(self, scheduler, path):
        super().__init__(scheduler, self._refuse)
        self._path = path

    def _refuse(self, *_):
        raise InputError(
            f"{self._path}: a sampling outside of `with recording.row(...):`, which would not be "
            "recorded; make each video in its row, or before the recording begins"
        )


@contextmanager
def _aside(scheduler):
    """While the block runs, a scheduler that is refused steps may take them."""
    between = getattr(type(scheduler), WATCH, None)
    if not isinstance(between, _Between):
        yield
        return
    between.__exit__()
    try:
        yield
    finally:
        between.__enter__()
