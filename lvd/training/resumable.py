"""Training one network on the clips of all steps; a stopped run goes on from its checkpoint."""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from lvd.data.clip_cache import AllClips, statistics
from lvd.data.transforms import normalise
from lvd.errors import InputError, words_of
from lvd.evaluation.figures import save_curve_figure
from lvd.training.augment import augment, draw_augmentation
from lvd.training.checkpoint import SAVE_EVERY, Checkpoint, CurvePoint
from lvd.training.decoding import need_few_decodings
from lvd.training.job import MetricsRow
from lvd.training.loop import Training, precision, train
from lvd.training.parts import parts_of
from lvd.utils.config import need_same_training, versions
from lvd.utils.files import save_csv
from lvd.utils.plots import drawn
from lvd.utils.processes import one_thread
from lvd.utils.schema import Schema, checked


class FinishedAbout(Schema, extra="allow"):
    """What a finished result must say about itself, so that it can be told."""

    curve: Annotated[list[CurvePoint], Field(min_length=1)]
    metrics: list[MetricsRow] = []


class ResumableRun:
    """Sized iterable over the mini-batches that are still to come.

    Iterating trains, yields the loss of each mini-batch and saves the result at the end.
    Mini-batches mix videos and steps: an epoch shows every training video at every step once.
    Order, augmentation and dropout of a mini-batch follow from the seed and its number alone, so a
    run that goes on from its checkpoint ends with the weights of an unbroken one (on the same kind
    of machine). A finished result of the same identity is left alone; then the length is 0.

    Attributes:
        done, total: mini-batches so far and of the whole run; per_epoch: of an epoch.
        curve: [{"epoch": ..., "train_loss": ..., ...}], a point for each epoch.
        about: what the finished result says about itself, None before.
    """

    def __init__(self, job, task, save_every=SAVE_EVERY):
        """
        Args:
            job: Job.
            task: SharedTask or PretrainTask, which knows the network, its loss and its file.
            save_every: seconds between two checkpoints.

        Raises:
            InputError: the folder holds a result or a checkpoint of another training, or to decode
                the clips would take days.
        """
        self.job, self.task, self.curve, self.about = job, task, [], None
        folder, stem = Path(job.save_dir), Path(task.file_name).stem
        self.path = folder / task.file_name
        self.curve_paths = folder / f"{stem}_curve.csv", folder / f"{stem}_curve.png"
        self.checkpoint = Checkpoint(
            folder / f"{stem}.training.pth", task.noun, task.identity, save_every
        )
        self.per_epoch = -(-len(task.train) * len(job.steps) // job.settings.batch_size)
        self.total = job.settings.epoch * self.per_epoch
        self.finished, self._state = self.path.exists(), None
        if self.finished:
            self.about = task.load_about(self.path)
            checked(FinishedAbout, self.about, f"{self.path}: about")
            need_same_training(self.path, self.about, task.identity)
            self.curve, self.done = self.about["curve"], self.total
        else:
            self._state = self.checkpoint.load()
            self.done = self._state["done"] if self._state else 0
        if not self.done:
            need_few_decodings(job, len(task.rows.videos))

    def __len__(self):
        return self.total - self.done

    def __iter__(self):
        if not self.finished:
            with one_thread(self.job.settings.size != "base"):
                yield from self._train()
        self.checkpoint.delete()
        self._write_curve()

    @property
    def written(self):
        """Paths of the result and its curve, those that exist."""
        return [path for path in (self.path, *self.curve_paths) if path.exists()]

    def _train(self):
        job, task, began = self.job, self.task, time.monotonic()
        shape = job.source.clip_shape(*task.rows.videos[0], job.steps[0])
        device = torch.device(job.device)
        net = task.build(shape).to(device)
        clips = AllClips(job.source, task.rows.videos, job.steps, net.config)
        task.mean, task.std = _statistics(clips, task.train, shape[0])
        training = Training(net, job.settings, self.per_epoch)
        began -= self._go_on(training, clips)

        def batches_of(epoch, first):
            return clips.batches(epoch_order(job, task.train, epoch)[first:])

        def losses_of(batch):
            videos, at, chosen = batch
            generator = _generator(job.settings.seed, training.done)
            net.train()
            at = at.to(device)
            mirrored, noise = draw_augmentation(chosen.shape, job.settings, generator)
            hidden = task.hidden(len(chosen), generator)
            for part in parts_of(net.config, job.settings, len(chosen)):
                with precision(job.settings, device):
                    inputs = normalise(chosen[part].to(device), task.mean, task.std, at[part])
                    drawn = (None if of is None else of[part] for of in (mirrored, noise))
                    inputs = augment(inputs, *drawn, job.settings)
                    unseen = None if hidden is None else hidden[part].to(device)
                    loss = task.loss(inputs, at[part], videos[part], unseen)
                yield loss * (len(inputs) / len(chosen))

        def after_epoch(epoch, losses):
            loss = float(np.mean([float(each) for each in losses]))
            if not np.isfinite(loss):
                raise InputError(
                    f"{task.noun}: training diverged (loss {loss}); a smaller --lr is needed"
                )
            with training.with_average():
                validation = task.validate(clips)
            self.curve.append({"epoch": epoch, "train_loss": round(loss, 6), **validation})

        def facts():
            return {
                "curve": self.curve,
                "seconds": round(time.monotonic() - began, 2),
                "data_sha256": clips.sha256,
            }

        for loss in train(training, batches_of, losses_of, after_epoch):
            self.done = training.done
            yield float(loss)
            self.checkpoint.save_if_due(lambda: {**facts(), **training.state()})
        training.take_average()
        net.eval()
        self._save(clips, facts())

    def _go_on(self, training, clips):
        """Take up the checkpoint's state; returns the seconds that were trained before."""
        state, self._state = self._state, None
        if state is None:
            return 0.0
        if state["data_sha256"] != clips.sha256:
            raise InputError(f"{self.checkpoint.path}: the clips have changed since; delete it")
        try:
            training.load(state)
        # Whatever torch's optimiser makes of a state that is not its own.
        except Exception as error:
            raise InputError(
                f"{self.checkpoint.path}: not a state of this training ({type(error).__name__}: "
                f"{words_of(error, 80)}); delete it"
            ) from error
        self.curve = state["curve"]
        return state["seconds"]

    def _save(self, clips, facts):
        facts = {"seed": self.job.settings.seed, **facts, "versions": versions()}
        self.about = self.task.save(self.path, clips, facts)
        self.finished = True

    def _write_curve(self):
        """Write what is missing of the curve's table and figure: the result holds the curve."""
        table, figure = self.curve_paths
        if not table.is_file():
            save_csv(self.curve, table)
        if not figure.is_file():
            drawn(save_curve_figure, self.curve, figure, self.task.noun)


def epoch_order(job, videos, epoch):
    """Return an epoch's mini-batches: [(videos [B], positions of their steps [B])].

    Args:
        videos: [N] positions of the videos to train on.
        epoch: its number, from 0.
    """
    steps = len(job.steps)
    generator = torch.Generator().manual_seed(seed_of(job.settings.seed, 0, epoch))
    order = torch.randperm(len(videos) * steps, generator=generator)
    parts = order.split(job.settings.batch_size)
    return [(videos[part // steps], part % steps) for part in parts]


def seed_of(*numbers):
    """Return a seed of its own for every (seed, purpose, number)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _generator(seed, number):
    """The generator of a mini-batch's augmentation; also seeds torch's own, which dropout uses."""
    torch.manual_seed(seed_of(seed, 2, number))
    return torch.Generator().manual_seed(seed_of(seed, 1, number))


def _statistics(clips, videos, channels):
    """Read all clips once; returns mean and standard deviation of the training videos, [S, C]."""
    mean, std = (torch.empty(len(clips.steps), channels) for _ in range(2))
    for at, of_step in clips.scan():
        mean[at], std[at] = statistics(of_step[videos])
    return mean, std
