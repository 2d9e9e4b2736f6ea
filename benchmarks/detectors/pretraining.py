"""What pre-training without labels brings when few videos are labelled: detectors from a pretrained
encoder against detectors from nothing (15 minutes with --labels 5,20).

By the real scripts, for each number of labelled unsafe videos per category and each of several
seeds (which choose those videos, too): detectors of the grid at some early steps, and the shared
detector. Figures are held-out AUROC at the early steps. All normal videos are known to be normal.
What is finished in --work is not done again.

Needs bash reproduce.sh. Results: pretraining.csv, .txt and .png, and pretraining_by_category.csv.
"""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.common.figures import save_label_lines, title_of
from benchmarks.common.flags import add_eval_dir, add_recordings, add_size, add_work, chosen
from benchmarks.common.needs import read_recordings
from benchmarks.common.report import Report
from benchmarks.common.results import OUTPUTS, add_result_flags, results_path
from benchmarks.common.script_runs import claim_work, run_once
from benchmarks.common.seeds import mean_and_sd, parse_seeds
from benchmarks.detectors.few_labels import write_few_labels
from lvd.data.split import load_split, save_split
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command
from lvd.utils.files import save_csv
from lvd.utils.plots import drawn

CASES = {  # name → (model, from a pretrained encoder?)
    "grid": ("grid", False),
    "grid, pre-trained": ("grid", True),
    "shared": ("shared", False),
    "shared, pre-trained": ("shared", True),
}
MODELS = ("grid", "shared")
RESULT_FILE = "pretraining.csv"


def build_parser():
    parser = Parser(
        __doc__,
        "python benchmarks/detectors/pretraining.py --eval_dir MagicTime/eval.pth --labels 5,20",
    )
    add_recordings(parser)
    add_eval_dir(parser)
    add_work(parser, OUTPUTS / "pretraining", "detectors")
    add_result_flags(parser, RESULT_FILE)
    add_size(parser)
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


def parse_counts(text):
    """[int or "all"] of "5,10,all"."""
    counts = []
    for word in text.split(","):
        if word != "all" and not word.isdecimal():
            raise InputError(f"--labels {text}: whole numbers or all, with commas, are needed")
        counts.append(word if word == "all" else int(word))
    return counts


def work(args):
    counts, seeds = parse_counts(args.labels), parse_seeds(args.seeds)
    models = chosen(args.models, MODELS, "--models")
    settings = read_recordings(
        args.recordings, keys=("pred_x0", "normal_pred_x0", "label_file_dir")
    )
    claim_work(args.work, settings, args.eval_dir, size=args.size, step_num=args.step_num)
    args.eval_dir = without_label_file(args)
    title = "Detectors from a pretrained encoder, by the number of labelled videos"
    report = Report(title, results_path(args, RESULT_FILE))
    note = (
        f"held-out AUROC against normal videos, mean over steps {args.step_num} and seeds "
        f"{args.seeds}"
    )
    rows = []
    for count in counts:
        for case, (model, pretrained) in CASES.items():
            if model not in models:
                continue
            aurocs = [train(args, model, pretrained, count, seed) for seed in seeds]
            summary = over_seeds(case, count, aurocs)
            figures = {row["category"]: row["auroc"] for row in summary}
            figures["sd"] = summary[-1]["auroc sd"]
            report.add(f"{count} labelled videos per category", note, [(case, figures)])
            rows += summary
    out = report.out
    save_csv(rows, out.with_name(f"{out.stem}_by_category.csv"))
    split = load_split(args.eval_dir)
    detectors = f"{args.size} detectors of steps {args.step_num}"
    title = title_of(len(split.unsafe), len(split.normal), detectors, len(seeds))
    drawn(save_label_lines, rows, out.with_suffix(".png"), title)
    report.say_where()


def over_seeds(case, count, aurocs):
    """Mean and standard deviation over seeds, by category and over all of them (last).

    aurocs: {category: AUROC} of each seed.
    """
    rows = []
    for category in [*aurocs[0], "all"]:
        if category == "all":
            values = [np.mean(list(by_category.values())) for by_category in aurocs]
        else:
            values = [by_category[category] for by_category in aurocs]
        place = {"case": case, "labels": count, "category": category}
        rows.append({**place, **mean_and_sd("auroc", values)})
    return rows


# ---- training, by the scripts


def train(args, model, pretrained, count, seed):
    """{category: mean AUROC over the steps} of one training."""
    folder = args.work / f"{model}{'-pretrained' * pretrained}" / str(count) / str(seed)
    if not (folder / "evaluation.csv").exists():
        common = ["--eval_dir", args.eval_dir, "--gpu_num", -1, "--size", args.size]
        common += ["--seed", seed]
        flags = []
        if pretrained:
            before = args.work / "pretraining" / str(seed)
            all_rows = ["--recordings", args.recordings]
            run_once(before, "pretrain_mae.py", *all_rows, *common, "--save_dir", before)
            flags = ["--init", before / "pretrained.pth"]
        few = ["--recordings", write_few_labels(args, count, seed), *common]
        few += ["--model", model, "--save_dir", folder]
        steps = "all" if model == "shared" else args.step_num
        run_once(folder, "train_mae.py", *few, *flags, "--step_num", steps)
        judge = ["--no-train", "--step_num", args.step_num]
        run_once(folder / "evaluated", "train_mae.py", *few, *judge)
    table = pd.read_csv(folder / "evaluation.csv", dtype={"category": str})
    return table.groupby("category", sort=False)["auroc"].mean().to_dict()


def without_label_file(args):
    """An eval.pth of the same rows for the label files of fewer videos, which are not the one it
    was drawn from."""
    path = args.work / "eval.pth"
    if not path.exists():
        save_split(replace(load_split(args.eval_dir), label_sha256=None), path)
    return path


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
