"""Draw the figures of a folder of results, as docs/results is one, again from its tables.

No number changes. A figure whose tables are not in the folder is left out.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from benchmarks.common.figures import save_label_lines, save_lines, title_of
from lvd.errors import InputError, words_of
from lvd.evaluation.figures import save_grid_figure, save_step_figure
from lvd.evaluation.frontier_figure import save_frontier_figure
from lvd.evaluation.score_figures import save_metrics_figure, save_reliability_figure
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.plots import style
from lvd.utils.progress import progress

QUICK = "quick"  # the subfolder of the quick run, whose videos the benchmarks judge too


def build_parser():
    parser = Parser(__doc__, "python tools/redraw_results.py --results docs/results")
    parser.add_argument("--results", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--out", type=Path, help="folder of the figures (default: --results)")
    return parser


@dataclass(frozen=True)
class Folder:
    """The tables and texts of one run."""

    path: Path

    def has(self, *names):
        return all((self.path / name).is_file() for name in names)

    def table(self, name, **types):
        """Return a table; one that cannot be read is an InputError."""
        try:
            return pd.read_csv(self.path / name, dtype=types)
        except (OSError, ValueError) as error:
            why = words_of(error, 100)
            raise InputError(f"{self.path / name}: {why}; a table is needed") from error

    def text(self, name):
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path / name}: {words_of(error, 100)}") from error

    def found(self, name, pattern):
        """Return what a text says at the place that a pattern finds."""
        match = re.search(pattern, self.text(name))
        if match is None:
            raise InputError(f"{self.path / name}: nothing like {pattern} in it")
        return match[1]

    def counts(self):
        """Return (unsafe, normal), how many videos were held out."""
        first = self.table("score_metrics.csv").iloc[0]
        return int(first["unsafe"]), int(first["normal"])


# ---- figures of test_accuracy.py


def title(folder, balanced=False):
    unsafe, normal = folder.counts()
    if balanced:
        unsafe = normal = min(unsafe, normal)
    return f"{unsafe} unsafe and {normal} normal held-out videos"


def grid(folder, path):
    save_grid_figure(folder.table("grid.csv"), path, title(folder, balanced=True))


def per_step(folder, path):
    save_step_figure(folder.table("per_step.csv"), path, title(folder, balanced=True))


def score_metrics(folder, path):
    table = folder.table("score_metrics.csv").astype({"step": "Int64", "eta": "Int64"})
    recall = next(name for name in table if name.startswith("fpr_at_recall_")).split("_")[-1]
    report = SimpleNamespace(metrics=table, fixed_recalls=[recall])
    save_metrics_figure(report, path, title(folder))


def reliability(folder, path):
    tables = {name: folder.table(f"{name}.csv") for name in ("reliability", "calibration")}
    save_reliability_figure(SimpleNamespace(**tables), path, title(folder))


def frontier(folder, path):
    text = path.with_suffix(".txt").name
    chosen = folder.text(text).splitlines()[1]
    steps = int(folder.found(text, r"mean share of the (\d+) steps"))
    table = folder.table(path.with_suffix(".csv").name)
    save_frontier_figure(table, path, f"{title(folder)}\n{chosen}", steps)


# ---- figures of the benchmarks


def seeds_of(folder, name):
    """Return how many seeds a text names, as in "seeds 1,2,3", "3 seeds" or "seeds 1-3"."""
    text = folder.text(name)
    if match := re.search(r"(\d+) seeds", text):
        return int(match[1])
    listed = folder.found(name, r"seeds:? [a-z: ]*(\d[\d,-]*)")
    first, *_, last = re.split("[,-]", listed)
    return int(last) - int(first) + 1 if "-" in listed else len(listed.split(","))


def lines(folder, path, cases, detectors):
    rows = folder.table(cases[0]).to_dict("records")
    names = {row["case"]: cases[1].get(row["case"], row["case"]) for row in rows}
    text = f"{path.stem.removesuffix('_by_step')}.txt"
    head = title_of(*quick(folder).counts(), detectors, seeds_of(folder, text))
    save_lines(rows, path, names, head)


def shared(folder, path):
    from benchmarks.detectors.shared import CASES

    lines(folder, path, ("shared_by_step.csv", CASES), "nano detectors")


def representations(folder, path):
    cases = "representations_by_step.csv", {}
    lines(folder, path, cases, "nano detectors by what they read")


def pretraining(folder, path):
    rows = folder.table("pretraining_by_category.csv").to_dict("records")
    steps = folder.found("pretraining.txt", r"over steps ([\d,-]+)")
    detectors = f"nano detectors of steps {steps}"
    head = title_of(*quick(folder).counts(), detectors, seeds_of(folder, "pretraining.txt"))
    save_label_lines(rows, path, head)


def learning_curve(folder, path):
    from benchmarks.detectors.learning_curve import draw_figure

    table = folder.table("learning_curve.csv", case=str, value=str)
    table = table[table["part"] == "labels of each category"].astype({"value": float})
    wide = table.pivot(index="case", columns="quantity", values="value")
    rows = wide.loc[table["case"].unique()].reset_index(names="labels").to_dict("records")
    seeds = seeds_of(folder, "learning_curve.txt")
    draw_figure(rows, path, title_of(*folder.counts(), "the shared detector", seeds))


def recipes(folder, path):
    from benchmarks.detectors.recipes import draw_figure

    table = folder.table("recipes.csv")
    counted = r"(\d+) unsafe and \d+ normal videos held out", r"(\d+) normal videos held out"
    counts = [folder.found("recipes.txt", pattern) for pattern in counted]
    draw_figure(table, path, title_of(*counts, "nano detectors", table["seed"].nunique(), "means"))


def other_steps(folder, path):
    from benchmarks.guard.held_out_samplings import Sampling
    from benchmarks.guard.other_steps_figure import draw_figure
    from benchmarks.guard.other_steps_runs import CHOSEN, KINDS, RULES

    table = folder.table("other_steps.csv", value=str)
    every = seeds_of(folder, "other_steps.txt")
    rows = []
    for kind, (name, _) in KINDS.items():
        for part in ("AUROC", *RULES, *CHOSEN):
            of_part = table[table["part"] == f"{part}, {name}"]
            if not len(of_part):
                continue
            pattern = re.escape(f"{part}, {name}: ") + r"(\d+) seed"
            seeds = every if part == "AUROC" else int(folder.found("other_steps.txt", pattern))
            values = of_part.pivot(index="case", columns="quantity", values="value").astype(float)
            for case, figures in values.iterrows():
                scheduler, steps = case.split(", ")
                prefix = "" if part == "AUROC" else f"{part} "
                for key in (key for key in figures.index if f"{key} sd" in figures.index):
                    one = {"kind": kind, "sampling": Sampling(scheduler, int(steps))}
                    one |= {"quantity": f"{prefix}{key}", "mean": figures[key]}
                    rows.append({**one, "sd": figures[f"{key} sd"], "seeds": seeds})
    draw_figure(rows, path, title(quick(folder)))


def quick(folder):
    """Return the folder of the quick run beside the benchmarks, which judge its videos."""
    return Folder(folder.path / QUICK)


# Figure → (what draws it, the tables and texts that it needs).
ROW = "score_metrics.csv"  # says how many videos there are
QUICK_ROW = f"{QUICK}/{ROW}"
FIGURES = {
    "grid": (grid, ("grid.csv", ROW)),
    "per_step": (per_step, ("per_step.csv", ROW)),
    "score_metrics": (score_metrics, (ROW,)),
    "reliability": (reliability, ("reliability.csv", "calibration.csv", ROW)),
    "frontier_grid": (frontier, ("frontier_grid.csv", "frontier_grid.txt", ROW)),
    "frontier_shared": (frontier, ("frontier_shared.csv", "frontier_shared.txt", ROW)),
    "learning_curve": (learning_curve, ("learning_curve.csv", "learning_curve.txt", ROW)),
    "recipes": (recipes, ("recipes.csv", "recipes.txt")),
    "shared": (shared, ("shared_by_step.csv", "shared.txt", QUICK_ROW)),
    "representations_by_step": (
        representations,
        ("representations_by_step.csv", "representations.txt", QUICK_ROW),
    ),
    "pretraining": (pretraining, ("pretraining_by_category.csv", "pretraining.txt", QUICK_ROW)),
    "other_steps": (other_steps, ("other_steps.csv", "other_steps.txt", QUICK_ROW)),
}


def drawable(results):
    """Return [(draw, Folder, path below `results`)] of all figures that have their tables."""
    found = []
    for folder in (Folder(results), Folder(results / QUICK)):
        for name, (draw, needs) in FIGURES.items():
            if folder.has(*needs):
                place = (folder.path / f"{name}.png").relative_to(results)
                found.append((draw, folder, place))
    return found


def work(args):
    todo = drawable(args.results)
    if not todo:
        raise InputError(f"--results {args.results}: no table of a figure here, as grid.csv is one")
    out = args.out or args.results
    for draw, folder, place in progress(todo, "figures", unit="figure"):
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        redraw(draw, folder, out / place)
    summary("figures drawn", {"figures": len(todo)}, [out])


def redraw(draw, folder, path):
    """Draw one figure; tables that it cannot be drawn from are an InputError."""
    try:
        with style():
            draw(folder, path)
    except (InputError, OSError):
        raise
    except Exception as error:  # of pandas and matplotlib: of any kind
        why = f"{type(error).__name__}: {words_of(error, 80)}"
        raise InputError(
            f"{folder.path}: {path.name} cannot be drawn from its tables ({why}); those that the "
            "scripts wrote are needed"
        ) from error


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
