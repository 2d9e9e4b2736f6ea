"""Write recordings with other labels, for detectors that learn from these.

The folder gets label.csv, an eval.pth that holds the same videos out, and a recordings.yaml that
names the same recordings with these labels. The label file that was there is not changed.

--without K leaves category K out, with all its videos: also with those that are of another category
besides, so that detectors never see it. Held-out videos that no category has any more stay held
out.
"""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from lvd.data.config import read_data_config
from lvd.data.labels import read_recorded_labels, write_labels
from lvd.data.split import NAME, load_split, save_split, split_path
from lvd.errors import InputError, plural
from lvd.training.rows import MIN_CLIPS
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT
from lvd.utils.files import save_yaml, sha256
from lvd_study.made import Data
from lvd_study.tasks import Task

LABELS, RECORDINGS = "label.csv", "recordings.yaml"
NEEDED = ("pred_x0", "normal_pred_x0", "label_file_dir")
KEPT = ("sample_config", "pred_x0", "normal_pred_x0", "representation", "rgb_matrix")


def other_labels(study, name, *flags):
    """Return the Data of a study's recordings with other labels.

    Args:
        study: Study.
        name: of the labels, such as "without 2".
        flags: of this module that say how the labels differ, such as "--without", 2.

    Returns:
        Data.
    """
    folder = study.work / "labels" / name.replace(" ", "_")
    command = ("-m", "lvd_study.other_labels", "--config", study.config)
    command += ("--eval_dir", study.eval_path, "--out", folder, *flags)
    task = Task(f"labels {name}", command, study.base_tasks)
    recordings = ("--recordings", folder / RECORDINGS)
    return Data(name, recordings, folder / NAME, (*study.base_tasks, task))


def add_recordings(parser):
    """Add the flags of the recordings and of the rows that are held out."""
    parser.add_argument("--config", type=Path, required=True, help="recordings, as build_x0.yaml")
    parser.add_argument(
        "--eval_dir", type=Path, required=True, help="eval.pth or its folder: of the held-out rows"
    )


def build_parser():
    parser = Parser(
        __doc__,
        "python -m lvd_study.other_labels --config build_x0.yaml --eval_dir MagicTime --without 2 "
        "--out DIR",
    )
    add_recordings(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--without", type=int, metavar="K", help="leave category K out, from 1")
    return parser


def work(args):
    settings = read_data_config(args.config, Namespace(), required=NEEDED)
    split = load_split(split_path(args.eval_dir))
    labels = read_recorded_labels(settings.label_file_dir, settings.pred_x0)
    columns = without_category(labels, args.without)
    for category, rows in columns.items():
        _need_rest(category, rows, split, labels.path)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / LABELS
    write_labels(columns, path)
    save_split(replace(split, label_sha256=sha256(path)), args.out / NAME)
    write_recordings(settings, path, args.out / RECORDINGS)
    summary("other labels", _facts(columns, split), [args.out])


def without_category(labels, group):
    """Return {category: rows} without a category, and without all videos that it has.

    Args:
        labels: Labels.
        group: number of the category, from 1.

    Raises:
        InputError: there is no such category, or no other one.
    """
    count = len(labels.categories)
    if not 1 <= group <= count:
        raise InputError(f"--without {group}: {labels.path} has categories 1 to {count}")
    if count == 1:
        raise InputError(
            f"--without {group}: {labels.path} has one category, and there would be none left"
        )
    gone = set(labels.columns[group - 1])
    return {
        category: [row for row in column if row not in gone]
        for number, (category, column) in enumerate(zip(labels.categories, labels.columns), 1)
        if number != group
    }


def _need_rest(category, rows, split, path):
    """InputError unless a category keeps as many videos as a training needs."""
    left = len(set(rows) - set(split.unsafe))
    if left < MIN_CLIPS:
        raise InputError(
            f"{path}: category '{category[:40]}' would keep {plural(left, 'video')} to train on, "
            f"{MIN_CLIPS} or more are needed"
        )


def write_recordings(settings, labels, path):
    """Write a YAML such as build_x0.yaml with other labels.

    Args:
        settings: DataConfig of the recordings.
        labels: path of the label file.
        path: of the YAML.
    """
    content = {key: getattr(settings, key) for key in KEPT}
    content["label_file_dir"] = labels.resolve()
    if settings.representation != "rgb":
        del content["rgb_matrix"]
    content = {key: _text(value) for key, value in content.items() if value is not None}
    save_yaml(content, path)


def _text(value):
    """A path below the repository is relative to it: a study may move with its repository."""
    if isinstance(value, Path):
        return str(value.relative_to(ROOT) if value.is_relative_to(ROOT) else value)
    return value


def _facts(columns, split):
    held_out = set(split.unsafe)
    facts = {
        category: f"{plural(len(set(rows) - held_out), 'video')} to train on"
        for category, rows in columns.items()
    }
    named = {row for rows in columns.values() for row in rows}
    facts["held out"] = f"{len(held_out)} unsafe, {len(held_out - named)} of them of no category"
    return facts


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
