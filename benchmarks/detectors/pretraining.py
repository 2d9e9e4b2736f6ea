"""What pre-training without labels brings when few videos are labelled: held-out AUROC at the early
steps.

By the real scripts, for each number of labelled unsafe videos per category and each of several
seeds (which choose those videos, too): detectors of the grid at some early steps, and the shared
detector, from nothing and from a pretrained encoder. All normal videos are known to be normal. What
is finished in --work is not done again.
"""

import csv
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common.figures import save_label_lines
from benchmarks.common.report import Report
from benchmarks.common.results import OUTPUTS, add_result_flags, results_path
from benchmarks.common.script_runs import claim_work, run_once
from lvd.data.config import read_data_config
from lvd.data.labels import read_labels
from lvd.data.split import load_split, save_split
from lvd.utils.cli import Parser, run_command
from lvd.utils.config import ROOT
from lvd.utils.files import atomic, save_csv, save_yaml

CASES = {
    ("grid", False): "grid",
    ("grid", True): "grid, pre-trained",
    ("shared", False): "shared",
    ("shared", True): "shared, pre-trained",
}
RESULT_FILE = "pretraining.csv"


def build_parser():
    parser = Parser(
        __doc__,
        "python benchmarks/detectors/pretraining.py --eval_dir MagicTime/eval.pth --labels 5,20",
    )
    parser.add_argument(
        "--recordings", type=Path, default=ROOT / "build_x0.yaml", help="(default: build_x0.yaml)"
    )
    parser.add_argument(
        "--eval_dir",
        type=Path,
        default=ROOT / "MagicTime" / "eval.pth",
        help="eval.pth or its folder",
    )
    parser.add_argument("--work", type=Path, default=OUTPUTS / "pretraining", help="detectors")
    add_result_flags(parser, RESULT_FILE)
    parser.add_argument("--size", default="nano", help="the network (default: nano)")
    parser.add_argument("--seeds", default="1,2,3", help="(default: 1,2,3)")
    parser.add_argument(
        "--labels", default="5,10,20,all", help="labelled unsafe videos per category"
    )
    parser.add_argument(
        "--step_num",
        default="0,2,5,10",
        help="steps of the grid that are trained, and all that are judged",
    )
    parser.add_argument("--models", default="grid,shared", help="(default: grid,shared)")
    return parser


def work(args):
    args.out = results_path(args, RESULT_FILE)
    settings = read_data_config(
        args.recordings, Namespace(), required=("pred_x0", "normal_pred_x0", "label_file_dir")
    )
    claim_work(args.work, settings, args.eval_dir, size=args.size, step_num=args.step_num)
    args.eval_dir = _without_label_file(args)
    bench = Report(
        "Detectors from a pretrained encoder, by the number of labelled videos", args.out
    )
    counts, seeds = (
        [None if word == "all" else int(word) for word in args.labels.split(",")],
        args.seeds.split(","),
    )
    rows = []
    for count in counts:
        for (model, pretrained), name in CASES.items():
            if model not in args.models.split(","):
                continue
            found = [_aurocs(args, model, pretrained, count, int(seed)) for seed in seeds]
            rows += _summary(name, count, found)
            bench.add(
                f"{count or 'all'} labelled videos per category",
                f"held-out AUROC against normal videos, mean over steps {args.step_num} and "
                f"seeds {args.seeds}",
                [
                    (
                        name,
                        {
                            row["category"]: row["auroc"]
                            for row in rows
                            if (row["case"], row["labels"]) == (name, count or "all")
                        }
                        | {"sd": rows[-1]["auroc sd"]},
                    )
                ],
            )
    save_csv(rows, args.out.with_name(f"{args.out.stem}_by_category.csv"))
    save_label_lines(rows, args.out.with_suffix(".png"), f"steps {args.step_num}, {args.size}")
    bench.say_where()


def _aurocs(args, model, pretrained, count, seed):
    """{category: mean AUROC over the steps} of one training."""
    folder = args.work / f"{model}{'-pretrained' * pretrained}" / str(count or "all") / str(seed)
    if not (folder / "evaluation.csv").exists():
        common = ["--eval_dir", args.eval_dir, "--gpu_num", -1, "--size", args.size]
        flags = []
        if pretrained:
            before = args.work / "pretraining" / str(seed)
            run_once(
                before,
                "pretrain_mae.py",
                "--recordings",
                args.recordings,
                *common,
                "--seed",
                seed,
                "--save_dir",
                before,
            )
            flags = ["--init", before / "pretrained.pth"]
        few = [
            "--recordings",
            _few(args, count, seed),
            *common,
            "--model",
            model,
            "--save_dir",
            folder,
            "--seed",
            seed,
        ]
        run_once(
            folder,
            "train_mae.py",
            *few,
            *flags,
            "--step_num",
            "all" if model == "shared" else args.step_num,
        )
        run_once(
            folder / "evaluated", "train_mae.py", *few, "--no-train", "--step_num", args.step_num
        )
    with open(folder / "evaluation.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    return {
        name: np.mean([float(row["auroc"]) for row in rows if row["category"] == name])
        for name in dict.fromkeys(row["category"] for row in rows)
    }


def _without_label_file(args):
    """An eval.pth of the same rows for the label files of fewer videos, which are not the one it
    was drawn from."""
    path = args.work / "eval.pth"
    if not path.exists():
        save_split(replace(load_split(args.eval_dir), label_sha256=None), path)
    return path


def _few(args, count, seed):
    """The recordings' YAML with another label file: of the videos that are not held out, `count`
    per category."""
    settings = read_data_config(args.recordings, Namespace())
    labels, held = read_labels(settings["label_file_dir"]), set(load_split(args.eval_dir).unsafe)
    columns = []
    for group, column in enumerate(labels.columns):
        free = np.random.default_rng([seed, group]).permutation(sorted(set(column) - held)).tolist()
        columns.append(sorted(set(column) & held) + sorted(free[:count]))
    folder = args.work / "labels" / f"{count or 'all'}-{seed}"
    with atomic(folder / "label.csv") as partial, open(partial, "w", newline="") as f:
        lines = csv.writer(f)
        lines.writerow(labels.categories)
        longest = max(map(len, columns))
        lines.writerows(zip(*(column + [""] * (longest - len(column)) for column in columns)))
    found = {
        key: str(Path(value).resolve())
        for key, value in settings.items()
        if isinstance(value, Path)
    }
    found |= {
        "representation": settings["representation"],
        "label_file_dir": str((folder / "label.csv").resolve()),
    }
    save_yaml(found, folder / "build_x0.yaml")
    return folder / "build_x0.yaml"


def _summary(case, count, found):
    """Mean and standard deviation over seeds, by category and over all of them (last)."""
    rows = []
    for name in [*found[0], "all"]:
        values = [
            np.mean(list(by_category.values())) if name == "all" else by_category[name]
            for by_category in found
        ]
        rows.append(
            {
                "case": case,
                "labels": count or "all",
                "category": name,
                "auroc": float(np.mean(values)),
                "auroc sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
            }
        )
    return rows


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
