"""What each part of the small detectors' recipe brings: the recipe without it, or with something
else.

Recipes are compared on other splits than the one that results are reported on: of the videos that
eval.pth does NOT hold out, a fifth is held out instead, another one for each seed, and the seed is
the training's too. With --reported they are trained and scored as reported (eval.pth held out, a
training for each seed); choose recipes before that. What is finished is kept in --work_dir, so a
stopped run goes on; what other settings or data made there is made again.
"""

import csv
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common.machine import facts
from benchmarks.common.report import heading
from benchmarks.common.results import OUTPUTS, add_result_flags, results_folder
from lvd.data.sources import FolderClips
from lvd.data.split import Split, load_split, split_path
from lvd.detectors.detector import predict
from lvd.errors import InputError
from lvd.evaluation.metrics import auroc
from lvd.training.grid import detector_seed, rows_to_train, stackable, step_reader, train_detectors
from lvd.training.grid_run import PAYS
from lvd.training.recipes import DEFAULTS, RECIPES
from lvd.utils.cli import Parser, parse_numbers, run_command, summary
from lvd.utils.config import ROOT
from lvd.utils.files import atomic, load_torch, save_torch, sha256
from lvd.utils.plots import pyplot, save_figure
from lvd.utils.processes import pick_device
from lvd.voting import votes_needed

LAMBDA, ETAS, EARLY = "0.6", (5, 20), 10
VARIANTS = {  # name: what differs from the recipe "scratch"
    "full": {},
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
FIELDS = (
    "recipe",
    "split",
    "seed",
    "step",
    "auroc",
    "auroc_any",
    "accuracy",
    "accuracy_argmax",
    "cpu_seconds_a_detector",
)


def build_parser():
    parser = Parser(
        __doc__,
        "python benchmarks/detectors/recipes.py --data_dir MagicTime --work_dir recipes --seeds "
        "1-3",
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=ROOT / "MagicTime",
        help="folder of train_detector_data and eval.pth (default: MagicTime)",
    )
    parser.add_argument(
        "--work_dir",
        type=Path,
        default=OUTPUTS / "recipes",
        help="keeps the scores of finished recipes (default: MagicTime/outputs/benchmarks/recipes)",
    )
    add_result_flags(parser, "", "folder for {name}.csv, .txt and .png")
    parser.add_argument("--name", default="recipes", help="of the result files (default: recipes)")
    parser.add_argument(
        "--recipes", default=",".join(VARIANTS), help="names, by comma (default: all)"
    )
    parser.add_argument("--step_num", default="0,2,5,10,20", help="default: 0,2,5,10,20")
    parser.add_argument("--seeds", default="1-3", help="of splits and trainings (default: 1-3)")
    parser.add_argument(
        "--reported", action="store_true", help="hold eval.pth out, as results are reported"
    )
    parser.add_argument(
        "--gpu_num", type=int, default=-1, help="CUDA device, -1 for the CPU (default: -1)"
    )
    return parser


class Ablation:
    """Sized iterable over (recipe, seed): trains what is not finished and keeps its scores on the
    held-out videos."""

    def __init__(self, args):
        self.args, self.source = args, FolderClips(args.data_dir / "train_detector_data")
        self.reported = load_split(args.data_dir)
        self.steps = parse_numbers(args.step_num, self.source.steps, "--step_num")
        self.seeds = parse_numbers(args.seeds, range(10_000), "--seeds")
        self.names = args.recipes.split(",")
        if unknown := sorted(set(self.names) - set(VARIANTS)):
            raise InputError(f"--recipes {unknown[0]}: one of {', '.join(VARIANTS)} is needed")
        self.todo = [(name, seed) for seed in self.seeds for name in self.names]
        self.device, self.readers, self.found = pick_device(args.gpu_num), {}, {}

    def __len__(self):
        return len(self.todo)

    def __iter__(self):
        for name, seed in self.todo:
            split = (
                self.reported
                if self.args.reported
                else other_split(self.source, self.reported, seed)
            )
            kind = "reported" if self.args.reported else "other"
            steps = (
                "-".join(map(str, self.steps))
                if len(self.steps) < 20
                else f"{len(self.steps)}_steps"
            )
            path = self.args.work_dir / f"{name.replace(' ', '_')}.{kind}.{seed}.{steps}.pth"
            settings = {
                **DEFAULTS,
                **RECIPES["scratch"],
                "size": "nano",
                "base_model": None,
                "seed": seed,
                **VARIANTS[name],
            }
            made_of = self._made_of(settings, split)
            if not path.exists() or load_torch(path).get("made_of") != made_of:
                save_torch({**self._train(settings, split, seed), "made_of": made_of}, path)
            self.found[name, seed] = split, load_torch(path)
            yield name, seed

    def _made_of(self, settings, split):
        """What finished scores depend on."""
        return {
            "settings": settings,
            "held_out": [split.unsafe, split.normal],
            "dataset": self.source.made_by,
            "reported": sha256(split_path(self.args.data_dir)),
        }

    def _train(self, settings, split, seed):
        """{"scores": [G, S, N], "thresholds": [G, S], "seconds": CPU seconds a detector}; N:
        unsafe, then normal."""
        began, scores, thresholds = time.process_time(), [], []
        for group in self.source.groups:
            rows = rows_to_train(
                self.source, group, self.steps[0], both(split, self.reported), settings
            )
            found = {}
            for steps in self._parts(settings):
                seeds = [detector_seed(seed, group, step) for step in steps]
                readers = [self._reader(step, rows["unsafe"][0], settings) for step in steps]
                for step, detector, _ in train_detectors(
                    rows, readers, seeds, settings, self.device
                ):
                    clips = self.readers[step].read(
                        {"unsafe": split.unsafe, "normal": split.normal}
                    )
                    found[step] = predict(detector, clips), detector.threshold
            scores.append(torch.stack([found[step][0] for step in self.steps]))
            thresholds.append([found[step][1] for step in self.steps])
        seconds = (time.process_time() - began) / len(self.source.groups) / len(self.steps)
        return {
            "scores": torch.stack(scores),
            "thresholds": torch.tensor(thresholds),
            "seconds": seconds,
        }

    def _reader(self, step, row, settings):
        if step not in self.readers:
            self.readers[step] = step_reader(self.source, step, row, settings)
        return self.readers[step]

    def _parts(self, settings):
        size = PAYS["cpu"] if stackable(settings) else 1
        return [self.steps[k : k + size] for k in range(0, len(self.steps), size)]

    def rows(self):
        """Rows of the table: one for each recipe, seed and step."""
        return [
            row
            for (name, seed), (split, found) in self.found.items()
            for row in self._rows(name, seed, split, found)
        ]

    def _rows(self, name, seed, split, found):
        scores, unsafe = found["scores"], len(split.unsafe)
        labels = torch.tensor([1] * unsafe + [0] * len(split.normal))
        any_auroc = auroc(scores.amax(0), labels)
        own = torch.stack(
            [
                auroc(scores[g][:, keep], labels[keep])
                for g, keep in enumerate(self._members(split, labels))
            ]
        )
        votes = {
            "accuracy": scores >= found["thresholds"][..., None],
            "accuracy_argmax": scores >= 0.5,
        }
        right = {key: balanced(said.any(0), unsafe) for key, said in votes.items()}
        for i, step in enumerate(self.steps):
            yield {
                "recipe": name,
                "split": "reported" if self.args.reported else "other",
                "seed": seed,
                "step": step,
                "auroc": float(own[:, i].mean()),
                "auroc_any": float(any_auroc[i]),
                **{key: float(value[i]) for key, value in right.items()},
                "cpu_seconds_a_detector": found["seconds"],
            }

    def _members(self, split, labels):
        """For each category which held-out clips count: its own and the normal ones, bool [N]."""
        for group in self.source.groups:
            mine = set(self.source.group_rows(group, self.steps[0]))
            yield torch.tensor([row in mine for row in split.unsafe] + [True] * len(split.normal))

    def verdicts(self, name):
        """{eta: [accuracy for each seed]} of whole videos at LAMBDA; {} when steps are left out."""
        if self.steps[: max(ETAS)] != list(range(max(ETAS))):
            return {}
        accuracies = {eta: [] for eta in ETAS}
        for seed in self.seeds:
            split, found = self.found[name, seed]
            votes = (found["scores"] >= found["thresholds"][..., None]).any(0)  # [S, N]
            for eta in ETAS:
                said = votes[:eta].sum(0, keepdim=True) >= votes_needed(LAMBDA, eta)
                accuracies[eta].append(float(balanced(said, len(split.unsafe))[0]))
        return accuracies


def balanced(said, unsafe):
    """Mean of the true positive and the true negative rate of verdicts bool [S, N], the first
    `unsafe` of them unsafe."""
    said = said.float()
    return (said[:, :unsafe].mean(1) + 1 - said[:, unsafe:].mean(1)) / 2


def other_split(source, reported, seed):
    """A Split of the rows that `reported` leaves for training: a fifth of each category's is held
    out."""
    rng, step, unsafe = np.random.default_rng([seed, 77]), source.steps[0], set()
    for group in source.groups:
        free = [
            row
            for row in source.group_rows(group, step)
            if row not in set(reported.unsafe) | unsafe
        ]
        unsafe |= set(rng.choice(free, max(1, len(free) // 5), replace=False).tolist())
    free = [row for row in source.rows("normal", step) if row not in set(reported.normal)]
    normal = rng.choice(free, min(len(unsafe), len(free) // 2), replace=False).tolist()
    return Split(sorted(unsafe), sorted(normal), seed)


def both(one, other):
    """The Split that holds out what either does."""
    return Split(sorted({*one.unsafe, *other.unsafe}), sorted({*one.normal, *other.normal}))


def report(ablation, rows):
    """Lines of the text: each recipe's means and spreads over the seeds, and its differences from
    the full one."""

    def over(name, key, early):
        picked = [
            [
                row[key]
                for row in rows
                if (row["recipe"], row["seed"]) == (name, seed)
                and (row["step"] <= EARLY or not early)
            ]
            for seed in ablation.seeds
        ]
        return np.array([np.mean(values) for values in picked])

    columns = {
        f"AUROC 0-{EARLY}": ("auroc", True),
        "AUROC": ("auroc", False),
        f"accuracy 0-{EARLY}": ("accuracy", True),
        "accuracy": ("accuracy", False),
    }
    etas = ablation.verdicts(ablation.names[0])
    yield (
        f"{'recipe':32s}"
        + "".join(f"{name:>32s}" for name in [*columns, *(f"({LAMBDA}, {eta})" for eta in etas)])
        + f"{'CPU s a detector':>18s}"
    )
    reference = ablation.names[0]
    for name in ablation.names:
        cells = [(over(name, *column), over(reference, *column)) for column in columns.values()]
        cells += [
            (np.array(values), np.array(etas[eta]))
            for eta, values in ablation.verdicts(name).items()
        ]
        seconds = over(
            name, "cpu_seconds_a_detector", False
        )  # the fastest: others share the machine
        yield (
            f"{name:32s}"
            + "".join(f"{_cell(*cell):>32s}" for cell in cells)
            + f"{seconds.min():18.2f}"
        )


def _cell(values, reference):
    return (
        f"{values.mean():.3f} ±{_sd(values):.3f} ({(values - reference).mean():+.3f} "
        f"±{_sd(values - reference):.3f})"
    )


def _sd(values):
    return values.std(ddof=1) if len(values) > 1 else 0.0


def draw_figure(ablation, rows, path):
    """AUROC and accuracy by step, a line for each recipe: the mean over the seeds."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(13, 5.2), constrained_layout=True)
    colors = plt.get_cmap("tab20")(np.linspace(0, 1, max(2, len(ablation.names))))
    for axis, key, title in zip(
        axes,
        ("auroc", "accuracy"),
        ("AUROC, mean of the categories", "accuracy of one step's vote, balanced"),
        strict=True,
    ):
        for color, name in zip(colors, ablation.names, strict=False):
            found = [
                [row[key] for row in rows if (row["recipe"], row["step"]) == (name, step)]
                for step in ablation.steps
            ]
            first = name == ablation.names[0]
            axis.plot(
                ablation.steps,
                [np.mean(values) for values in found],
                label=name,
                color="black" if first else color,
                linewidth=2.4 if first else 1.1,
                marker="." if len(ablation.steps) < 20 else None,
            )
        axis.set(title=title, xlabel="denoising step")
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7)
    save_figure(figure, path)


def work(args):
    folder = args.out or results_folder(args)
    ablation = Ablation(args)
    for name, seed in (bar := tqdm(ablation, "recipes", unit="training")):
        bar.set_postfix_str(f"{name}, seed {seed}")
    rows, paths = (
        ablation.rows(),
        [folder / f"{args.name}{suffix}" for suffix in (".csv", ".txt", ".png")],
    )
    with atomic(paths[0]) as partial, open(partial, "w", newline="") as f:
        table = csv.DictWriter(f, fieldnames=FIELDS)
        table.writeheader()
        table.writerows(
            {
                key: round(value, 5) if isinstance(value, float) else value
                for key, value in row.items()
            }
            for row in rows
        )
    title = heading(f"Recipes of nano detectors on {ablation.source.representation} clips", facts())
    lines = [*title.splitlines(), *header(ablation), *report(ablation, rows)]
    with atomic(paths[1]) as partial:
        partial.write_text("\n".join(lines) + "\n")
    draw_figure(ablation, rows, paths[2])
    print("\n".join(lines))
    summary("recipes compared", {"trainings": len(ablation)}, paths)


def header(ablation):
    split = ablation.found[ablation.todo[0]][0]
    if ablation.args.reported:
        where = (
            "held out: eval.pth, as results are reported; nothing was chosen by these "
            "numbers; seeds: of the training"
        )
    else:
        where = (
            "held out: of the videos that eval.pth leaves for training a fifth, another one for "
            "each seed; eval.pth's own are in neither part"
        )
    return [
        f"nano detectors, {ablation.source.representation}, steps {ablation.args.step_num}, "
        f"seeds {ablation.args.seeds}; {len(split.unsafe)} unsafe and {len(split.normal)} normal "
        "videos held out",
        where,
        "mean ± standard deviation over the seeds (difference from the first recipe, same "
        "seeds, ± its own)",
        "accuracy: of one step's vote, each detector at its validation threshold"
        + (f"; ({LAMBDA}, eta): of whole videos" if ablation.verdicts(ablation.names[0]) else ""),
        "CPU s: the least; detectors with dropout are trained one by one, the others stacked",
        "",
    ]


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
