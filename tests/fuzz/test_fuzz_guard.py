"""Random walks around `guard.watch`: no unsafe video comes out of the pipeline."""

import contextlib
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.common.pipeline_world import STEPS, make_world
from benchmarks.common.tiny_pipelines import build
from lvd import Guard, UnsafeVideoError
from lvd.errors import InputError
from tests.fuzz.oracle import TIMES, Faults, append_to_report, run_loader
from tests.fuzz.situations import (
    OUTPUTS,
    PIPELINES,
    Callback,
    Mine,
    Situation,
    called,
    copied,
    drawn,
    process,
    swap_scheduler,
)

CASES = 240
ETAS = (1, 2, 3)


class Family:
    """A tiny pipeline, guards trained for it, two unsafe and two safe videos."""

    def __init__(self, name, folder):
        self.name, self.tiny = name, build(name)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            world = make_world(self.tiny, folder)
        self.pipe, self.scheduler = self.tiny.pipe, self.tiny.pipe.scheduler
        self.guards = {eta: Guard(world.detectors, 0.6, eta, "cpu") for eta in ETAS}
        self.videos = {"u": self._chosen(1, "unsafe"), "s": self._chosen(-1, "safe")}
        self.plain = dict(zip("us", self.frames("us", "latent")))

    def inputs(self, batch, output="latent"):
        """Arguments of a call that makes a video for each letter of `batch`."""
        count = {"u": 0, "s": 0}
        wanted = []
        for letter in batch:
            wanted.append(self.videos[letter][count[letter] % 2])
            count[letter] += 1
        return {
            **self.tiny.fixed,
            **self.tiny.prompts(wanted),
            "num_inference_steps": STEPS,
            "output_type": output,
            "generator": [torch.Generator().manual_seed(row) for _, row in wanted],
        }

    def frames(self, batch, output):
        """What the pipeline makes without a guard: one array a video."""
        return arrays(self.pipe(**self.inputs(batch, output)).frames)

    def _chosen(self, kind, verdict):
        """Two videos of a kind on which all guards agree."""
        found = []
        for row in range(100, 120):
            self.videos = {"u": [(kind, row)] * 2}
            if all(self._verdict(guard) == verdict for guard in self.guards.values()):
                found.append((kind, row))
        assert len(found) >= 2, (self.name, verdict)
        return found[:2]

    def _verdict(self, guard):
        try:
            with guard.watch(self.pipe) as watch:
                self.pipe(**self.inputs("u"))
        except UnsafeVideoError:
            pass
        return watch.results[0].verdict


def arrays(frames):
    """One float array for each video of what a pipeline returned."""
    if isinstance(frames, torch.Tensor):
        return list(frames.detach().float().numpy())
    if isinstance(frames, np.ndarray):
        return list(frames.astype(np.float32))
    return [np.stack([np.asarray(frame, np.float32) / 255 for frame in video]) for video in frames]


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    made = {name: Family(name, tmp_path_factory.mktemp(name)) for name in PIPELINES}
    yield made


def walk(family, situation, guard):
    """Do what the situation says; returns the outputs that came out, and the error, if any.

    guard: None: the same without a guard.
    """
    seen = SimpleNamespace(outputs=[], error=None)
    try:
        with process(situation.process):
            _watched(family, situation, guard, seen)
    except Exception as error:
        seen.error = error
    finally:
        family.pipe.scheduler = family.scheduler
        vars(family.scheduler).pop("step", None)
    return seen


def _watched(family, situation, guard, seen):
    pipe = family.pipe
    bound = pipe.__call__
    target = copied(pipe, situation.copy) if situation.copied == "before" else pipe
    watch = guard.watch(pipe, situation.mode) if guard else contextlib.nullcontext()
    if situation.swapped == "before":
        swap_scheduler(target, situation.swap, situation.pipeline)
    with watch:
        with _block(situation, guard, pipe, watch):
            if situation.copied == "inside":
                target = copied(pipe, situation.copy)
            if situation.swapped == "inside":
                swap_scheduler(target, situation.swap, situation.pipeline)
            for number in range(situation.calls):
                if number and situation.swapped == "between":
                    swap_scheduler(target, situation.swap, situation.pipeline)
                if number and situation.copied == "between":
                    target = copied(pipe, situation.copy)
                called(target, situation.caller, bound, _call(family, situation, target, seen))


def _block(situation, guard, pipe, watch):
    """What stands inside the block besides the call."""
    if guard is None:
        return watch
    return {
        "nested": lambda: guard.watch(pipe),
        "watch of a copy": lambda: guard.watch(copied(pipe, "copy, own scheduler")),
        "entered twice": lambda: watch,
    }.get(situation.block, contextlib.nullcontext)()


def _call(family, situation, target, seen):
    """function of a pipeline's call: it makes one call and notes what comes out."""

    def call(function):
        inputs = family.inputs(situation.batch, situation.output)
        inputs["return_dict"] = situation.as_dict
        if situation.callback != "none" or situation.swapped == "callback":
            inputs["callback_on_step_end"] = Callback(situation, target)
        out = function(**inputs)
        frames = out.frames if situation.as_dict else out[0]
        seen.outputs.append((situation.batch, arrays(frames)))

    return call


def leak(family, situation, seen):
    """Say what came out that should not have, or None."""
    for batch, videos in seen.outputs:
        if len(videos) != len(batch):
            return f"{len(videos)} videos for {len(batch)} prompts"
        for letter, video in zip(batch, videos):
            if letter == "u" and video.any():  # a stopped video is black, or zeros
                told = f"then {type(seen.error).__name__}" if seen.error else "no error"
                return f"an unsafe video came out ({told})"
    text = str(seen.error)
    if isinstance(seen.error, InputError) and ("\n" in text or len(text) >= 300):
        return f"a message of {len(text)} characters: {text[:100]!r}"
    if isinstance(seen.error, (UnsafeVideoError, InputError, Mine, type(None))):
        return None
    # any other error must be one of the pipeline's own
    alone = walk(family, situation, None).error
    if type(alone) is not type(seen.error):
        return f"{type(seen.error).__name__}: {text[:160]}, where without a guard: {alone!r}"
    return None


def as_ever(family, situation, seen):
    """After the block, the pipeline is what it was: say what is not, or None."""
    if type(family.pipe.scheduler) is not family.scheduler.__class__:
        return "the pipeline has another scheduler"
    found = family.frames("us", "latent")
    for letter, video in zip("us", found):
        if np.abs(video - family.plain[letter]).max() > 1e-4:
            return "after the block, the pipeline makes other videos"
    return None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_unsafe_video_comes_out(families):
    """LVD_FUZZ_CASES multiplies the number of situations."""
    faults, by_part = Faults("guard"), {}
    for situation in drawn(CASES * TIMES, "guard"):
        family = families[situation.pipeline]

        def work(family=family, situation=situation):
            seen = walk(family, situation, family.guards[situation.eta])
            return leak(family, situation, seen) or as_ever(family, situation, seen)

        outcome = run_loader(work)
        if outcome.error is not None:
            what = f"{type(outcome.error).__name__}: {str(outcome.error)[:160]}"
        else:
            what = outcome.value if outcome.status == 0 else outcome.err
        faults.add(str(situation), what)
        for part in situation.parts():
            by_part.setdefault(part, Faults(f"guard, {part}")).add(str(situation), what)
    append_to_report([(one.kind, *one.counts()) for one in by_part.values()])
    faults.check(CASES * TIMES)


def test_a_careful_call_is_not_disturbed(families):
    """In the situation without oddities a safe video comes out as it does without a guard."""
    for family in families.values():
        for eta, guard in family.guards.items():
            with guard.watch(family.pipe) as watch:
                frames = arrays(family.pipe(**family.inputs("s")).frames)
            assert [result.verdict for result in watch.results] == ["safe"], (family.name, eta)
            assert np.array_equal(frames[0], family.frames("s", "latent")[0])


def test_the_walks_would_find_a_video_that_comes_out(families):
    for family in families.values():
        for output in OUTPUTS:
            situation = Situation(family.name, "su", output)
            found = leak(family, situation, walk(family, situation, None))
            assert found == "an unsafe video came out (no error)"
