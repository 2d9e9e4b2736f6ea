"""Training names.pth: one network that tells the unsafe categories from each other.

It is trained as the shared detector is, on the same unsafe videos, but each category learns against
the videos of the other ones. Normal videos take no part: names are asked for only where a video was
found unsafe.
"""

from argparse import Namespace
from dataclasses import replace

import torch

from lvd.detectors.bank import NAMES
from lvd.detectors.names import load_names_file, named, save_names
from lvd.errors import InputError
from lvd.evaluation.metrics import batched_auroc
from lvd.evaluation.naming import shares
from lvd.training.recipes import COMMON, read_settings
from lvd.training.resumable import ResumableRun
from lvd.training.rows import Rows
from lvd.training.shared import SharedTask
from lvd.utils.cli import summary
from lvd.utils.config import claim_output, versions
from lvd.utils.files import save_csv
from lvd.utils.progress import progress

CONFIG_NAME = "names.yaml"
METRICS = "names_metrics.csv"
OWN = ("names", *COMMON)  # keys of the words after the flags that count for the names


class NamesTask(SharedTask):
    """What ResumableRun needs to know to train {save_dir}/names.pth; see SharedTask."""

    noun, file_name = "network of names", NAMES

    def __init__(self, job):
        super().__init__(job)
        unsafe = len(self.rows.of_kind("unsafe"))  # they stand before the normal ones
        self.rows = Rows(self.rows.videos[:unsafe], self.rows.labels[:unsafe])
        self.train = self.train[self.train < unsafe]
        self.validation = self.validation[self.validation < unsafe]
        need_others(self.rows.labels[self.train], job.source.categories)
        self.weights = names_weights(self.rows.labels, self.train)
        self.identity["rows"] = self.rows.by_kind()

    def load_about(self, path):
        return load_names_file(path, mmap=True)["about"]

    def auroc(self, scores, labels):
        """Return the mean AUROC of a category's own videos against those of others.

        None where no category has both among the validation videos. Arguments: see SharedTask.
        """
        both = [column for column in range(labels.shape[1]) if 0 < labels[:, column].mean() < 1]
        aurocs = [batched_auroc(scores[:, :, column].T, labels[:, column]) for column in both]
        return float(torch.cat(aurocs).double().mean()) if aurocs else None

    def save(self, path, clips, facts):
        """Write the table of each step's names and the network.

        Args:
            path, clips, facts: see SharedTask.

        Returns:
            What the network says about itself. "naming" is how right its names are on the
            validation videos of all steps (lvd.evaluation.naming.shares).
        """
        job = self.job
        self.detector.mean, self.detector.std = self.mean, self.std
        scores = self.scores(clips)
        truth = self.rows.labels[self.validation].bool().numpy()
        by_step = [shares(named(scores[:, at]), truth) for at in range(len(job.steps))]
        naming = {
            key: round(sum(row[key] for row in by_step) / len(by_step), 6) for key in by_step[0]
        }
        self.detector.about = {
            **self.identity,
            "sampling": job.source.sampling,
            **facts,
            "naming": naming,
            "init_about": job.init.about if job.init else None,
        }
        table = [{"step": step, **row} for step, row in zip(job.steps, by_step, strict=True)]
        save_csv(table, path.with_name(METRICS))
        save_names(self.detector, path)
        return self.detector.about


def names_weights(labels, train):
    """Return the weight of every video's label in the loss, float32 [N, G].

    A category's own videos together weigh as much as those of all others, however few they are,
    and all categories alike.

    Args:
        labels: [N, G] of unsafe videos.
        train: positions of the training videos.
    """
    own = labels[train].sum(0)
    weights = torch.where(labels > 0, (len(train) - own) / own, 1.0)
    return weights / weights[train].mean(0)


def need_others(labels, categories):
    """InputError unless each category has videos that it can be told from; labels: [N, G]."""
    for column, category in enumerate(categories):
        if (labels[:, column] > 0).all():
            raise InputError(
                f"--names: all {len(labels)} unsafe videos that are trained on are of category "
                f"{category[:80]}, so it cannot be told from others; leave --names out"
            )


def names_run(job, args, launched):
    """Return the ResumableRun that trains {save_dir}/names.pth.

    Args:
        job: the Job of the detectors beside it.
        launched: lvd.utils.processes.Processes; the main one trains.
        args: their flags. Size, base_model, seed and precision count for the names too; their other
            settings come from section names of the config and of the words.

    Raises:
        InputError: not all categories are trained, or the folder holds other names.
    """
    missing = [group for group in job.source.groups if group not in job.categories]
    if missing:
        raise InputError(
            f"--group_num: --names tells all categories apart, group {missing[0]} is missing"
        )
    device = job.device if launched.is_main else "cpu"
    job = replace(job, settings=names_settings(args), device=device)
    if (job.save_dir / CONFIG_NAME).exists():
        _claim(job)
    return ResumableRun(job, NamesTask(job))


def names_settings(args):
    """Return the NamesSettings that flags, words and the config's section give."""
    flags = {key: getattr(args, key, None) for key in COMMON}
    words = [word for word in args.overrides or [] if word.split("=")[0].split(".")[0] in OWN]
    return read_settings(args.config, Namespace(**flags, overrides=words), "names")


def train_names(run):
    """Train the names and tell how right they are."""
    job = run.job
    for loss in (
        bar := progress(run, run.task.noun, unit="batch", total=run.total, initial=run.done)
    ):
        bar.set_postfix_str(f"loss {loss:.3f}")
        if not (job.save_dir / CONFIG_NAME).exists():
            _claim(job)
    naming = run.about["naming"]
    summary(
        "names of categories trained",
        {
            "size": job.settings.size,
            "clips": f"{len(run.task.rows.videos)} unsafe videos x {len(job.steps)} steps, none "
            "held out",
            "validation": f"{naming['precision']:.0%} of the names are right, "
            f"{naming['named']:.2f} named a video, {naming['true']:.2f} true",
        },
        [
            path
            for path in (*run.written, job.save_dir / METRICS, job.save_dir / CONFIG_NAME)
            if path.exists()
        ],
    )


def _claim(job):
    """Write names.yaml, or check that the one in the folder says the same."""
    config = {
        **job.settings.as_dict(),
        "representation": job.source.representation,
        "eval_sha256": job.eval_sha256,
        "dataset": job.source.made_by,
        "init": job.init_sha256,
        "versions": versions(),
    }
    claim_output(job.save_dir, config, CONFIG_NAME, ("versions",))
