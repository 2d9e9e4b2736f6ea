"""How one tiny pipeline fares that is recorded, learned from and guarded as its user would."""

import contextlib
import io
import time

import torch

from benchmarks.common import tiny_pipelines
from benchmarks.common.pipeline_world import NORMAL, STEPS, UNSAFE, make_world
from benchmarks.common.tiny_sections import SECTIONS
from lvd import Guard, UnsafeVideoError
from lvd.x0.layouts import can_interrupt, find_layout
from lvd.x0.schedulers import own_settings
from lvd.x0.watch import watch_steps

PROMPTS, FIRST = 8, 100  # new prompts of either kind, and the row of the first
ONE_A_CALL = "one a call"  # in the columns of a batch
SAME, DIFFER = "same bits", "differ"
SAME_LATER = "same bits after its first 3 frames"
RIGHT = {
    "unsafe_stopped": (PROMPTS,),
    "normal_passed": (PROMPTS,),
    "batch": ("safe unsafe safe", ONE_A_CALL),
    "others": (SAME, ONE_A_CALL),
    "stopped": ("is blank", ONE_A_CALL),
}
# It matches its first frames to the mean of all videos of the batch.
MATCHES_FRAMES = {"Kandinsky5I2VPipeline": {"others": (SAME_LATER,)}}


def try_out(name, scheduler, folder):
    """One row of the table: figures of one pipeline with one scheduler.

    Args:
        name: of its class.
        scheduler: name of another scheduler's class of tiny_pipelines.SCHEDULERS, or None.
        folder: where recordings and detectors are written.

    Returns:
        {column: value}.
    """
    began = time.monotonic()
    tiny = tiny_pipelines.build(name, scheduler)
    samplings = SECTIONS[name].samplings if name in SECTIONS else 1
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        world = make_world(tiny, folder, samplings)
    steps = world.unsafe.tensor.shape[1]  # fewer where a video begins in the middle
    guard = Guard(world.detectors, lambda_=0.6, eta=steps, device="cpu")
    settings = own_settings(tiny.pipe.scheduler)
    row = {
        "pipeline": name,
        "scheduler": type(tiny.pipe.scheduler).__name__,
        "prediction": settings.get("prediction_type", "flow").removesuffix("_prediction"),
        "axes": find_layout(tiny.pipe).axes,
        "latents": " x ".join(map(str, tiny.shape)),
        "steps": steps,
        "samplings": samplings,
        "x0_error": x0_error(tiny, SECTIONS.get(name)),
        **figures_alone(tiny, guard),
        **figures_of_a_batch(tiny, guard),
        "interrupt": "yes" if can_interrupt(tiny.pipe) else "no",
    }
    right = RIGHT | MATCHES_FRAMES.get(name, {})
    row["as_it_should"] = all(row[key] in wanted for key, wanted in right.items())
    row["seconds"] = round(time.monotonic() - began, 1)
    return row


def figures_alone(tiny, guard):
    """What the guard says of new prompts of either kind, one video a call."""
    rows = range(FIRST, FIRST + PROMPTS)
    stopped = [guarded(tiny, guard, [UNSAFE], row)[1][0] for row in rows]
    passed = [guarded(tiny, guard, [NORMAL], row)[1][0] for row in rows]
    return {
        "unsafe_stopped": sum(result.verdict == "unsafe" for result in stopped),
        "steps_run": max(result.steps_run for result in stopped),
        "normal_passed": sum(result.verdict == "safe" for result in passed),
        "prompts": PROMPTS,
    }


def figures_of_a_batch(tiny, guard):
    """What the guard does to a batch of three whose second video is unsafe."""
    if tiny.most == 1:
        return dict.fromkeys(("batch", "others", "stopped"), ONE_A_CALL)
    kinds = [NORMAL, UNSAFE, NORMAL]
    plain = in_one(run(tiny, kinds))
    video, results = guarded(tiny, guard, kinds)
    video = None if video is None else in_one(video)
    stopped_blank = video is not None and not video[1].any()
    return {
        "batch": " ".join(result.verdict for result in results),
        "others": DIFFER if video is None else compared(video[[0, 2]], plain[[0, 2]]),
        "stopped": "is blank" if stopped_blank else "is not blank",
    }


def compared(videos, others):
    """Whether videos [B, C, F, h, w] are the same to the bit, in words."""
    if torch.equal(videos, others):
        return SAME
    return SAME_LATER if torch.equal(videos[:, :, 3:], others[:, :, 3:]) else DIFFER


def run(tiny, kinds, first=FIRST):
    """[B, C, F, h, w], or a list of them where a pipeline returns its sections."""
    torch.manual_seed(first)
    output = tiny.pipe(**tiny.inputs(kinds, first=first, steps=STEPS))
    return tiny.clips(tiny.videos(output))


def in_one(videos):
    return torch.cat(videos, 2) if isinstance(videos, list) else videos


def guarded(tiny, guard, kinds, first=FIRST):
    """(latents as of `run`, None when no video is left; [GuardResult])"""
    video = None
    with contextlib.suppress(UnsafeVideoError), guard.watch(tiny.pipe) as watch:
        video = run(tiny, kinds, first)
    return video, watch.results


def x0_error(tiny, sections):
    """Largest difference between the last step's x0 and the finished latents, in their standard
    deviations; of all samplings whose latents the pipeline returns as they are."""
    layout, last = find_layout(tiny.pipe), []

    def keep(step, timestep, x0, prev_sample):
        last[len(last) - (step > 0) :] = [layout.unpack(x0)]

    with (
        layout.following(tiny.pipe),
        watch_steps(
            tiny.pipe.scheduler, keep, copies_are_others=layout.copies_are_others, several=True
        ),
    ):
        video = run(tiny, [NORMAL])
    if sections is None:
        return float((last[-1] - video).abs().max() / video.std())
    errors = []
    for number, x0 in enumerate(last):
        finished = sections.finished(tiny.pipe, video, number)
        if finished is not None:
            x0 = x0[:, :, : finished.shape[2]]
            errors.append(float((x0 - finished).abs().max() / finished.std()))
    return max(errors)
