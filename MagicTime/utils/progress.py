"""How far a run is: which videos are done, and the bar that the main process shows."""

from pathlib import Path

from lvd.utils.progress import progress
from MagicTime.utils.video import video_kinds


def is_done(plan, row, writers, told):
    """Tell whether a prompt needs no more sampling.

    It is done when its video is there and its recordings are whole. Under a guard its verdict must
    be there as well; of a stopped video the verdict is all there is.

    Args:
        plan: MagicTime.utils.sampling_plan.Plan.
        row: of the prompt.
        writers: {setting: lvd.x0.file.X0Writer}.
        told: {row: line of verdicts.jsonl}.
    """
    if plan.guarding and (row not in told or told[row]["stopped"]):
        return row in told
    video = plan.folder.video(plan.prompts[row])
    files = [Path(f"{video}.{kind}") for kind in video_kinds(plan.settings.format)]
    there = all(file.is_file() for file in files)
    return there and all(row in writer.whole for writer in writers.values())


class Progress:
    """The bar of the videos that are done, by all processes where the files tell of the others.

    Args:
        run: MagicTime.utils.run.Run.
        writers: {setting: lvd.x0.file.X0Writer}.
        done: videos that are done at the start.
        total: videos that will be done at the end.
    """

    def __init__(self, run, writers, done, total):
        self._done = done
        self._count = None  # how many videos the files call done; None: no file tells
        if run.plan.guarding:
            self._count = run.verdicts.count
        elif writers:
            self._count = next(iter(writers.values())).count_whole
        self._before = self._count() if self._count else 0
        hidden = not run.processes.is_main
        self._bar = progress(None, "prompts", "video", total, initial=done, disable=hidden)

    def step(self, step, steps):
        """Show how far the batch is: `step` of `steps`, from 0."""
        self._bar.set_postfix_str(f"step {step + 1}/{steps}", refresh=False)
        self._bar.update(0)

    def batch(self, videos):
        """Count a finished batch of `videos` new videos."""
        if self._count:
            videos = self._done + self._count() - self._before - self._bar.n
        self._bar.update(videos)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
