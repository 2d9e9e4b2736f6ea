"""What the page says of a video: the banner, and the stage on which its frames appear."""

from html import escape

from lvd.errors import plural
from lvd.guard.result import UNCHECKED
from lvd.rules.rule import SAFE, UNSAFE
from MagicTime.utils.app.job import ENDED, FAILED, GONE, UNGUARDED, WAITING
from MagicTime.utils.app.preview import data_uri

# Kinds of banners, which the style sheet colours.
GOOD, BAD, ODD, CALM = "good", "bad", "odd", "calm"
COLOURS = {SAFE: GOOD, UNSAFE: BAD, UNCHECKED: BAD, UNGUARDED: ODD, FAILED: BAD, GONE: CALM}
LOOKS = "Frames appear here once the guard can no longer stop the video."


def banner(kind, title, text=""):
    """Return a banner; title and text are plain text."""
    return (
        f'<div class="lvd-banner lvd-{kind}" role="status"><b>{escape(title)}</b> '
        f"<span>{escape(text)}</span></div>"
    )


def hello():
    """Return the banner of a page on which nothing has been asked for."""
    return banner(CALM, "Ready.", "Type a prompt or pick an example, then press Sample.")


def refused(error):
    """Return the banner of bad input."""
    return banner(BAD, "Not sampled.", str(error).removeprefix("the form: "))


def busy(places):
    """Return the banner of a full line."""
    waiting = f"{plural(places, 'video')} already {'waits' if places == 1 else 'wait'}"
    return banner(ODD, "Too busy.", f"{waiting}, which is all that may. Try again in a moment.")


def told(job, view, ahead=0):
    """Return the banner of a job.

    Args:
        job: MagicTime.utils.app.job.Job.
        view: its View.
        ahead: how many videos come before it, while it waits.
    """
    if view.phase == WAITING:
        return banner(CALM, "Waiting.", f"{plural(ahead, 'video')} before yours.")
    if view.phase != ENDED:
        where = f"Sampling: {view.steps_run} of {plural(job.steps, 'step')}."
        return banner(CALM, where, _so_far(job, view))
    ending = view.ending
    return banner(COLOURS[ending.kind], *_ended(job, ending))


def _so_far(job, view):
    """Say what is known of a video that is being sampled."""
    if job.guard is None:
        return "The guard is off: nobody checks this video."
    trace = view.trace
    if trace is None or not len(trace.numbers):
        return "The guard looks at each step."
    if view.x0:
        return "The guard is certain: this video is safe."
    if trace.is_vote:
        votes = int((trace.numbers >= trace.bounds[: len(trace.numbers)]).any(1).sum())
        return f"{votes} of {plural(len(trace.numbers), 'step')} voted unsafe."
    column = int(trace.numbers[-1].argmax())
    return f"The guard still looks; now the most probable is {_likely(trace, column)}."


def _likely(trace, column):
    return f"{trace.categories[column]}, {trace.numbers[-1, column]:.3g}"


def _ended(job, ending):
    """Return (title, text) of an ending."""
    seed = f"Seed {job.asked.seed}."
    result = ending.result
    if ending.kind == SAFE:
        looked = plural(len(result.votes), "step")
        flags = f" Flagged: {', '.join(result.flags)}." if result.flags else ""
        return "Safe.", f"The guard looked at {looked}: {result.reason}.{flags} {seed}"
    if ending.kind == UNGUARDED:
        return "Not checked.", f"The guard was off: nobody knows whether this is safe. {seed}"
    if ending.kind == UNSAFE:
        names = " and ".join(result.categories) or "unsafe"
        title = f"Stopped after {result.steps_run} of {plural(job.steps, 'step')}: {names}."
        saved = f"{plural(result.steps_saved, 'step')} and the decoding were saved"
        seconds = f" (about {result.seconds_saved:.1f} s)" if result.steps_saved else ""
        text = f"{_sentence(result.reason)} {saved}{seconds}. No frame was decoded or shown. {seed}"
        return title, text
    if ending.kind == GONE:
        return "Cancelled.", f"{_sentence(ending.reason)} Nothing of the video is kept."
    title = {UNCHECKED: "Not checked, so not shown.", FAILED: "Failed, so not shown."}
    return title[ending.kind], f"{_sentence(ending.reason)} {seed}"


def _sentence(text):
    """Return words as a sentence; the first letter stays, it may be a category's name."""
    return f"{text.rstrip('.')}." if text else ""


class Stage:
    """What is to be seen of one video: x0 as it comes in, then the clip.

    Args:
        job: Job.
    """

    STRIP = 8  # small pictures below the large one

    def __init__(self, job):
        self._job = job
        count = min(self.STRIP, job.steps)
        last = job.steps - 1
        self._kept = {round(k * last / max(1, count - 1)) for k in range(count)}
        self._strip = []

    def held(self):
        """Return the stage while nothing may be shown."""
        looks = LOOKS if self._job.guard is not None else "The first step is on its way."
        return _stage(f'<div class="lvd-held"><span>{looks}</span></div>', "", [])

    def step(self, number, picture):
        """Return the stage at a step; `picture`: data URI of its x0."""
        if number in self._kept:
            self._strip.append((number, picture))
        large = f'<img src="{picture}" alt="predicted x0 at step {number}" decoding="sync">'
        caption = f"Predicted x0 at step {number} of 0 to {self._job.steps - 1}"
        return _stage(large, caption, self._strip)

    def clip(self, content):
        """Return the stage with the finished clip; `content`: bytes of an mp4."""
        video = (
            f'<video src="{data_uri("video/mp4", content)}" autoplay loop muted playsinline '
            'controls aria-label="the finished clip"></video>'
        )
        caption = "The finished clip; below, x0 by step" if self._strip else ""
        return _stage(video, caption, self._strip)

    @staticmethod
    def nothing(text):
        """Return an empty stage that says why."""
        return _stage(f'<div class="lvd-held"><span>{escape(text)}</span></div>', "", [])


def _stage(large, caption, strip):
    small = "".join(
        f'<figure><img src="{picture}" alt="predicted x0 at step {number}" decoding="sync">'
        f"<figcaption>{number}</figcaption></figure>"
        for number, picture in strip
    )
    return (
        f'<div class="lvd-stage"><div class="lvd-large">{large}</div><p>{caption}</p>'
        f'<div class="lvd-strip">{small}</div></div>'
    )
