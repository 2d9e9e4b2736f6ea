"""What of a video leaves its job, step by step, whatever the guard says or does."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lvd.guard.result import GuardResult
from MagicTime.utils.app import job as jobs
from MagicTime.utils.app.job import Ending, Job

STEPS = 4


class Guard:
    """Answers as it is told, one word a step; "raise" raises, None is undecided."""

    def __init__(self, words):
        self.words = words
        self.last = None

    def session(self, steps, videos, levels):
        return self

    def observe(self, step, x0):
        self.last = self.words[step]
        if self.last == "raise":
            raise RuntimeError("a detector in /some/folder failed")
        return [self.last]

    def trace(self, number):
        return None

    def results(self):
        verdict = self.last or "unchecked"
        return [GuardResult(verdict, 0, [], {}, STEPS, 1, 3, 0.0, 0.0, [], "said so")]


class Sampler:
    """Makes STEPS steps of x0, and calls `between` after each of them."""

    negative = ""

    def __init__(self, between=lambda: None, frames=True):
        self.between = between
        self._frames = frames

    def sample(self, config, prompt, negative, seed, on_step):
        for step in range(STEPS):
            goes_on = on_step(step, torch.full((1, 4, 8, 2, 2), float(step)))
            self.between()
            if goes_on is not None:
                return None
        return torch.zeros(4, 8, 2, 2)

    def frames(self, latents):
        return np.zeros((8, 16, 16, 3), np.uint8) if self._frames else None


def run(words, **settings):
    """Run a job under a guard of these words, None: no guard; returns (job, [pictures after each
    step], last view)."""
    seen = []
    sampler = Sampler(lambda: seen.append(len(made.look().x0)), **settings)
    config = SimpleNamespace(
        settings=SimpleNamespace(steps=STEPS, fps=8, dtype="float16"), make_scheduler=lambda: None
    )
    asked = SimpleNamespace(prompt="a", seed=1)
    made = Job(sampler, config, asked, None if words is None else Guard(words))
    made.run()
    return made, seen, made.look()


@pytest.fixture(autouse=True)
def _no_levels(monkeypatch):
    monkeypatch.setattr(jobs, "levels_of", lambda scheduler: None)


CASES = {  # words of the guard → pictures that may be seen after each step, the ending
    "safe at the end": ([None, None, None, "safe"], [0, 0, 0, 4], "safe"),
    "safe early": ([None, "safe", "safe", "safe"], [0, 2, 3, 4], "safe"),
    "unsafe at once": (["unsafe"], [0], "unsafe"),
    "unsafe at the end": ([None, None, None, "unsafe"], [0, 0, 0, 0], "unsafe"),
    "a step that is not finite later": (["safe", "safe", "unchecked"], [1, 2, 0], "unchecked"),
    "never decided": ([None] * STEPS, [0, 0, 0, 0], "unchecked"),
    "a guard that fails": ([None, "raise"], [0], "failed"),
    "an odd word": ([None, None, None, "perhaps"], [0, 0, 0, 0], "unchecked"),
    "no guard": (None, [1, 2, 3, 4], "unguarded"),
}


@pytest.mark.parametrize("case", CASES)
def test_frames_are_seen_only_once_the_guard_is_certain(case):
    words, pictures, kind = CASES[case]
    made, seen, view = run(words)
    assert seen == pictures and view.ending.kind == kind and view.phase == "ended"
    is_shown = kind in ("safe", "unguarded")
    assert (view.ending.clip is not None) == is_shown
    assert len(view.x0) == (STEPS if is_shown else 0)
    if not is_shown:  # nothing of it is kept in memory either
        assert made._x0 == []


def test_what_cannot_be_decoded_is_not_shown_and_its_pictures_go():
    _, _, view = run(["safe"] * STEPS, frames=False)
    assert view.ending.kind == "failed" and "not finite in dtype float16" in view.ending.reason
    assert view.x0 == [] and view.ending.clip is None


def test_a_failure_is_told_without_its_traceback(capsys):
    _, _, view = run(["raise"])
    assert view.ending.reason == "RuntimeError; the terminal says more"
    said = capsys.readouterr()
    assert "a detector in /some/folder failed" in said.out and "Traceback" not in said.out
    assert said.err == ""


@pytest.mark.parametrize("kind", ["unsafe", "unchecked", "failed", "gone"])
def test_no_ending_but_a_good_one_can_hold_a_clip(kind):
    with pytest.raises(AssertionError):
        Ending(kind, clip=b"mp4")


def test_a_video_that_nobody_looks_at_ends(monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE", 0.0)
    monkeypatch.setattr(Sampler, "sample", _slow(Sampler.sample))
    made, seen, view = run(None)
    assert view.ending.kind == "gone" and view.steps_run == 1 and view.x0 == []


def _slow(sample):
    def slower(self, *args):
        time.sleep(0.01)
        return sample(self, *args)

    return slower


def test_a_cancelled_video_ends_at_its_next_step():
    sampler = Sampler()
    config = SimpleNamespace(settings=SimpleNamespace(steps=STEPS, fps=8, dtype="float32"))
    made = Job(sampler, config, SimpleNamespace(prompt="a", seed=1), None)
    sampler.between = lambda: made.stop("enough")
    made.run()
    view = made.look()
    assert (view.ending.kind, view.ending.reason, view.steps_run) == ("gone", "enough", 2)
    assert view.x0 == []
