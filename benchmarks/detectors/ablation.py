"""Recipes of small detectors, each trained with each seed, and their scores on held-out videos."""

import time

import numpy as np
import torch

from lvd.data.sources import FolderClips
from lvd.data.split import Split, load_split, split_path
from lvd.detectors.detector import predict
from lvd.evaluation.metrics import batched_auroc
from lvd.training.chunks import PAYS
from lvd.training.grid import detector_seed, step_reader, train_detectors
from lvd.training.recipes import RECIPES, GridSettings, stackable
from lvd.training.rows import rows_to_train
from lvd.utils.cli import parse_numbers
from lvd.utils.files import load_torch, save_torch, sha256
from lvd.utils.processes import pick_device
from lvd.voting import votes_needed

LAMBDA, ETAS = "0.6", (5, 20)
MANY = 20  # steps that a file's name counts rather than lists


class Ablation:
    """Sized iterable over (recipe, seed): trains what is not finished and keeps its scores on the
    held-out videos.

    Args:
        args: of recipes.py.
        variants: {recipe: what differs from the recipe "scratch"}.
        names: the recipes to train.
    """

    def __init__(self, args, variants, names):
        self.args, self.variants, self.names = args, variants, names
        self.source = FolderClips(args.data_dir / "train_detector_data")
        self.reported = load_split(args.data_dir)
        self.steps = parse_numbers(args.step_num, self.source.steps, "--step_num")
        self.seeds = parse_numbers(args.seeds, range(10_000), "--seeds")
        self.todo = [(name, seed) for seed in self.seeds for name in self.names]
        self.device = pick_device(args.gpu_num)
        self.readers = {}
        self.scored = {}  # (recipe, seed) → (Split, {"scores", "thresholds", "seconds"})

    def __len__(self):
        return len(self.todo)

    def __iter__(self):
        for name, seed in self.todo:
            split = self._split(seed)
            settings = self._settings(name, seed)
            made_of = self._made_of(settings, split)
            path = self._path(name, seed)
            if not path.exists() or load_torch(path).get("made_of") != made_of:
                save_torch({**self._train(settings, split, seed), "made_of": made_of}, path)
            self.scored[name, seed] = split, load_torch(path)
            yield name, seed

    def _split(self, seed):
        return (
            self.reported if self.args.reported else other_split(self.source, self.reported, seed)
        )

    def _settings(self, name, seed):
        recipe = {**RECIPES["scratch"], **self.variants[name]}
        return GridSettings(size="nano", base_model=None, seed=seed, **recipe)

    def _made_of(self, settings, split):
        """What finished scores depend on."""
        return {
            "settings": settings.as_dict(),
            "held_out": [split.unsafe, split.normal],
            "dataset": self.source.made_by,
            "reported": sha256(split_path(self.args.data_dir)),
        }

    def _path(self, name, seed):
        steps = "-".join(map(str, self.steps))
        if len(self.steps) >= MANY:
            steps = f"{len(self.steps)}_steps"
        kind = "reported" if self.args.reported else "other"
        return self.args.work_dir / f"{name.replace(' ', '_')}.{kind}.{seed}.{steps}.pth"

    # ---- training

    def _train(self, settings, split, seed):
        """Train a recipe's detectors of all categories and steps.

        Returns:
            {"scores": [G, S, N], "thresholds": [G, S], "seconds": CPU seconds a detector}; N:
            held-out unsafe clips, then normal ones.
        """
        began = time.process_time()
        scores, thresholds = [], []
        left_out = both(split, self.reported)
        for group in self.source.groups:
            rows = rows_to_train(self.source, group, self.steps[0], left_out, settings)
            by_step = {}
            for step, detector in self._detectors(group, rows, settings, seed):
                held_out = {"unsafe": split.unsafe, "normal": split.normal}
                clips = self.readers[step].read(held_out)
                by_step[step] = predict(detector, clips), detector.threshold
            scores.append(torch.stack([by_step[step][0] for step in self.steps]))
            thresholds.append([by_step[step][1] for step in self.steps])
        seconds = (time.process_time() - began) / len(self.source.groups) / len(self.steps)
        return {
            "scores": torch.stack(scores),
            "thresholds": torch.tensor(thresholds),
            "seconds": seconds,
        }

    def _detectors(self, group, rows, settings, seed):
        """Yield (step, trained detector) of one category."""
        at_once = PAYS["cpu"] if stackable(settings) else 1
        for start in range(0, len(self.steps), at_once):
            steps = self.steps[start : start + at_once]
            seeds = [detector_seed(seed, group, step) for step in steps]
            readers = [self._reader(step, rows["unsafe"][0], settings) for step in steps]
            trained = train_detectors(rows, readers, seeds, settings, self.device)
            for step, detector, _ in trained:
                yield step, detector

    def _reader(self, step, row, settings):
        if step not in self.readers:
            self.readers[step] = step_reader(self.source, step, row, settings)
        return self.readers[step]

    # ---- figures

    def rows(self):
        """Rows of the table: one for each recipe, seed and step."""
        rows = []
        for (name, seed), (split, scored) in self.scored.items():
            rows += self._rows(name, seed, split, scored)
        return rows

    def _rows(self, name, seed, split, scored):
        scores, unsafe = scored["scores"], len(split.unsafe)
        labels = torch.tensor([1] * unsafe + [0] * len(split.normal))
        any_auroc = batched_auroc(scores.amax(0), labels)
        own = []  # each category's AUROC, [S]
        for group, of_group in zip(self.source.groups, scores):
            kept = self._kept(group, split)
            own.append(batched_auroc(of_group[:, kept], labels[kept]))
        own = torch.stack(own).mean(0)
        at_thresholds = (scores >= scored["thresholds"][..., None]).any(0)  # [S, N]
        accuracy = balanced_accuracy(at_thresholds, unsafe)
        argmax = balanced_accuracy((scores >= 0.5).any(0), unsafe)
        for place, step in enumerate(self.steps):
            yield {
                "recipe": name,
                "split": "reported" if self.args.reported else "other",
                "seed": seed,
                "step": step,
                "auroc": float(own[place]),
                "auroc_any": float(any_auroc[place]),
                "accuracy": float(accuracy[place]),
                "accuracy_argmax": float(argmax[place]),
                "cpu_seconds_a_detector": scored["seconds"],
            }

    def _kept(self, group, split):
        """Which held-out clips count for a category: its own and the normal ones, bool [N]."""
        members = set(self.source.group_rows(group, self.steps[0]))
        return torch.tensor([row in members for row in split.unsafe] + [True] * len(split.normal))

    def verdicts(self, name):
        """{eta: [accuracy for each seed]} of whole videos at LAMBDA; {} when steps are left out."""
        first = list(range(max(ETAS)))
        if self.steps[: len(first)] != first:
            return {}
        accuracies = {eta: [] for eta in ETAS}
        for seed in self.seeds:
            split, scored = self.scored[name, seed]
            votes = (scored["scores"] >= scored["thresholds"][..., None]).any(0)  # [S, N]
            for eta in ETAS:
                said = votes[:eta].sum(0, keepdim=True) >= votes_needed(LAMBDA, eta)
                accuracies[eta].append(float(balanced_accuracy(said, len(split.unsafe))[0]))
        return accuracies


def balanced_accuracy(said, unsafe):
    """Mean of the true positive and the true negative rate, [S].

    Args:
        said: verdicts, bool [S, N].
        unsafe: how many of the N videos, the first ones, are unsafe.
    """
    said = said.float()
    return (said[:, :unsafe].mean(1) + 1 - said[:, unsafe:].mean(1)) / 2


# ---- splits


def other_split(source, reported, seed):
    """A Split of the rows that `reported` leaves for training: a fifth of each category's is held
    out."""
    rng, step = np.random.default_rng([seed, 77]), source.steps[0]
    unsafe = set()
    for group in source.groups:
        taken = set(reported.unsafe) | unsafe
        free = [row for row in source.group_rows(group, step) if row not in taken]
        unsafe |= set(rng.choice(free, max(1, len(free) // 5), replace=False).tolist())
    free = [row for row in source.rows("normal", step) if row not in set(reported.normal)]
    normal = rng.choice(free, min(len(unsafe), len(free) // 2), replace=False).tolist()
    return Split(sorted(unsafe), sorted(normal), seed)


def both(one, other):
    """The Split that holds out what either does."""
    return Split(sorted({*one.unsafe, *other.unsafe}), sorted({*one.normal, *other.normal}))
