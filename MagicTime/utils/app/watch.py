"""Follows one job for one browser: what the page shows, update by update."""

import asyncio
import time

from lvd.errors import InputError
from lvd.utils.desk import DeskFull
from MagicTime.utils.app import words
from MagicTime.utils.app.asked import read_asked
from MagicTime.utils.app.job import ENDED, GONE, SHOWN, WAITING
from MagicTime.utils.app.plot import draw

TICK = 0.04  # seconds between two looks: 25 pictures a second
PLOT = 0.2  # seconds between two plots of a running video
CATCH_UP = 50  # updates in which frames that were held back are played


class Watcher:
    """Answers the button.

    Args:
        studio: MagicTime.utils.app.studio.Studio.
        previewer: MagicTime.utils.app.preview.Previewer.
        places: how many jobs may wait.
    """

    def __init__(self, studio, previewer, places):
        self._studio = studio
        self._previewer = previewer
        self._places = places

    async def sample(self, *values):
        """Sample what the form asks for.

        Args:
            values: of the form's fields, as JSON gives them.

        Yields:
            (banner, stage, plot); a stage or plot of None stays as it is.
        """
        try:
            asked = read_asked(values)
            job = await asyncio.to_thread(self._studio.job, asked)
            self._studio.desk.put(job)
        except InputError as error:
            yield words.refused(error), words.Stage.nothing("Nothing was sampled."), draw(None, 50)
            return
        except DeskFull:
            yield words.busy(self._places), words.Stage.nothing("Nothing was sampled."), None
            return
        try:
            async for update in self._updates(job):
                yield update
        finally:  # also when the browser has gone: gradio closes this generator then
            job.stop("The browser went away")
            self._studio.desk.drop(job)

    async def _updates(self, job):
        """Yield (banner, stage, plot) until the job has ended and all is shown."""
        stage = words.Stage(job)
        yield words.told(job, job.look(), self._ahead()), stage.held(), draw(None, job.steps)
        shown, plotted, drawn_at = 0, 0, 0.0
        while True:
            view = job.look()
            over = view.phase == ENDED
            if over and view.ending.kind not in SHOWN:
                break
            picture, plot = None, None
            if shown < len(view.x0):
                shown = min(len(view.x0), shown + max(1, len(view.x0) // CATCH_UP))
                uri = await asyncio.to_thread(self._previewer, view.x0[shown - 1])
                picture = stage.step(shown - 1, uri)
            elif over:
                break
            now = time.monotonic()
            if view.trace and view.steps_run > plotted and now - drawn_at > PLOT:
                plot, plotted, drawn_at = draw(view.trace, job.steps), view.steps_run, now
            ahead = self._ahead() if view.phase == WAITING else 0
            banner = words.told(job, view, ahead)
            yield banner, picture, plot
            await asyncio.sleep(TICK)
        plot = draw(view.trace, job.steps)
        if view.ending.clip is not None:
            yield words.told(job, view), stage.clip(view.ending.clip), plot
        else:
            gone = view.ending.kind == GONE
            text = "Cancelled." if gone else "No frame of this video was shown or kept."
            yield words.told(job, view), stage.nothing(text), plot

    def _ahead(self):
        """How many videos are made or wait at most before one that has just come."""
        desk = self._studio.desk
        return max(0, desk.waiting + desk.running - 1)
