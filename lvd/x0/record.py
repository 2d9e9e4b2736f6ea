"""Record the predicted x0 of any diffusers video pipeline into an x0 file, to train detectors on.

    videos = [{"prompt": prompt, "seed": seed} for seed, prompt in enumerate(prompts)]
    with lvd.record(pipe, "unsafe/pred_x0.pth", videos) as recording:
        for row in recording.missing:
            with recording.row(row) as video:
                generator = torch.Generator().manual_seed(video["seed"])
                pipe(video["prompt"], generator=generator)

A row is a video's place among the prompts; label files refer to it. When the script is stopped and
run again, it goes on, after it has compared the prompt and seed of every row that is there with
`videos`. Sampling inside the outer block but outside of a row raises InputError, because that video
would be recorded nowhere.
"""

import warnings
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import torch

from lvd.errors import InputError, plural, shorten
from lvd.utils.config import first_difference, versions
from lvd.x0.calls import watch_method
from lvd.x0.facts import list_facts, need_same_facts, plain_facts, without_added
from lvd.x0.file import create_x0_file, open_x0_file
from lvd.x0.growing import grow_x0_file
from lvd.x0.layouts import find_layout
from lvd.x0.sampled import SampledVideos
from lvd.x0.schedulers import describe_scheduler, need_scheduler
from lvd.x0.sidecar import need_same_recording, new_sidecar
from lvd.x0.watch import watch_of, watch_steps

DTYPES = ("float16", "bfloat16", "float32")


def record(pipe, path, videos, dtype="float16", layout=None, about=None):
    """Record the videos that a pipeline makes: `with record(pipe, path, videos) as recording:`.

    Args:
        pipe: a video pipeline of diffusers.
        path: of the x0 file; its sidecar and journals lie beside it.
        videos: [dict of what the sidecar says of the video], one for each row of the file, such as
            {"prompt": "a wave", "seed": 3}; plain JSON. Rows that are recorded already must have
            been made of the same. A list that goes on after them adds rows to the file. Or the
            number of rows alone; then nothing is compared, and none are added.
        dtype: of the file: "float16", "bfloat16" or "float32".
        layout: how the pipeline lays out its latents, as in `lvd.x0.layouts.find_layout`.
        about: plain JSON dict of what else makes these recordings: the model, the prompts, the
            guidance scale. A file that was made with another one is refused.

    Returns:
        A Recording, which is a context manager.

    Raises:
        InputError: the pipeline or scheduler is unknown, or the file that is there was made
            otherwise: by other settings, or of another prompt or seed in one of its rows.
    """
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InputError(f"dtype {shorten(dtype)}: one of {', '.join(DTYPES)} is needed")
    need_scheduler(pipe.scheduler)
    layout = find_layout(pipe, layout)
    return Recording(pipe, Path(path), videos, getattr(torch, dtype), layout, about or {})


class Recording:
    """Made by `record`. The file is made when the first video is finished.

    Attributes:
        whole: set of the rows that are recorded.
        videos: number of rows of the file.
    """

    def __init__(self, pipe, path, videos, dtype, layout, about):
        self.pipe = pipe
        self.path = path
        self._listed = list_facts(videos, path)  # [what the sidecar says of each row], or None
        self.videos = videos if self._listed is None else len(self._listed)
        self.dtype = dtype
        self.layout = layout
        self._scheduler = describe_scheduler(pipe.scheduler)
        self.meta = {
            "pipeline": type(pipe).__name__,
            "layout": layout.axes,
            "x0_mode": "true",
            "scheduler": self._scheduler,
            **about,
            "versions": versions(),
        }
        self._recorded = self._existing_rows() if path.exists() else {}  # {row: its facts}
        self.whole = set(self._recorded)
        self._writer = None
        self._open_block = None

    @property
    def missing(self):
        """[rows that are not recorded], in order."""
        return [row for row in range(self.videos) if row not in self.whole]

    @contextmanager
    def row(self, row, **facts):
        """Record the one video that the pipeline makes while the block runs.

        Args:
            row: its number, from 0.
            facts: what the sidecar says of it, such as prompt and seed; plain JSON. Not needed
                where `record` was given a list of them.

        Yields:
            These facts.
        """
        with self.rows([row], [facts] if facts or self._listed is None else None) as (known,):
            yield known

    @contextmanager
    def rows(self, rows, facts=None):
        """Record the videos that one call of the pipeline makes while the block runs.

        A pipeline that makes a long video in sections samples several times in one call. Then each
        sampling of each video has its row: those of the first sampling, those of the second, ...

        Nothing is written when the block fails or not all steps were taken.

        Args:
            rows: [B] numbers, in the order of the videos.
            facts: [B] dicts of what the sidecar says of each, see `row`.

        Yields:
            [B] dicts of these facts.

        Raises:
            InputError: a row is out of range, or is recorded already of other facts; the pipeline
                makes another number of videos, or not all of its denoising steps were taken; or
                its scheduler is another one than that of the recording.
        """
        facts = self._facts_of(rows, facts)
        scheduler = self.pipe.scheduler
        self._need_scheduler()
        sampled = SampledVideos(self.path, scheduler, len(rows), self.layout, self.dtype)

        def call(method, args, kwargs):
            self._need_kept(scheduler)
            return method(*args, **kwargs)

        with (
            _allow_steps(scheduler),
            self.layout.following(self.pipe),
            sampled.watch,
            _calls_of(self.pipe, call),
        ):
            yield facts
            self._need_kept(scheduler)
        x0, added = sampled.finished()  # [B, S, C, F, h, w]
        self._writer = self._writer or self._open(x0.shape[1:])
        infos = [{**of_row, **more} for of_row, more in zip(facts, added, strict=True)]
        self._writer.write_rows(rows, x0.unbind(), infos)
        self._recorded.update(zip(rows, facts, strict=True))
        self.whole.update(rows)

    def _facts_of(self, rows, facts):
        """What the sidecar will say of these rows; InputError for rows or facts that do not fit."""
        self._need_rows(rows, facts)
        if facts is None:
            facts = [self._listed[row] if self._listed else {} for row in rows]
        facts = [plain_facts(f, f"{self.path}: row {row}") for row, f in zip(rows, facts)]
        for row, of_row in zip(rows, facts, strict=True):
            if self._listed is not None:
                need_same_facts(self.path, row, self._listed[row], of_row, "listed")
            if row in self._recorded:
                need_same_facts(self.path, row, self._recorded[row], of_row, "recorded")
        return facts

    def _need_scheduler(self):
        """InputError if the pipeline has another scheduler than the recording was begun with."""
        need_scheduler(self.pipe.scheduler)
        now = describe_scheduler(self.pipe.scheduler)
        difference = first_difference(self._scheduler, now)
        if difference:
            key, there, here = difference
            raise InputError(
                f"{self.path}: recorded with scheduler {key} {shorten(there)}, now it is "
                f"{shorten(here)}; one recording has one scheduler"
            )

    def _need_kept(self, scheduler):
        """InputError if the pipeline has another scheduler than when the row began."""
        now = self.pipe.scheduler
        if now is not scheduler and watch_of(now) is not watch_of(scheduler):
            raise InputError(
                f"{self.path}: the pipeline's scheduler was replaced inside of a row, so not all "
                "steps would be recorded; replace it before the row begins"
            )

    def _need_rows(self, rows, facts):
        for row in rows:
            if type(row) is not int or not 0 <= row < self.videos or list(rows).count(row) > 1:
                raise InputError(
                    f"{self.path}: row {shorten(row)} is outside the {self.videos} videos of this "
                    "recording, or named twice"
                )
        if facts is not None and len(facts) != len(rows):
            raise InputError(f"{self.path}: facts of {len(facts)} video(s) for {len(rows)} row(s)")

    def _existing_rows(self):
        """Return {row: facts} of the existing file, which this recording must have made."""
        existing = open_x0_file(self.path)
        rows, *shape = existing.tensor.shape
        self._need_as_many(rows)
        need_same_recording(self.path, new_sidecar((rows, *shape), self.dtype, self.meta))
        recorded = {row: without_added(info) for row, info in existing.info.items()}
        if self._listed is not None:
            for row, facts in recorded.items():
                need_same_facts(self.path, row, facts, self._listed[row], "recorded")
        elif any(recorded.values()):
            warnings.warn(
                f"{self.path}: {plural(len(recorded), 'row')} recorded before, and whether of your "
                "prompts and seeds is not known; give videos=[{'prompt': ..., 'seed': ...}, ...]",
                UserWarning,
                stacklevel=4,
            )
        return recorded

    def _need_as_many(self, rows):
        """InputError for fewer videos than the recording has rows, or more without a list."""
        if self.videos < rows:
            raise InputError(
                f"{self.path}: has {plural(rows, 'row')}, now there are {self.videos} videos; "
                "give all of them, and make only the rows that you want"
            )
        if self.videos > rows and self._listed is None:
            raise InputError(
                f"{self.path}: has {plural(rows, 'row')}, now videos={self.videos}; to add rows "
                "give videos=[{'prompt': ..., 'seed': ...}, ...], the recorded ones first"
            )

    def _open(self, shape):
        if self.path.exists():
            grow_x0_file(self.path, self.videos, self.meta)
        return create_x0_file(
            self.path, self.videos, shape[0], tuple(shape[1:]), self.dtype, self.meta
        )

    def __enter__(self):
        scheduler = self.pipe.scheduler
        with ExitStack() as stack:
            if not isinstance(watch_of(scheduler), _RefuseSteps):  # else it serves both
                stack.enter_context(_RefuseSteps(scheduler, self.path))
            stack.enter_context(_calls_of(self.pipe, self._refuse_call))
            self._open_block = stack.pop_all()
        return self

    def __exit__(self, *_):
        if self._open_block:
            self._open_block.close()
            self._open_block = None
        if self._writer:
            self._writer.close()

    def _refuse_call(self, method, args, kwargs):
        raise _outside(self.path)


class _RefuseSteps(watch_steps):
    """Refuses all steps of a scheduler: a recording is open, and none of its rows is."""

    def __init__(self, scheduler, path):
        super().__init__(scheduler, on_step=None, on_use=self._refuse)
        self._path = path

    def _refuse(self):
        raise _outside(self._path)


def _outside(path):
    return InputError(
        f"{path}: a sampling outside of `with recording.row(...):`, which would not be "
        "recorded; make each video in its row, or before the recording begins"
    )


def _calls_of(pipe, handler):
    """Handle the pipeline's calls while the block runs, if it is something that is called."""
    return watch_method(pipe, "__call__", handler) if callable(pipe) else nullcontext()


@contextmanager
def _allow_steps(scheduler):
    """While the block runs, the scheduler may take steps."""
    refusal = watch_of(scheduler)
    if not isinstance(refusal, _RefuseSteps):
        yield
        return
    refusal.__exit__()
    try:
        yield
    finally:
        refusal.__enter__()
