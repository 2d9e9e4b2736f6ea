"""Short trainings of the shared detector, by the script or step by step."""

from argparse import Namespace

from lvd.data.sources import FolderClips
from lvd.data.split import load_split
from lvd.training.job import Job
from lvd.training.recipes import read_settings
from lvd.training.resumable import ResumableRun
from lvd.training.shared import SharedTask
from lvd.utils.files import sha256
from tests.worlds import scripts
from tests.worlds.detector_world import CATEGORIES, STEPS

FLAGS = ["--model", "shared", "--size", "nano", "--epoch", "8", "--batch_size", "16"]


def train(world, *flags, save=None):
    """Train by train_mae.py; see `tests.worlds.scripts.train`."""
    return scripts.train(world, *flags, save=save, base=[*FLAGS, "--gpu_num", "-1"])


def settings(**changes):
    """The settings of a short training."""
    flags = {"size": "nano", "epoch": 2, "batch_size": 16, **changes}
    return read_settings(None, Namespace(**flags), "shared")


def start(world, save, **changes):
    """A short training that has not begun."""
    job = Job(
        source=FolderClips(world.data),
        save_dir=save,
        steps=list(range(STEPS)),
        categories=dict(enumerate(CATEGORIES, 1)),
        split=load_split(world.eval),
        eval_sha256=sha256(world.eval),
        settings=settings(**changes),
    )
    return ResumableRun(job, SharedTask(job))
