"""What the detectors should read: latents against rgb frames against decoded videos, on the same
split, with the same network (45 minutes with --steps 0-4,10,19; hours with all).

Builds each dataset, trains and evaluates the detectors with the project's own commands, several
seeds each: accuracy, AUROC by steps, seconds, MiB. With --steps not all steps are looked at:
accuracy at (0.6, 5) is then that of the votes of those steps among the first five. The same command
goes on with the part it was stopped in.

Needs bash reproduce.sh. Results: representations.csv and .txt, representations_by_step.csv and
.png.
"""

import statistics
import sys
from pathlib import Path

import pandas as pd

from benchmarks.common.figures import save_lines, title_of
from benchmarks.common.flags import (
    add_eval_dir,
    add_gpu,
    add_recordings,
    add_size,
    add_work,
    chosen,
    need_positive,
)
from benchmarks.common.needs import read_recordings
from benchmarks.common.report import Report
from benchmarks.common.results import OUTPUTS, add_result_flags, results_path
from benchmarks.common.seeds import by_step
from benchmarks.detectors.representation_runs import CASES, LAMBDA, Commands
from lvd.data.split import load_split, split_path
from lvd.errors import InputError
from lvd.training.recipes import DEFAULT_CONFIG as TRAIN_CONFIG
from lvd.utils.cli import Parser, parse_numbers, run_command
from lvd.utils.config import claim_output
from lvd.utils.files import save_csv, sha256
from lvd.utils.plots import drawn
from lvd.utils.progress import progress
from lvd.x0.file import create_x0_file, open_x0_file

ETAS = (5, 20)
RANGES = ((0, 4), (5, 9), (10, 19), (20, 49))  # steps, both ends included
PUBLISHED = "rgb, published"
RECORDINGS = ("pred_x0", "normal_pred_x0")
RESULT_FILE = "representations.csv"


def build_parser():
    parser = Parser(
        __doc__,
        "python benchmarks/detectors/representations.py --eval_dir MagicTime/eval.pth --seeds 3 "
        "--steps 0-49:5",
    )
    add_recordings(parser)
    add_eval_dir(parser)
    parser.add_argument(
        "--train_config", type=Path, default=TRAIN_CONFIG, help="(default: train_mae.yaml)"
    )
    add_size(parser)
    parser.add_argument("--epoch", type=int, help="(default: the recipe's)")
    parser.add_argument("--workers", type=int, help="processes that train (default: the config's)")
    parser.add_argument(
        "--seeds", type=int, default=3, help="detectors are trained with so many seeds (default: 3)"
    )
    parser.add_argument(
        "--steps",
        default="all",
        help="denoising steps: all, 0-9, 0-49:5 (every fifth) (default: all)",
    )
    parser.add_argument(
        "--cases", default="all", help=f"semicolons between them: {'; '.join(CASES)} (default: all)"
    )
    add_gpu(parser)
    add_work(parser, OUTPUTS / "representations", "datasets and detectors", "--dir")
    add_result_flags(parser, RESULT_FILE)
    return parser


def work(args):
    need_positive(args, "seeds")
    settings = read_recordings(args.recordings, keys=(*RECORDINGS, "label_file_dir"))
    steps = parse_steps(args.steps, open_x0_file(settings["pred_x0"]).tensor.shape[1])
    eval_path = split_path(args.eval_dir)
    made_of = {
        "steps": steps,
        "size": args.size,
        "epoch": args.epoch,
        "eval_sha256": sha256(eval_path),
        "made_by": [open_x0_file(settings[key]).fingerprint for key in RECORDINGS],
    }
    claim_output(args.dir, made_of)
    texts = thinned_settings(settings, steps, args.dir)
    commands = Commands(args, texts, eval_path)
    title = f"Representations of predicted x0: {args.size} detectors"
    report = Report(
        f"{title}, mean (and spread) over {args.seeds} seeds", results_path(args, RESULT_FILE)
    )
    fitted, published = commands.fit_matrix()
    report.facts["steps"] = args.steps
    report.facts["matrix"] = f"r2 fitted {fitted}, r2 published {published}"
    cases = chosen_cases(args.cases, published)
    rows = []
    for case in cases:
        runs = commands.run_case(case)
        note = f"accuracy at ({LAMBDA}, eta), AUROC of a step's detectors, seconds, files"
        report.add("representations", note, [(case, case_figures(runs, steps))])
        tables = [step_table(run.table, steps) for run in runs.seeds]
        rows += [{"case": case, **row} for row in by_step(tables)]
    by_step_path = report.out.with_name(f"{report.out.stem}_by_step.csv")
    save_csv(rows, by_step_path)
    split = load_split(eval_path)
    detectors = f"{args.size} detectors by what they read"
    title = title_of(len(split.unsafe), len(split.normal), detectors, args.seeds)
    names = {case: case for case in cases}
    drawn(save_lines, rows, by_step_path.with_suffix(".png"), names, title)
    report.say_where()


# ---- which steps and cases


def parse_steps(text, count):
    """Steps of "all", "0-9", "0,5" or "0-49:5" (every fifth of them)."""
    text, _, every = text.partition(":")
    if every and not (every.isdecimal() and int(every)):
        raise InputError(f"--steps {text}:{every}: '{every}' is not a number of steps")
    return parse_numbers(text, range(count), "--steps")[:: int(every or 1)]


def chosen_cases(text, r2_published):
    """Names of the cases to run; of all, the published matrix only where it fits the
    autoencoder."""
    names = chosen(text, CASES, "--cases", ";")
    if text == "all" and r2_published <= 0:
        names.remove(PUBLISHED)
    return names


def thinned_settings(settings, steps, folder):
    """The recordings' settings as texts, without an output folder, their recordings thinned."""
    texts = {}
    for key, value in settings.items():
        if key in RECORDINGS:
            value = thinned(value, steps, folder / key / "pred_x0.pth")
        if key != "out_dir":
            texts[key] = str(value) if isinstance(value, Path) else value
    return texts


def thinned(path, steps, out):
    """The recording with only those steps; itself when these are all."""
    x0 = open_x0_file(path)
    if len(steps) == x0.tensor.shape[1]:
        return path
    shape, dtype = tuple(x0.tensor.shape[2:]), x0.tensor.dtype
    meta = {**x0.meta, "steps_kept": steps}
    with create_x0_file(out, len(x0.tensor), len(steps), shape, dtype, meta) as writer:
        missing = sorted(set(x0.rows) - writer.whole)
        for row in progress(missing, f"{len(steps)} steps", unit="video"):
            info = x0.info.get(row, {})
            if info.get("timesteps"):
                info = {**info, "timesteps": [info["timesteps"][step] for step in steps]}
            writer.write_row(row, x0.tensor[row, steps], info)
    return out


# ---- figures


def case_figures(runs, steps):
    """{quantity: number} of one row of the table: means over the seeds, and ± their spread."""
    seeds = []
    for run in runs.seeds:
        figures = {**accuracies(run.table / "grid.csv", steps)}
        figures |= aurocs(step_table(run.table, steps))
        seeds.append({**figures, "train s": run.train_seconds, "embed s": run.embed_seconds})
    figures = {}
    for key in seeds[0]:
        values = [seed[key] for seed in seeds if seed[key] is not None]
        figures[key] = statistics.mean(values) if values else None
        if len(values) > 1 and key.startswith(("accuracy", "AUROC")):
            figures[f"± {key}"] = statistics.stdev(values)
    return {**figures, "build s": runs.build_seconds, "files MiB": runs.files_mib}


def accuracies(path, steps):
    """{"accuracy eta 5": ...}: the votes of the looked-at steps among the first eta."""
    grid = pd.read_csv(path)
    figures = {}
    for eta in ETAS:
        looked_at = sum(step < eta for step in steps)
        cell = grid[(grid["lambda"] == LAMBDA) & (grid["eta"] == looked_at)]["accuracy"]
        figures[f"accuracy eta {eta}"] = float(cell.iloc[0]) if len(cell) else None
    return figures


def aurocs(table):
    """{"AUROC 0-4": ...} of a step_table: mean over these steps and the categories."""
    names = [name for name in table if name.startswith("auroc ") and name != "auroc any"]
    figures = {}
    for first, last in RANGES:
        values = table[table["step"].between(first, last)][names].to_numpy()
        figures[f"AUROC {first}-{last}"] = float(values.mean()) if values.size else None
    return figures


def step_table(folder, steps):
    """per_step.csv of test_accuracy.py, with the steps' numbers in the full recording."""
    return pd.read_csv(folder / "per_step.csv").assign(step=steps)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
