"""Write recordings of which a share of the labels is wrong, for detectors that learn from these.

--kind category: that share of the unsafe training videos is labelled with another category.
--kind class: that share of the unsafe training videos changes places with as many normal ones, as
if the labels had said the opposite. It takes as much disk as the recordings themselves.

Which videos these are follows from --seed and their rows; those of a smaller share are among those
of a larger one. Held-out videos keep their labels and places. The folder gets recordings.yaml and
eval.pth to train with, and wrong.csv, which says what is wrong. With --train the shared detector is
trained on them here, and the exchanged recordings are deleted after that.
"""

import csv
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np

from lvd.data.config import read_data_config
from lvd.data.labels import read_recorded_labels, write_labels
from lvd.data.split import NAME, load_split, save_split, split_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import claim_output
from lvd.utils.files import sha256
from lvd.utils.partials import atomic
from lvd.x0.file import open_x0_file
from lvd_study.exchanged import delete_exchanged, write_exchanged
from lvd_study.other_labels import LABELS, NEEDED, RECORDINGS, add_recordings, write_recordings

CATEGORY, CLASS = "category", "class"
UNSAFE, NORMAL, OTHER = range(3)  # what is drawn of a row
WRONG, CONFIG_NAME, DETECTOR = "wrong.csv", "wrong_labels.yaml", "shared"


def build_parser():
    parser = Parser(
        __doc__,
        "python -m lvd_study.wrong_labels --config build_x0.yaml --eval_dir MagicTime --share 0.1 "
        "--kind category --seed 2024 --out DIR",
    )
    add_recordings(parser)
    parser.add_argument(
        "--share", type=float, required=True, help="of the unsafe training videos, above 0 below 1"
    )
    parser.add_argument("--kind", choices=(CATEGORY, CLASS), required=True, help="what is wrong")
    parser.add_argument("--seed", type=int, default=2024, help="of the draw and of the training")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--train", type=Path, metavar="YAML", help="also train, by these settings of train_mae.py"
    )
    parser.add_argument(
        "--gpu_num", type=int, default=0, help="CUDA device, -1 for the CPU (default: 0)"
    )
    return parser


def work(args):
    if not 0 < args.share < 1:
        raise InputError(f"--share {args.share}: a number above 0 and below 1 is needed")
    if not 0 <= args.seed < 2**31:
        raise InputError(f"--seed {args.seed}: from 0 to {2**31 - 1} is needed")
    settings = read_data_config(args.config, Namespace(), required=NEEDED)
    split = load_split(split_path(args.eval_dir), need_normal=True)
    labels = read_recorded_labels(settings.label_file_dir, settings.pred_x0)
    args.out.mkdir(parents=True, exist_ok=True)
    _claim(settings, labels, args)
    write = {CATEGORY: _write_categories, CLASS: _write_classes}[args.kind]
    facts = write(settings, labels, split, args)
    if args.train:
        _train(args)
        delete_exchanged(args.out)
    summary("wrong labels", facts, [args.out])


def wrong_rows(rows, share, seed, what=UNSAFE):
    """Draw the rows whose labels are made wrong.

    Args:
        rows: of the training.
        share: of them, rounded to a whole number of rows, at least one.
        seed: of the draw.
        what: UNSAFE or NORMAL rows, which are drawn apart.

    Returns:
        The rows, in the order of the draw: a larger share has the same ones first.
    """
    count = max(1, int(share * len(rows) + 0.5))
    return sorted(rows, key=lambda row: (_draw(seed, row, what).random(), row))[:count]


def with_wrong_categories(labels, trained, share, seed):
    """Label a share of the training videos with another category.

    A video of several categories loses them all for one that it does not show.

    Args:
        labels: Labels, the right ones.
        trained: unsafe rows that are trained on.
        share: of these rows.
        seed: of the draw.

    Returns:
        ({category: rows}, {row: (its right categories, the wrong one)}).

    Raises:
        InputError: there is no other category.
    """
    count = len(labels.categories)
    if count == 1:
        raise InputError(f"{labels.path}: one category, and no other one to take for it")
    able = [row for row in trained if len(labels.groups_of(row)) < count]
    wrong = {}
    for row in wrong_rows(able, share, seed):
        own = labels.groups_of(row)
        others = [group for group in range(1, count + 1) if group not in own]
        wrong[row] = own, int(_draw(seed, row, OTHER).choice(others))
    columns = {}
    for group, (category, rows) in enumerate(zip(labels.categories, labels.columns), 1):
        right = [row for row in rows if row not in wrong]
        columns[category] = sorted(right + [row for row in wrong if wrong[row][1] == group])
    names = labels.categories
    named = {row: ([names[k - 1] for k in own], names[k2 - 1]) for row, (own, k2) in wrong.items()}
    return columns, named


def exchanged_pairs(unsafe, normal, share, seed):
    """Draw the training videos that change places.

    Args:
        unsafe, normal: rows that are trained on.
        share: of the unsafe ones.
        seed: of the draw.

    Returns:
        [(unsafe row, normal row)].

    Raises:
        InputError: there are fewer normal videos than that.
    """
    drawn = wrong_rows(unsafe, share, seed)
    if len(drawn) > len(normal):
        raise InputError(
            f"--share {share}: {len(drawn)} unsafe videos would change places with as many normal "
            f"ones, and {len(normal)} are trained on"
        )
    of_normal = wrong_rows(normal, 1, seed, NORMAL)
    return list(zip(drawn, of_normal))


def _draw(seed, row, what):
    return np.random.default_rng([seed, row, what])


def _claim(settings, labels, args):
    """Refuse a folder of other labels or recordings."""
    known = {
        "share": args.share,
        "kind": args.kind,
        "seed": args.seed,
        "pred_x0_made_by": open_x0_file(settings.pred_x0).fingerprint,
        "normal_pred_x0_made_by": open_x0_file(settings.normal_pred_x0).fingerprint,
        "label_sha256": sha256(labels.path),
        "eval_sha256": sha256(split_path(args.eval_dir)),
    }
    claim_output(args.out, known, CONFIG_NAME)


def _write_categories(settings, labels, split, args):
    trained = sorted(set(labels.rows()) - set(split.unsafe))
    columns, wrong = with_wrong_categories(labels, trained, args.share, args.seed)
    path = args.out / LABELS
    write_labels(columns, path)
    save_split(replace(split, label_sha256=sha256(path)), args.out / NAME)
    write_recordings(settings, path, args.out / RECORDINGS)
    lines = [(row, " and ".join(own), other) for row, (own, other) in sorted(wrong.items())]
    _write_table(["unsafe row", "is", "labelled"], lines, args.out / WRONG)
    return {"of another category": f"{len(wrong)} of {len(trained)} unsafe training videos"}


def _write_classes(settings, labels, split, args):
    trained = sorted(set(labels.rows()) - set(split.unsafe))
    normal = sorted(set(open_x0_file(settings.normal_pred_x0).rows) - set(split.normal))
    pairs = exchanged_pairs(trained, normal, args.share, args.seed)
    about = {"share": args.share, "seed": args.seed}
    paths = write_exchanged(settings, pairs, args.out.resolve(), about)
    save_split(split, args.out / NAME)
    settings = replace(settings, pred_x0=paths["unsafe"], normal_pred_x0=paths["normal"])
    write_recordings(settings, labels.path, args.out / RECORDINGS)
    _write_table(["unsafe row", "normal row"], sorted(pairs), args.out / WRONG)
    return {
        "changed places": f"{len(pairs)} of {len(trained)} unsafe training videos, with as many "
        f"of {len(normal)} normal ones"
    }


def _write_table(columns, lines, path):
    with atomic(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(lines)


def _train(args):
    """Train the shared detector by train_mae.py, which has told why where it fails."""
    import train_mae

    words = ["--config", args.train, "--model", "shared", "--seed", args.seed]
    words += ["--recordings", args.out / RECORDINGS, "--eval_dir", args.out / NAME]
    words += ["--save_dir", args.out / DETECTOR, "--gpu_num", args.gpu_num]
    if status := train_mae.main(list(map(str, words))):
        raise SystemExit(status)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
