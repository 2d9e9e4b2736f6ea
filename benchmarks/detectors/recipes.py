"""What each part of the small detectors' recipe brings: the recipe against itself without that
part, or with something else in its place (20 minutes).

Recipes are compared on other splits than the one that results are reported on: of the videos that
eval.pth does NOT hold out, a fifth is held out instead, another one for each seed, and the seed is
the training's too. With --reported they are trained and scored as reported (eval.pth held out, a
training for each seed); choose recipes before that. Figures are AUROC, accuracy and CPU seconds a
detector. What is finished is kept in --work_dir, so a stopped run goes on; what other settings or
data made there is made again.

Needs bash reproduce.sh. Results: recipes.csv, .txt and .png.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common.figures import title_of
from benchmarks.common.flags import MAGICTIME, add_gpu, add_work, chosen
from benchmarks.common.machine import facts
from benchmarks.common.needs import REPRODUCE, need_path
from benchmarks.common.report import heading
from benchmarks.common.results import OUTPUTS, add_result_flags, results_folder
from benchmarks.common.seeds import deviation
from benchmarks.detectors.ablation import LAMBDA, Ablation
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.files import save_text
from lvd.utils.partials import atomic
from lvd.utils.plots import DIVERGING, drawn, heat_map, save_figure, shown, subplots
from lvd.utils.progress import progress

EARLY = 10  # the last of the early steps
COLUMNS = 8  # steps that the figure shows at most
PANELS = {"auroc": "AUROC, mean of the categories", "accuracy": "accuracy of the step's vote"}
FULL = "full"
VARIANTS = {  # name: what differs from the recipe "scratch"
    FULL: {},
    "without masking": {"mask": 0.0},
    "without weight decay": {"weight_decay": 0.0},
    "without mirroring": {"flip": False},
    "without averaging": {"average": 0.0},
    "best epoch instead of averaging": {"average": 0.0, "select": "best"},
    "as many normal clips as unsafe": {"normals": "balanced"},
    "noise 0.1": {"noise": 0.1},
    "label smoothing 0.1": {"smoothing": 0.1},
    "dropout 0.1 instead of masking": {"mask": 0.0, "dropout": 0.1},
    "mask 0.75": {"mask": 0.75},
    "batch 24": {"batch_size": 24},
    "30 epochs": {"epoch": 30},
    "120 epochs": {"epoch": 120},
    "before": {"batch_size": 24, "weight_decay": 0.05, "mask": 0.0, "dropout": 0.1, "noise": 0.1},
}


def build_parser():
    parser = Parser(__doc__, "python benchmarks/detectors/recipes.py --seeds 1-3")
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=MAGICTIME,
        help="folder of train_detector_data and eval.pth (default: MagicTime)",
    )
    add_work(parser, OUTPUTS / "recipes", "keeps the scores of finished recipes", "--work_dir")
    add_result_flags(parser, "", "folder for {name}.csv, .txt and .png")
    parser.add_argument("--name", default="recipes", help="of the result files (default: recipes)")
    parser.add_argument("--recipes", default="all", help="names, by comma (default: all)")
    parser.add_argument("--step_num", default="0,2,5,10,20", help="default: 0,2,5,10,20")
    parser.add_argument("--seeds", default="1-3", help="of splits and trainings (default: 1-3)")
    parser.add_argument(
        "--reported", action="store_true", help="hold eval.pth out, as results are reported"
    )
    add_gpu(parser, default=-1)
    return parser


def work(args):
    names = chosen(args.recipes, VARIANTS, "--recipes")
    need_path("--data_dir", args.data_dir / "train_detector_data", REPRODUCE)
    ablation = Ablation(args, VARIANTS, names)
    for name, seed in (bar := progress(ablation, "recipes", unit="training")):
        bar.set_postfix_str(f"{name}, seed {seed}")
    frame = pd.DataFrame(ablation.rows())
    folder = args.out or results_folder(args)
    paths = [folder / f"{args.name}{suffix}" for suffix in (".csv", ".txt", ".png")]
    with atomic(paths[0]) as partial:
        frame.round(5).to_csv(partial, index=False)
    title = f"Recipes of nano detectors on {ablation.source.representation} clips"
    text = heading(title, facts()) + "\n".join([*notes(ablation), "", table(ablation, frame), ""])
    save_text(text, paths[1])
    split = ablation.scored[ablation.todo[0]][0]
    counts = len(split.unsafe), len(split.normal)
    title = title_of(*counts, "nano detectors", len(ablation.seeds), "means")
    drawn(draw_figure, frame, paths[2], title)
    print(text)
    summary("recipes compared", {"trainings": len(ablation)}, paths)


# ---- what is written


def notes(ablation):
    """Lines that say what the table shows."""
    split = ablation.scored[ablation.todo[0]][0]
    if ablation.args.reported:
        where = (
            "held out: eval.pth, as results are reported; nothing was chosen by these numbers; "
            "seeds: of the training"
        )
    else:
        where = (
            "held out: of the videos that eval.pth leaves for training a fifth, another one for "
            "each seed; eval.pth's own are in neither part"
        )
    whole = f"; ({LAMBDA}, eta): of whole videos" if ablation.verdicts(ablation.names[0]) else ""
    return [
        f"steps {ablation.args.step_num}, seeds {ablation.args.seeds}; {len(split.unsafe)} unsafe "
        f"and {len(split.normal)} normal videos held out",
        where,
        "mean ± standard deviation over the seeds (difference from the first recipe, same seeds, "
        "± its own)",
        f"accuracy: of one step's vote, each detector at its validation threshold{whole}",
        "CPU s: the least; detectors with dropout are trained one by one, the others stacked",
    ]


def table(ablation, frame):
    """Each recipe's means and spreads over the seeds, and its differences from the first one."""
    early = frame[frame["step"] <= EARLY]
    columns = {
        f"AUROC 0-{EARLY}": (early, "auroc"),
        "AUROC": (frame, "auroc"),
        f"accuracy 0-{EARLY}": (early, "accuracy"),
        "accuracy": (frame, "accuracy"),
    }
    verdicts = {name: ablation.verdicts(name) for name in ablation.names}
    reference = ablation.names[0]
    rows = []
    for name in ablation.names:
        row = {}
        for column, (part, quantity) in columns.items():
            values = over_seeds(part, name, quantity)
            row[column] = cell(values, over_seeds(part, reference, quantity))
        for eta, values in verdicts[name].items():
            row[f"({LAMBDA}, {eta})"] = cell(np.array(values), np.array(verdicts[reference][eta]))
        seconds = over_seeds(frame, name, "cpu_seconds_a_detector")
        row["CPU s a detector"] = f"{seconds.min():.2f}"  # the others share the machine more
        rows.append(row)
    return pd.DataFrame(rows, index=ablation.names).to_string()


def over_seeds(frame, name, quantity):
    """Mean over the steps of one recipe's quantity, for each seed: [seeds]."""
    return frame[frame["recipe"] == name].groupby("seed")[quantity].mean().to_numpy()


def cell(values, reference):
    """Mean ± deviation, and in brackets those of the difference from the reference."""
    difference = values - reference
    own = f"{values.mean():.3f} ±{deviation(values):.3f}"
    return f"{own} ({difference.mean():+.3f} ±{deviation(difference):.3f})"


def draw_figure(frame, path, title):
    """Draw AUROC and accuracy of each recipe (down) at each step (across), means over the seeds.

    Colours say how far a recipe is from the first one, numbers say what it reaches.

    Args:
        frame: the lines of recipes.csv.
        path: of the picture.
        title: says which videos were judged.
    """
    names = list(frame["recipe"].unique())
    steps = sorted(frame["step"].unique())
    places = np.linspace(0, len(steps) - 1, COLUMNS).round().astype(int)
    steps = [steps[k] for k in sorted(set(places))]
    means = frame.groupby(["recipe", "step"])[list(PANELS)].mean()
    tables = [means[key].unstack().loc[names, steps] for key in PANELS]
    differences = [table - table.iloc[0] for table in tables]
    most = max(0.01, *(abs(table.to_numpy()).max() for table in differences))
    size = (4 + 1.4 * len(steps), 2 + 0.34 * len(names))
    figure, axes = subplots(1, 2, figsize=size, sharey=True)
    for axis, table, difference, name in zip(axes, tables, differences, PANELS.values()):
        image = heat_map(axis, difference, -most, most, form="{:.3f}", text=table, cmap=DIVERGING)
        axis.set_xticks(range(len(steps)), steps)
        axis.set(title=name, xlabel="denoising step")
    axes[0].set_yticks(range(len(names)), [shown(name) for name in names])
    figure.colorbar(image, ax=axes, label=f"colour: difference from the recipe “{shown(names[0])}”")
    figure.suptitle(title)
    save_figure(figure, path)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
