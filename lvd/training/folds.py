"""Scores of every training video by detectors that never saw it: cross-fitting with K parts.

The training videos are drawn into K parts, each with its share of every category and of the normal
videos. For each part, detectors are trained on the other parts, with the same settings, and score
it at every step. A rule may then be chosen on the training videos, and the held-out ones stay
unseen.
"""

import shutil
from dataclasses import dataclass, replace

import numpy as np

from lvd.data.kinds import KINDS
from lvd.detectors.bank import load_bank
from lvd.errors import InputError, plural, shorten
from lvd.evaluation.results import FOLDS, load_folds
from lvd.rules.file import identity_of
from lvd.training.fold_scores import FoldScoring, joined, load_fold_scores, out_of_fold_auroc
from lvd.training.grid_run import TrainRun
from lvd.training.job import Job
from lvd.training.recipes import NO_EFFECT_ON_WEIGHTS
from lvd.training.resumable import ResumableRun
from lvd.training.rows import MIN_CLIPS, TRIES, rows_for_all
from lvd.training.shared import SharedTask
from lvd.utils.changes import what_changed
from lvd.utils.config import first_difference, versions
from lvd.utils.files import load_yaml, save_torch, save_yaml

FOLDER = "folds"  # of the detectors of unfinished folds, and of the scores of finished ones
CONFIG = "folds.yaml"


@dataclass(frozen=True)
class Fold:
    """One of the K parts.

    Attributes:
        number: from 1.
        job: Job of the detectors that are trained on the other parts.
        left_out: {"unsafe": [row, ...], "normal": [row, ...]} of this part.
    """

    number: int
    job: Job
    left_out: dict

    @property
    def path(self):
        """Path of the scores of this part, once they are known."""
        return self.job.save_dir.with_suffix(".pth")


class Folds:
    """The K folds of a training, from the draw to {save_dir}/folds.pth.

    Attributes:
        model: "grid" or "shared".
        folds: [Fold].
        left: those whose part is not scored yet; none once folds.pth is whole.
        finished: whether folds.pth was there already.
        path: of folds.pth.
    """

    def __init__(self, job, count, model, launched):
        """
        Args:
            job: Job of the final detectors: all categories, all steps.
            count: how many parts.
            model: "grid" or "shared".
            launched: Processes of this launch. All of them make the same Folds.

        Raises:
            InputError: there are too few videos of a category, or the folder holds folds of other
                settings, of other videos or of another number.
        """
        if count < 2:
            raise InputError(f"--folds {count}: 2 parts or more are needed")
        _need_all("--group_num", job.source.groups, job.categories)
        _need_all("--step_num", job.source.steps, job.steps)
        self.job, self.count, self.model, self.launched = job, count, model, launched
        self.rows = rows_for_all(job.source, job.split, job.steps)
        names = [*job.source.categories, "normal"]
        self.parts = draw_parts(self.rows.labels.numpy(), count, job.settings.seed, names)
        self.folds = [self._fold(number) for number in range(1, count + 1)]
        self.path, self.config = job.save_dir / FOLDS, job.save_dir / CONFIG
        self._need_same_config()
        self.finished = self._is_finished()
        self.left = []
        if not self.finished:
            self.left = [fold for fold in self.folds if load_fold_scores(fold) is None]
        if model == "shared":
            for fold in self.left:
                SharedTask(fold.job)  # too few videos are told before anything is trained

    def identity(self):
        """Return {key: value} that the scores follow from, besides the part of each video."""
        return {
            "count": self.count,
            "seed": self.job.settings.seed,
            "model": self.model,
            **self.job.identity(),
            "init": self.job.init_sha256,
        }

    def part(self):
        """Return the part of each video, {kind: {row: number from 1}}."""
        numbers = {kind: {} for kind in KINDS}
        for (kind, row), part in zip(self.rows.videos, self.parts.tolist(), strict=True):
            numbers[kind][str(row)] = part + 1
        return numbers

    def training(self, fold):
        """Return what trains the detectors of a fold: a ResumableRun or a TrainRun.

        All processes call this for a grid, the main one alone for a shared detector.
        """
        if self.launched.is_main:
            self._write_config()
        if self.model == "shared":
            return ResumableRun(fold.job, SharedTask(fold.job))
        run = TrainRun(fold.job, self.launched)
        self.launched.barrier()  # none may train before all have seen what is left
        return run

    def scoring(self, fold):
        """Return the sized iterable that scores the part that a fold left out."""
        return FoldScoring(fold)

    def save(self):
        """Write folds.pth from the scores of all folds, and tidy up; returns its checked content.

        Where folds.pth was whole, only what it says of the final detectors is brought up to date.
        """
        if self.finished:
            content = load_folds(self.path)
        else:
            content = joined(self.folds, self.rows)
            content |= {"folds": self.identity(), "part": self.part()}
        self._write_config()
        detectors = identity_of(load_bank(self.job.save_dir, self.job.device))
        if content.get("detectors") != detectors:
            content["detectors"] = detectors
            save_torch(content, self.path)
        shutil.rmtree(self.job.save_dir / FOLDER, ignore_errors=True)
        return load_folds(self.path)

    def facts(self, content):
        """Return {fact: text} for the summary; content: of folds.pth."""
        last = len(self.job.steps) - 1
        areas = [
            f"{out_of_fold_auroc(content, place):.3f} at step {self.job.steps[place]}"
            for place in sorted({0, min(4, last), last})
        ]
        unsafe, normal = (len(self.rows.of_kind(kind)) for kind in KINDS)
        facts = {
            "parts": f"{self.count}, {self.count - len(self.left)} of them found scored",
            "videos": f"{unsafe} unsafe, {normal} normal, none held out",
            "AUROC out of fold, mean of categories": ", ".join(areas),
        }
        if self.job.init:
            facts["the encoder of --init"] = "has seen all parts, without labels"
        return facts

    def _fold(self, number):
        left_out = {kind: [] for kind in KINDS}
        for (kind, row), part in zip(self.rows.videos, self.parts, strict=True):
            if part == number - 1:
                left_out[kind].append(row)
        split = self.job.split
        unseen = {kind: sorted({*getattr(split, kind), *rows}) for kind, rows in left_out.items()}
        folder = self.job.save_dir / FOLDER / str(number)
        return Fold(
            number, replace(self.job, split=replace(split, **unseen), save_dir=folder), left_out
        )

    def _write_config(self):
        if not self.config.exists():
            save_yaml({**self.identity(), "versions": versions()}, self.config)

    def _need_same_config(self):
        """InputError where folds of another number or of another training were begun here."""
        if self.config.exists():
            before = load_yaml(self.config)
            if not isinstance(before, dict):
                raise InputError(
                    f"{self.config}: found a {type(before).__name__}, the settings of the folds "
                    "are needed; delete it"
                )
            self._need_same(self.config, before, self.identity())

    def _is_finished(self):
        if not self.path.exists():
            return False
        content = load_folds(self.path)
        before = {**content["folds"], "part": content["part"]}
        self._need_same(self.path, before, {**self.identity(), "part": self.part()})
        return True

    def _need_same(self, path, before, now):
        found = first_difference(before, now, (*NO_EFFECT_ON_WEIGHTS, "versions"))
        if found is None:
            return
        key, there, now = found
        if key == "count":
            raise InputError(
                f"--folds {now}: {path} is of {shorten(there)} parts; give --folds "
                f"{shorten(there)}, or delete {FOLDS}, {CONFIG} and {FOLDER}/ there"
            )
        changed = what_changed(key, there, now)
        if changed:
            raise InputError(
                f"{path}: after it was made, {changed}; use another --save_dir, or delete {FOLDS}, "
                f"{CONFIG} and {FOLDER}/ there"
            )
        raise InputError(
            f"{path}: {key} was {shorten(there)}, now it is {shorten(now)}; use another "
            f"--save_dir, or delete {FOLDS}, {CONFIG} and {FOLDER}/ there"
        )


def _need_all(flag, there, asked):
    """InputError unless the scores will be of all categories and steps that there are."""
    if missing := sorted(set(there) - set(asked)):
        raise InputError(
            f"{flag}: --folds scores by all categories at all steps, {missing[0]} is missing; "
            f"leave {flag} out"
        )


def draw_parts(labels, count, seed, names):
    """Draw videos into parts that have their share of every category and of the normal videos.

    A video is drawn for its rarest category, into the part that has the fewest of it.

    Args:
        labels: [N, G]; videos of no category are normal.
        count: how many parts.
        seed: of the draw.
        names: [G + 1], what messages call the categories and the normal videos.

    Returns:
        int array [N], each video's part, from 0.

    Raises:
        InputError: a part would have none of a category, or the others too few to train on.
    """
    kinds = [*(labels.T > 0), labels.sum(1) == 0]
    needed = max(count, 2 * MIN_CLIPS if count == 2 else 0)
    for members, name in zip(kinds, names, strict=True):
        if members.sum() < needed:
            raise InputError(
                f"--folds {count}: {plural(int(members.sum()), 'video')} of category "
                f"{shorten(name)} not held out, {needed} or more are needed: one in each part, and "
                f"{MIN_CLIPS} in the others"
            )
    kinds.sort(key=lambda members: members.sum())
    rng = np.random.default_rng([seed, count])
    for _ in range(TRIES):
        parts = _drawn(kinds, count, rng)
        sizes = np.array([_sizes(parts, members, count) for members in kinds])
        others = sizes.sum(1, keepdims=True) - sizes
        if sizes.min() >= 1 and others.min() >= MIN_CLIPS:
            return parts
    raise InputError(
        f"--folds {count}: categories share so many of their few videos that not every part has "
        "one of each; fewer parts or more videos are needed"
    )


def _drawn(kinds, count, rng):
    """Draw once; kinds: [bool [N]], the rarest first."""
    parts = np.full(len(kinds[0]), -1)
    for members in kinds:
        of_kind = _sizes(parts, members, count)  # counted on: counting anew takes N x N
        of_all = _sizes(parts, True, count)
        for video in rng.permutation(np.flatnonzero(members & (parts < 0))):
            part = np.lexsort((rng.random(count), of_all, of_kind))[0]
            parts[video] = part
            of_kind[part] += 1
            of_all[part] += 1
    return parts


def _sizes(parts, members, count):
    """How many of some videos are in each part, [K]."""
    return np.bincount(parts[members & (parts >= 0)], minlength=count)
