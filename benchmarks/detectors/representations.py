"""What the detectors should read: latents, rgb frames or decoded videos, on the same split, with
the same network.

Builds each dataset, trains and evaluates the detectors with the project's own commands, several
seeds each, and prints one table: accuracy, AUROC by steps, seconds, disk; {out}_by_step.csv and
.png have a line for each. With --steps not all steps are looked at: accuracy at (0.6, 5) is then
that of the votes of those steps among the first five. The same command goes on with the part it was
stopped in.
"""

import csv
import shutil
import statistics
import sys
import time
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from tqdm import tqdm

import build_eval_set
import build_x0
import embed_model
import fit_rgb
import test_accuracy
import train_mae
from benchmarks.common.figures import save_lines
from benchmarks.common.report import Report
from benchmarks.common.results import OUTPUTS, add_result_flags, results_path
from benchmarks.common.script_runs import size_of
from lvd.data.config import DEFAULT_CONFIG, read_data_config
from lvd.data.split import NAME, split_path
from lvd.detectors.videomae import SIZES
from lvd.errors import InputError
from lvd.utils.cli import Parser, parse_numbers, run_command
from lvd.utils.config import ROOT, claim_output
from lvd.utils.files import atomic, load_json, save_json, save_yaml, sha256
from lvd.x0.file import create_x0_file, open_x0_file

CASES = {  # name → keys of build_x0.yaml, and whether clip files are made of them
    "latent, no clip files": ({"representation": "latent"}, False),
    "latent": ({"representation": "latent"}, True),
    "rgb, fitted": ({"representation": "rgb"}, True),
    "rgb, published": ({"representation": "rgb", "rgb_matrix": None}, True),
    "video, pt": ({"representation": "video", "video_format": "pt"}, True),
    "video, mp4": ({"representation": "video", "video_format": "mp4"}, True),
}
LAMBDA, ETAS = 0.6, (5, 20)
RANGES = ((0, 4), (5, 9), (10, 19), (20, 49))  # steps, both ends included
RESULT_FILE = "representations.csv"


def build_parser():
    parser = Parser(
        __doc__,
        "python benchmarks/detectors/representations.py --eval_dir MagicTime/eval.pth --seeds 3 "
        "--steps 0-49:5",
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="YAML",
        help="(default: build_x0.yaml)",
    )
    parser.add_argument(
        "--eval_dir", type=Path, default=ROOT / "MagicTime" / NAME, help="eval.pth or its folder"
    )
    parser.add_argument(
        "--train_config",
        type=Path,
        default=train_mae.DEFAULT_CONFIG,
        help="(default: train_mae.yaml)",
    )
    parser.add_argument("--size", choices=SIZES, default="nano", help="the network (default: nano)")
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
    parser.add_argument(
        "--gpu_num", type=int, default=0, help="CUDA device, -1 for the CPU (default: 0)"
    )
    parser.add_argument(
        "--dir", type=Path, default=OUTPUTS / "representations", help="datasets and detectors"
    )
    add_result_flags(parser, RESULT_FILE)
    return parser


def work(args):
    args.out = results_path(args, RESULT_FILE)
    if args.seeds < 1:
        raise InputError(f"--seeds {args.seeds}: 1 or more are needed")
    settings = read_data_config(
        args.recordings, Namespace(), required=("pred_x0", "normal_pred_x0", "label_file_dir")
    )
    steps = parse_steps(args.steps, open_x0_file(settings["pred_x0"]).tensor.shape[1])
    eval_path = split_path(args.eval_dir)
    settings = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in settings.items()
        if key != "out_dir"
    }
    recordings = ("pred_x0", "normal_pred_x0")
    claim_output(
        args.dir,
        {
            "steps": steps,
            "size": args.size,
            "epoch": args.epoch,
            "eval_sha256": sha256(eval_path),
            "made_by": [open_x0_file(settings[key]).fingerprint for key in recordings],
        },
    )
    for key in recordings:
        settings[key] = str(thinned(settings[key], steps, args.dir / key / "pred_x0.pth"))
    run = Run(args, settings, steps, eval_path)
    report = Report(
        f"Representations of predicted x0: {args.size} detectors, mean (and spread) over "
        f"{args.seeds} seeds",
        args.out,
    )
    report.facts |= {
        "steps": args.steps,
        "matrix": ", ".join(f"{k} {v}" for k, v in run.fit_matrix().items()),
    }
    cases = chosen_cases(args.cases, run.r2_published)
    for case in cases:
        note = f"accuracy at ({LAMBDA}, eta), AUROC of a step's detectors, seconds, files"
        report.add("representations", note, [(case, run.figures(case))])
    save_by_step([row for case in cases for row in run.by_step(case)], cases, args.out)
    report.say_where()


class Run:
    """Runs the commands for each case, each once, and remembers how long they took."""

    def __init__(self, args, settings, steps, eval_path):
        self.args, self.settings, self.steps, self.eval_path = args, settings, steps, eval_path
        self.matrix = args.dir / "latent_rgb.json"
        self.times = args.dir / "seconds.json"
        self.bar = tqdm(desc="commands", unit="command")

    def fit_matrix(self):
        """Fit the matrix of the model's autoencoder; returns its R2 and that of the published one."""
        config = self._config("matrix", {})
        self._timed(
            "fit_rgb",
            fit_rgb,
            "--recordings",
            config,
            "--eval_dir",
            self.eval_path,
            "--save_path",
            self.matrix,
        )
        found = load_json(self.matrix)
        self.r2_published = found.get("r2_of_the_published_matrix", -1)
        return {"r2 fitted": found["r2"], "r2 published": self.r2_published}

    def figures(self, case):
        """{quantity: number} of one row of the table."""
        changes, files = CASES[case]
        home = self._home(case)
        config, found = self._config(home.name, changes), {}
        built = 0
        if files:
            built = self._timed(
                f"{home.name} build", build_x0, "--config", config, fresh=home / "data"
            )
            built += self._timed(
                f"{home.name} eval set",
                build_eval_set,
                "--config",
                config,
                "--eval_dir",
                self.eval_path,
                "--save_dir",
                home,
                gpu=False,
            )
        seeds = [self._seed(home, config, files, seed) for seed in self._seeds()]
        for key in seeds[0]:
            values = [seed[key] for seed in seeds if seed[key] is not None]
            found[key] = statistics.mean(values) if values else None
            if len(values) > 1 and key.startswith(("accuracy", "AUROC")):
                found[f"± {key}"] = statistics.stdev(values)
        found["build s"], found["files MiB"] = built, size_of(home / "data") / 2**20
        return found

    def by_step(self, case):
        """[{"case", "step", quantity: mean over the seeds, f"{quantity} sd": their spread}] of a
        case that was run."""
        tables = []
        for seed in self._seeds():
            with open(self._home(case) / str(seed) / "table" / "per_step.csv", newline="") as f:
                tables.append(list(csv.DictReader(f)))
        for step, *same in zip(self.steps, *tables, strict=True):
            found = {"case": case, "step": step}
            for key in list(same[0])[1:]:
                values = [float(row[key]) for row in same]
                found[key] = statistics.mean(values)
                found[f"{key} sd"] = statistics.stdev(values) if len(values) > 1 else 0.0
            yield found

    def _home(self, case):
        return self.args.dir / case.replace(", ", "_").replace(" ", "_")

    def _seeds(self):
        return range(2024, 2024 + self.args.seeds)

    def _seed(self, home, config, files, seed):
        """Train, embed and evaluate with one seed."""
        place = home / str(seed)
        detectors, results, table = place / "detectors", place / "results", place / "table"
        data = ("--data_dir", home / "data") if files else ("--recordings", config)
        held = ("--data_dir", home) if files else ("--recordings", config)
        optional = [
            x
            for k in ("epoch", "workers")
            if (v := getattr(self.args, k)) is not None
            for x in (f"--{k}", v)
        ]
        common = ("--config", self.args.train_config, "--eval_dir", self.eval_path)
        trained = self._timed(
            f"{home.name} train {seed}",
            train_mae,
            *common,
            *data,
            "--save_dir",
            detectors,
            "--seed",
            seed,
            "--size",
            self.args.size,
            *optional,
            fresh=detectors,
        )
        embedded = self._timed(
            f"{home.name} embed {seed}",
            embed_model,
            *common,
            *held,
            "--model_dir",
            detectors,
            "--label_file_dir",
            self.settings["label_file_dir"],
            "--save_dir",
            results,
            fresh=results,
        )
        self._timed(
            f"{home.name} test {seed}",
            test_accuracy,
            "--data_dir",
            results,
            "--lambda",
            LAMBDA,
            "--eta",
            1,
            "--table",
            "--save_dir",
            table,
            gpu=False,
        )
        return {
            **accuracies(table / "grid.csv", self.steps),
            **aurocs(table / "per_step.csv", self.steps),
            "train s": trained,
            "embed s": embedded,
        }

    def _config(self, name, changes):
        path = self.args.dir / f"{name}.yaml"
        mine = {"rgb_matrix": str(self.matrix), "out_dir": str(self.args.dir / name / "data")}
        save_yaml({**self.settings, **mine, **changes}, path)
        return path

    def _timed(self, name, script, *flags, gpu=True, fresh=None):
        """Seconds that the command took when it first ran; a finished one is not run again, one
        that was stopped begins anew, without what it left in the folder `fresh`: its seconds are
        those of the whole."""
        known = load_json(self.times) if self.times.exists() else {}
        self.bar.set_postfix_str(name)
        if name not in known:
            flags = [*map(str, flags), *(["--gpu_num", str(self.args.gpu_num)] if gpu else [])]
            if fresh:
                shutil.rmtree(fresh, ignore_errors=True)
            log = self.args.dir / "log.txt"
            began = time.time()
            with open(log, "a") as f, redirect_stdout(f), redirect_stderr(f):
                status = script.main(flags)
            if status:
                raise InputError(
                    f"{script.__name__}.py failed: {log.read_text().strip().splitlines()[-1]}"
                )
            save_json({**known, name: time.time() - began}, self.times)
        self.bar.update()
        return load_json(self.times)[name]


def thinned(path, steps, out):
    """The recording with only those steps; itself when these are all."""
    x0 = open_x0_file(path)
    if len(steps) == x0.tensor.shape[1]:
        return path
    shape = tuple(x0.tensor.shape[2:])
    with create_x0_file(
        out, len(x0.tensor), len(steps), shape, x0.tensor.dtype, {**x0.meta, "steps_kept": steps}
    ) as writer:
        for row in tqdm(sorted(set(x0.rows) - writer.whole), f"{len(steps)} steps", unit="video"):
            writer.write_row(row, x0.tensor[row, steps], x0.info.get(row, {}))
    return out


def parse_steps(text, count):
    """Steps of "all", "0-9", "0,5" or "0-49:5" (every fifth of them)."""
    text, _, every = text.partition(":")
    if every and not (every.isdecimal() and int(every)):
        raise InputError(f"--steps {text}:{every}: '{every}' is not a number of steps")
    return parse_numbers(text, range(count), "--steps")[:: int(every or 1)]


def chosen_cases(text, r2_published):
    """Names of the cases to run; of all, the published matrix only where it fits the autoencoder."""
    if text == "all":
        return [case for case in CASES if case != "rgb, published" or r2_published > 0]
    names = [name.strip() for name in text.split(";")]
    if unknown := [name for name in names if name not in CASES]:
        raise InputError(f"--cases {unknown[0]}: one of {'; '.join(CASES)} is needed")
    return names


def accuracies(path, steps):
    """{"accuracy eta 5": ...}: the votes of the looked-at steps among the first eta."""
    with open(path, newline="") as f:
        rows = {
            (float(row["lambda"]), int(row["eta"])): float(row["accuracy"])
            for row in csv.DictReader(f)
        }
    return {
        f"accuracy eta {eta}": rows.get((LAMBDA, sum(step < eta for step in steps))) for eta in ETAS
    }


def aurocs(path, steps):
    """{"AUROC 0-4": ...}: mean over these steps and the categories."""
    with open(path, newline="") as f:
        rows = list(csv.DictReader(f))
    names = [name for name in rows[0] if name.startswith("auroc ") and name != "auroc any"]
    found = {}
    for first, last in RANGES:
        values = [
            float(row[name])
            for step, row in zip(steps, rows, strict=True)
            if first <= step <= last
            for name in names
        ]
        found[f"AUROC {first}-{last}"] = statistics.mean(values) if values else None
    return found


def save_by_step(rows, cases, out):
    """The votes and scores of each step beside the table: {out}_by_step.csv and .png."""
    with (
        atomic(out.with_name(f"{out.stem}_by_step.csv")) as partial,
        open(partial, "w", newline="") as f,
    ):
        table = csv.DictWriter(f, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(
            {
                key: round(value, 6) if isinstance(value, float) else value
                for key, value in row.items()
            }
            for row in rows
        )
    save_lines(
        rows,
        {case: case for case in cases},
        out.with_name(f"{out.stem}_by_step.png"),
        "held-out videos by what the detectors read: mean and standard deviation over the seeds",
    )


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
