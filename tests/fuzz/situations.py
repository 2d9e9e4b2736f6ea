"""What people do with a pipeline around and inside `guard.watch`: the parts that random walks are
made of. A part is a word in a list; a situation is one word of each list."""

import copy
import functools
import pickle
import random
import threading
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass

import torch

from benchmarks.common.tiny_pipelines import SCHEDULERS

PIPELINES = ("AnimateDiffPipeline", "WanPipeline", "CogVideoXPipeline")
# Of each list the first word is what a careful person does.
BATCHES = ("u", "us", "su", "s", "uu", "sus")  # unsafe and safe videos
OUTPUTS = ("latent", "np", "pt", "pil")
COPIES = ("none", "copy", "copy, own scheduler", "deepcopy", "rebuilt")
WHEN = ("before", "inside", "between", "callback")
SWAPS = ("none", "same class", "deepcopy", "another class", "step of the instance", "pickled")
CALLBACKS = ("none", "keep latents", "interrupt", "raise", "noise", "stop by flag of another")
CALLERS = ("plain", "class", "bound before", "partial", "thread", "two threads", "swallowed")
BLOCKS = ("one", "nested", "watch of a copy", "entered twice")
PROCESSES = ("none", "no grad", "inference mode", "float64", "autocast", "deterministic")


class Mine(RuntimeError):
    """What a user's own callback raises."""


@dataclass(frozen=True)
class Situation:
    """One case; every field is a word of the list above, or a number."""

    pipeline: str
    batch: str
    output: str = "latent"
    mode: str = "raise"
    eta: int = 2
    as_dict: bool = True
    copy: str = "none"
    copied: str = "before"
    swap: str = "none"
    swapped: str = "inside"
    callback: str = "none"
    step: int = 0
    caller: str = "plain"
    block: str = "one"
    process: str = "none"
    calls: int = 1

    def __str__(self):
        return ", ".join(self.odd())

    def odd(self):
        """["key=value"] of all that a careful person would not do, and of the pipeline."""
        given = asdict(self).items()
        return [f"{key}={value}" for key, value in given if value != DEFAULTS.get(key)]

    def parts(self):
        """The odd words that do something here: "swapped=..." says when, if "swap=..." stands."""
        idle = {"step", "batch"}
        idle |= {"copied"} if self.copy == "none" else set()
        idle |= {"swapped"} if self.swap == "none" else set()
        return [word for word in self.odd() if word.partition("=")[0] not in idle]


DEFAULTS = asdict(Situation("", ""))


def drawn(count, seed):
    """Draw `count` different Situations: each with some odd words, seldom with many."""
    draw = random.Random(seed)
    found = {}
    while len(found) < count:
        odd = draw.choice((0, 1, 1, 2, 2, 3, 5))
        choices = {
            "output": OUTPUTS,
            "mode": ("raise", "interrupt"),
            "eta": (1, 2, 3),
            "as_dict": (True, False),
            "copy": COPIES,
            "swap": SWAPS,
            "callback": CALLBACKS,
            "caller": CALLERS,
            "block": BLOCKS,
            "process": PROCESSES,
            "calls": (1, 2),
        }
        words = {key: draw.choice(choices[key]) for key in draw.sample(list(choices), odd)}
        words |= {"copied": draw.choice(WHEN[:3]), "swapped": draw.choice(WHEN)}
        words |= {"step": draw.randrange(3), "batch": draw.choice(BATCHES)}
        found[Situation(draw.choice(PIPELINES), **words)] = None
    return list(found)


def copied(pipe, how):
    """A copy of a pipeline, as people make them."""
    if how == "none":
        return pipe
    if how == "deepcopy":
        return copy.deepcopy(pipe)
    if how == "rebuilt":
        return _quiet(type(pipe)(**pipe.components))
    made = copy.copy(pipe)
    if how == "copy, own scheduler":
        made.scheduler = copy.deepcopy(pipe.scheduler)
    return made


def _quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def swap_scheduler(pipe, how, name):
    """Give a pipeline another scheduler, or another step."""
    if how == "same class":
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    elif how == "deepcopy":
        pipe.scheduler = copy.deepcopy(pipe.scheduler)
    elif how == "pickled":
        pipe.scheduler = pickle.loads(pickle.dumps(pipe.scheduler))
    elif how == "another class":
        import diffusers

        other = next(iter(SCHEDULERS[name]))
        settings = SCHEDULERS[name][other]
        pipe.scheduler = getattr(diffusers, other).from_config(pipe.scheduler.config, **settings)
    elif how == "step of the instance":
        pipe.scheduler.step = functools.partial(pipe.scheduler.step)


class Callback:
    """`callback_on_step_end` of a situation.

    Args:
        situation: Situation.
        pipe: whose scheduler it may replace.
    """

    def __init__(self, situation, pipe):
        self.situation, self.pipe, self.kept = situation, pipe, None

    def __call__(self, pipe, step, timestep, kwargs):
        what, now = self.situation.callback, step == self.situation.step
        if now and self.situation.swapped == "callback":
            swap_scheduler(pipe, self.situation.swap, self.situation.pipeline)
        if what == "interrupt" and now:
            pipe._interrupt = True
        elif what == "stop by flag of another" and now:
            self.pipe._interrupt = True
        elif what == "raise" and now:
            raise Mine("of the callback")
        elif what == "noise" and now:
            kwargs["latents"] = kwargs["latents"] + 0.01
        elif what == "keep latents":
            self.kept = kwargs["latents"].clone() if step == 0 else self.kept
            kwargs["latents"] = self.kept.clone() if step == 2 else kwargs["latents"]
        return kwargs


@contextmanager
def process(how):
    """Settings of the whole process, put back afterwards."""
    dtype, deterministic = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    with ExitStack() as stack:
        if how == "float64":
            torch.set_default_dtype(torch.float64)
        if how == "deterministic":
            torch.use_deterministic_algorithms(True)
        stack.enter_context(
            {
                "no grad": torch.no_grad,
                "inference mode": torch.inference_mode,
                "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
            }.get(how, nullcontext)()
        )
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.use_deterministic_algorithms(deterministic)


def called(pipe, how, bound, work):
    """Call `work(function)` with the pipeline's call, in the way that people call it.

    Args:
        pipe: the pipeline.
        how: a word of CALLERS.
        bound: the call of `pipe`, bound before the watch began.
        work: function of what stands for the pipeline; it calls that and keeps what comes out.
    """
    function = {
        "class": functools.partial(type(pipe).__call__, pipe),
        "bound before": bound,
        "partial": functools.partial(pipe),
    }.get(how, pipe)
    if how == "swallowed":
        for _ in range(2):
            try:
                work(function)
            except Exception:
                pass
    elif how in ("thread", "two threads"):
        _in_threads(1 if how == "thread" else 2, lambda: work(function))
    else:
        work(function)


def _in_threads(count, work):
    """Run `work` in threads; the first error of theirs is raised here."""
    errors = []

    def caught():
        try:
            work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=caught, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(1)
    if errors:
        raise errors[0]
