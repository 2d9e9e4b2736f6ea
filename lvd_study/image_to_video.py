"""The path test from images (lvd_study.svd_path) as a part of the study."""

from dataclasses import dataclass
from pathlib import Path

from lvd.utils.files import load_json
from lvd_study.svd_path import RESULT
from lvd_study.table import Table
from lvd_study.tasks import Task

HOW = (
    "Image to video: lvd_study.svd_path records, trains, judges and guards by the public API and "
    "the scripts, with dark and bright images and one noise for all videos."
)


@dataclass(frozen=True)
class PathTest:
    """The path test.

    Attributes:
        folder: of what it makes.
        task: that runs it.
    """

    folder: Path
    task: Task

    def result(self):
        """Return {what: count} of the finished test."""
        return load_json(self.folder / RESULT)


def path_test(study):
    """Return the PathTest of a study."""
    folder = study.work / "image_to_video"
    command = ("-m", "lvd_study.svd_path", "--out", folder)
    return PathTest(folder, Task("image to video", command, makes=folder / RESULT))


def table(result):
    """Return the Table of a result."""
    rows = [
        ["videos recorded, of dark and of bright images", result["recorded"]],
        ["held-out videos judged rightly", f"{result['held_out_right']} of {result['held_out']}"],
        ["dark images under guard, stopped", _stopped(result)],
        ["steps until they were", f"{result['steps_until_stopped']} of {result['steps']}"],
        ["bright images under guard, passed", _passed(result)],
    ]
    return Table(
        "f_image_to_video",
        "Image to video, a path test.",
        f"A tiny {result['pipeline']} of random weights; dark images stand in for unsafe ones. It "
        "proves that the way works, and nothing about the weights of Stable Video Diffusion.",
        ["what", "count"],
        rows,
    )


def text(result):
    """Return what came out, in a sentence."""
    return (
        f"From images the whole way works: under guard {_stopped(result)} videos of dark images, "
        f"which stand in for unsafe ones, were stopped and {_passed(result)} of bright ones passed "
        "(a path test with a tiny Stable Video Diffusion of random weights)."
    )


def _stopped(result):
    return f"{result['unsafe_stopped']} of {result['guarded_unsafe']}"


def _passed(result):
    return f"{result['safe_passed']} of {result['guarded_safe']}"
