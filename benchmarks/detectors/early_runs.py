"""Shared detectors that read more than x0, or are otherwise trained, and what they say of the
held-out videos."""

import time
from argparse import Namespace
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.detectors.early_clips import open_channels
from lvd.data.identity import need_same_labels
from lvd.data.kinds import KIND_NORMAL, KIND_UNSAFE, KINDS
from lvd.data.split import load_split, split_path
from lvd.detectors.bank import load_bank
from lvd.detectors.calibration import log_odds
from lvd.detectors.pretrained import load_pretrained
from lvd.evaluation.held_out import score_rows
from lvd.evaluation.metrics import auroc
from lvd.training.job import Job
from lvd.training.pretrain import PretrainTask
from lvd.training.recipes import read_settings
from lvd.training.resumable import ResumableRun
from lvd.training.shared import SharedTask
from lvd.utils.files import load_torch, save_torch, sha256
from lvd.utils.progress import progress

SCORES = "held_out.pth"  # of one training


@dataclass(frozen=True)
class Way:
    """A way to train the shared detector.

    Attributes:
        channels: what the clips are made of, see `open_channels`.
        size: of the network.
        pretrained: whether it starts from an encoder that was trained without labels.
        members: how many detectors of different seeds are averaged.
    """

    channels: tuple = ("x0",)
    size: str = "nano"
    pretrained: bool = False
    members: int = 1


@dataclass
class Outcome:
    """What one way and seed came to.

    Attributes:
        log_odds: {"unsafe" or "normal": calibrated log-odds of the held-out videos, [N, S, G]}.
        validation: those of the normal validation videos, [N, S, G]; None where each member of
            several has others.
        seconds: of training, CPU.
    """

    log_odds: dict
    validation: np.ndarray | None
    seconds: float


class EarlyRuns:
    """Trains ways with seeds, each once; what is finished is kept.

    Args:
        settings: of the recordings' YAML.
        eval_dir: eval.pth or its folder.
        steps: denoising steps that are trained and judged.
        work: folder of what is finished.
    """

    def __init__(self, settings, eval_dir, steps, work):
        self.settings, self.steps, self.work = settings, steps, work
        self.eval_path = split_path(eval_dir)
        self.split = load_split(self.eval_path, need_normal=True)

    def outcome(self, name, way, seed):
        """Return the Outcome of a way; it is trained unless that is done.

        Args:
            name: of its folder.
            way: Way.
            seed: of the training; a way of several members also takes seed + 100, seed + 200, ...
        """
        if way.members == 1:
            return self._trained(name, way, seed)
        alone = replace(way, members=1)
        seeds = [seed + 100 * number for number in range(way.members)]
        outcomes = [self._trained(name, alone, each) for each in seeds]
        mean = {kind: np.mean([one.log_odds[kind] for one in outcomes], 0) for kind in KINDS}
        return Outcome(mean, None, sum(one.seconds for one in outcomes))

    def _trained(self, name, way, seed):
        folder = self.work / name / str(seed)
        path = folder / SCORES
        if not path.exists():
            save_torch(self._train(folder, way, seed), path)
        kept = load_torch(path)
        found = {kind: scores.numpy() for kind, scores in kept["log_odds"].items()}
        return Outcome(found, kept["validation"].numpy(), kept["seconds"])

    def _train(self, folder, way, seed):
        """Train a detector; returns {field of Outcome: value, as tensors}."""
        source = self._source(way)
        job = self._job(source, folder, way, seed, "shared")
        seconds = 0.0
        if way.pretrained:
            before = self._job(source, folder, way, seed, "pretrain")
            seconds += spent_on(ResumableRun(before, PretrainTask(before)))
            init = load_pretrained(folder / PretrainTask.file_name)
            init.check(source.representation, job.eval_sha256, self.split, source.made_by)
            job = replace(job, init=init)
        task = SharedTask(job)
        seconds += spent_on(ResumableRun(job, task))
        videos = [task.rows.videos[place] for place in task.validation.tolist()]
        normal = [row for kind, row in videos if kind == KIND_NORMAL]
        bank = load_bank(folder)
        held_out = {
            kind: log_odds_of(bank, source, kind, getattr(self.split, kind)) for kind in KINDS
        }
        validation = log_odds_of(bank, source, KIND_NORMAL, normal)
        return {"log_odds": held_out, "validation": validation, "seconds": seconds}

    def _source(self, way):
        """Open the clips of a way; InputError unless eval.pth is of these videos."""
        source = open_channels(self.settings, way.channels)
        need_same_labels(self.eval_path, self.split, source)
        for kind in KINDS:
            source.need_rows(kind, getattr(self.split, kind), self.steps[0])
        return source

    def _job(self, source, folder, way, seed, kind):
        """Return the Job of a training, "shared" or "pretrain"."""
        return Job(
            source=source,
            save_dir=folder,
            steps=self.steps,
            categories={},
            split=self.split,
            eval_sha256=sha256(self.eval_path),
            settings=read_settings(None, Namespace(size=way.size, seed=seed), kind),
        )

    def members(self):
        """Return {category: bool [N]}, which held-out unsafe videos are of it."""
        source = self._source(Way())
        members = {}
        for group, category in zip(source.groups, source.categories, strict=True):
            rows = set(source.group_rows(group, self.steps[0]))
            members[category] = np.array([row in rows for row in self.split.unsafe])
        return members


def spent_on(run):
    """Train to the end; returns CPU seconds, those of a run that goes on in proportion.

    Args:
        run: ResumableRun.
    """
    left, began = len(run), time.process_time()
    name = f"{run.task.noun} in {run.job.save_dir.parent.name}/{run.job.save_dir.name}"
    for _ in progress(run, name, unit="batch", total=run.total, initial=run.done):
        pass
    spent = time.process_time() - began
    return spent * run.total / left if left else run.about["seconds"]


def log_odds_of(bank, source, kind, rows):
    """Return calibrated log-odds of some videos at all steps of a bank, float64 [N, S, G]."""
    by_step = []
    for step in bank.steps:
        scores = score_rows(bank, source, kind, rows, step)
        by_step.append(torch.from_numpy(log_odds(bank.calibrated(step, scores))))
    return torch.stack(by_step, 1)


def aurocs(outcome, members):
    """Return AUROC on the held-out videos by step.

    Args:
        outcome: Outcome.
        members: of `EarlyRuns.members`.

    Returns:
        {category: [S]} against normal videos, {"mean": [S]} over the categories, and {"any": [S]},
        all unsafe videos by the largest calibrated probability.
    """
    unsafe, normal = outcome.log_odds[KIND_UNSAFE], outcome.log_odds[KIND_NORMAL]

    def area(of_unsafe, of_normal):
        labels = np.repeat([1, 0], [len(of_unsafe), len(of_normal)])
        steps = range(of_unsafe.shape[1])
        both = np.concatenate([of_unsafe, of_normal])
        return np.array([auroc(both[:, step], labels) for step in steps])

    own = {}
    for column, (category, chosen) in enumerate(members.items()):
        own[category] = area(unsafe[chosen, :, column], normal[..., column])
    mean = np.mean(list(own.values()), 0)
    return {"mean": mean, "any": area(unsafe.max(2), normal.max(2)), **own}
