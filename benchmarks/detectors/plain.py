"""The project's way to train and use the whole grid of detectors against the plain way
(plain_way.py), in one run.

Takes the recordings of a finished reproduce.sh. The plain way trains and embeds the detectors of
all categories at some steps, which is multiplied to the whole grid: it does the same for each
detector. The project's ways run whole, by the commands that a user types, their start included. All
hold out the same videos.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.common.script_runs import size_of
from benchmarks.detectors import plain_way
from lvd.data.config import DEFAULT_CONFIG, read_data_config
from lvd.data.labels import read_labels
from lvd.data.split import load_split
from lvd.detectors.videomae import BASE_MODEL, SIZES
from lvd.errors import InputError
from lvd.evaluation.vote_report import RESULTS, SCORES, counts, verdicts
from lvd.training.recipes import DEFAULT_CONFIG as TRAIN_CONFIG
from lvd.training.recipes import read_settings
from lvd.utils.cli import Parser, parse_numbers, run_command
from lvd.utils.config import ROOT
from lvd.utils.files import load_torch, save_yaml
from lvd.utils.processes import pick_device
from lvd.voting import step_votes
from lvd.x0.file import open_x0_file

WAYS = {  # what is trained from what: (from clip files?, flags of train_mae.py)
    "grid, clip files": (True, []),
    "grid, recordings": (False, []),
    "shared, recordings": (False, ["--model", "shared"]),
}
RATES = {
    "base": 1e-5,
    "small": 3e-4,
    "tiny": 3e-4,
    "nano": 3e-4,
}  # released; the best of 1e-5, 3e-4, 1e-3, 3e-3 for nano
LAMBDA, EARLY = "0.6", 5
RESULT_FILE = "plain.csv"


def build_parser():
    parser = Parser(__doc__, "python benchmarks/detectors/plain.py")
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        help="recordings and labels (default: build_x0.yaml)",
    )
    parser.add_argument(
        "--train_config",
        type=Path,
        default=TRAIN_CONFIG,
        help="of the project's way (train_mae.yaml)",
    )
    parser.add_argument(
        "--steps", default="0-4,19,49", help="of the plain way, all or some (default: 0-4,19,49)"
    )
    parser.add_argument("--epoch", type=int, default=10, help="of the plain way (default: 10)")
    parser.add_argument(
        "--lr", type=float, help="of the plain way (default: 1e-5 for base, 3e-4 for the others)"
    )
    parser.add_argument(
        "--size", choices=SIZES, help="the network, of both (default: the train_config's)"
    )
    parser.add_argument(
        "--ways", default="all", help=f"the project's: all, none, or some of: {'; '.join(WAYS)}"
    )
    parser.add_argument("--gpu_num", type=int, default=0, help="CUDA device; -1: CPU (default: 0)")
    parser.add_argument("--dir", help="folder to write in (default: a temporary one)")
    add_result_flags(parser, RESULT_FILE)
    return parser


def work(args):
    args.out = results_path(args, RESULT_FILE)
    needed = ("sample_config", "pred_x0", "normal_pred_x0", "label_file_dir")
    settings = read_data_config(args.config, args, required=needed)
    x0 = open_x0_file(settings["pred_x0"])
    args.size = args.size or read_settings(args.train_config, Namespace())["size"]
    ways = (
        list(WAYS) if args.ways == "all" else [] if args.ways == "none" else args.ways.split("; ")
    )
    if unknown := [way for way in ways if way not in WAYS]:
        raise InputError(f"--ways {unknown[0]}: all, none or some of {'; '.join(WAYS)} are needed")
    if args.epoch < 1:
        raise InputError(f"--epoch {args.epoch}: at least 1 is needed")
    all_steps = x0.tensor.shape[1]
    steps = parse_numbers(args.steps, range(all_steps), "--steps")
    if args.size != "base":
        torch.set_num_threads(
            1
        )  # small networks gain nothing by more, and lose much on a busy machine
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        bench = Benchmark(args, settings, Path(folder), steps, all_steps)
        bench.prepare()
        bench.plain()
        for way in ways:
            bench.project(way, *WAYS[way])
        bench.compare()
    bench.report.say_where()


class Benchmark:
    """One run. steps: those of the plain way; found: {way: {part of the report: {quantity:
    number}}}."""

    def __init__(self, args, settings, folder, steps, all_steps):
        self.args, self.settings, self.folder, self.steps, self.all_steps = (
            args,
            settings,
            folder,
            steps,
            all_steps,
        )
        model = settings["sample_config"]
        of = f" of {model.stem}" if isinstance(model, Path) else ""
        self.report = Report(
            f"The project's way against the plain way: {args.size} detectors of recordings{of}",
            args.out,
        )
        self.found, self.groups = {}, len(read_labels(settings["label_file_dir"]).columns)
        self.detectors = f"{self.groups * len(steps)} of {self.groups * all_steps} detectors"

    def prepare(self):
        self._script(
            "gen_eval_set.py",
            "--save_path",
            self.folder / "eval.pth",
            config=self._config("latent", "unused"),
        )
        self.split = load_split(self.folder / "eval.pth")

    # ---- the plain way

    def plain(self):
        data, models = self.folder / "plain" / "clips", self.folder / "plain" / "detectors"
        config = self._config("video", data)
        spent = {"clips": self._plain_clips(config)}
        pairs = [(group, step) for step in self.steps for group in range(1, self.groups + 1)]
        device = pick_device(self.args.gpu_num)
        lr = self.args.lr or RATES[self.args.size]
        base = read_settings(self.args.train_config, Namespace())["base_model"] or BASE_MODEL
        network = (models, self.args.size, base, device)
        began = clock()
        for _ in tqdm(
            plain_way.train(data, self.split, pairs, self.args.epoch, lr, *network),
            "plain: train",
            len(pairs),
            unit="detector",
        ):
            pass
        trained = clock()
        said = list(
            tqdm(
                plain_way.embed(data, self.split, pairs, *network),
                "plain: embed",
                len(pairs),
                unit="detector",
            )
        )
        spent |= {"train": trained - began, "embed": clock() - trained}
        votes = {
            label: {
                row: step_votes(
                    [
                        [found[label][row] for (g, _), found in zip(pairs, said) if g == group]
                        for group in range(1, self.groups + 1)
                    ]
                )
                for row in map(str, rows)
            }
            for label, rows in (("1", self.split.unsafe), ("0", self.split.normal))
        }
        scale = self.all_steps / len(self.steps)
        self._keep(
            "plain",
            {key: value * scale for key, value in spent.items()},
            {"clips": size_of(data) * scale, "detectors": size_of(models) * scale},
            votes,
            self.steps,
        )
        megabytes = {"clips": size_of(data) / 1e6, "detectors": size_of(models) / 1e6}
        self.report.add(
            "plain way as measured",
            f"{self.detectors} at steps {self.args.steps}, {self.args.epoch} epochs, "
            f"learning rate {lr:g}, one process of {torch.get_num_threads()} thread(s)",
            [("seconds", column(spent, 0)), ("CPU seconds", column(spent, 1)), ("MB", megabytes)],
        )
        shutil.rmtree(data)

    def _plain_clips(self, config):
        """Decode the clips; returns what it took but for the script's start, which must not be
        multiplied."""
        import build_x0
        import MagicTime.utils.pipeline
        import MagicTime.utils.weights  # noqa: F401

        began = clock()
        with redirect_stdout(io.StringIO()):
            status = build_x0.main(
                [
                    "--config",
                    str(config),
                    "--steps",
                    ",".join(map(str, self.steps)),
                    "--gpu_num",
                    str(self.args.gpu_num),
                ]
            )
        if status:
            raise InputError(f"--config {self.args.config}: its clips cannot be built, see above")
        return clock() - began

    # ---- the project's ways

    def project(self, way, from_files, flags):
        home = self.folder / way.replace(", ", "-").replace(" ", "_")
        config = self._config("latent", home / "train_detector_data")
        where, held_out, spent = (
            ["--recordings", config],
            ["--recordings", config],
            {"clips": np.zeros(2)},
        )
        if from_files:
            spent["clips"] = self._script("build_x0.py", config=config) + self._script(
                "build_eval_set.py",
                "--eval_dir",
                self.folder / "eval.pth",
                "--save_dir",
                home,
                config=config,
            )
            where, held_out = ["--data_dir", home / "train_detector_data"], ["--data_dir", home]
        train = [
            "--eval_dir",
            self.folder / "eval.pth",
            "--save_dir",
            home / "detectors",
            "--size",
            self.args.size,
        ]
        spent["train"] = self._script(
            "train_mae.py", *where, *train, *flags, config=self.args.train_config
        )
        embed = [
            "--eval_dir",
            self.folder / "eval.pth",
            "--model_dir",
            home / "detectors",
            "--save_dir",
            home / "results",
        ]
        spent["embed"] = self._script(
            "embed_model.py", *held_out, *embed, config=self.args.train_config
        )
        self._keep(
            way,
            spent,
            {
                "clips": size_of(home) - size_of(home / "detectors") - size_of(home / "results"),
                "detectors": size_of(home / "detectors"),
            },
            load_torch(home / "results" / RESULTS),
            range(self.all_steps),
        )
        self.found[way]["accuracy"]["argmax, mean of steps"] = self._mean(
            argmax_votes(home / "results" / SCORES)
        )
        shutil.rmtree(home)

    # ---- what comes out

    def compare(self):
        known = read_settings(self.args.train_config, Namespace())
        for part, note in (
            (
                "seconds",
                f"the plain way's from {self.detectors}, in proportion; embed: votes of all on "
                f"{len(self.split.unsafe)} unsafe and {len(self.split.normal)} normal videos; "
                f"the project's trained by {known['workers']} processes",
            ),
            ("CPU seconds", "the same, of all processes together"),
            (
                "MB",
                "on the disk beside the recordings; the plain way's clips and detectors in "
                "proportion",
            ),
            (
                "accuracy",
                f"mean of steps: of the vote of each of the steps {self.args.steps} alone; "
                f"lambda {LAMBDA}: of the verdict; the plain way reads by argmax, the project's "
                f"by {known['operating_point']} but where it says argmax",
            ),
        ):
            self.report.add(part, note, [(way, found[part]) for way, found in self.found.items()])
        plain, rows = self.found["plain"], []
        for way, found in list(self.found.items())[1:]:
            rows.append(
                (
                    way,
                    {
                        "train": plain["seconds"]["train"] / found["seconds"]["train"],
                        "embed": plain["seconds"]["embed"] / found["seconds"]["embed"],
                        "clips, train and embed": sum(plain["seconds"].values())
                        / sum(found["seconds"].values()),
                        "train, CPU": plain["CPU seconds"]["train"] / found["CPU seconds"]["train"],
                        "embed, CPU": plain["CPU seconds"]["embed"] / found["CPU seconds"]["embed"],
                        "disk": plain["MB"]["together"] / found["MB"]["together"],
                        "accuracy": found["accuracy"]["mean of steps"]
                        - plain["accuracy"]["mean of steps"],
                    },
                )
            )
        if rows:
            goal = ("goal, at least", {"train": 10, "embed": 10, "disk": 10, "accuracy": 0})
            self.report.add(
                "against the plain way",
                "how many times faster, and smaller on the disk; accuracy: the "
                "difference of the means of steps",
                [goal, *rows],
            )

    def _keep(self, way, spent, taken, votes, steps):
        megabytes = {key: value / 1e6 for key, value in taken.items()}
        self.found[way] = {
            "seconds": column(spent, 0),
            "CPU seconds": column(spent, 1),
            "MB": {**megabytes, "together": sum(megabytes.values())},
            "accuracy": {"mean of steps": self._mean(votes, steps), **self._verdicts(votes, steps)},
        }

    def _mean(self, votes, steps=None):
        """Mean accuracy of the votes of self.steps, each alone."""
        steps = range(self.all_steps) if steps is None else steps
        at = [list(steps).index(step) for step in self.steps]
        unsafe, normal = (np.array(list(votes[label].values()))[:, at] for label in "10")
        return float(np.mean(np.concatenate([unsafe, 1 - normal])))

    def _verdicts(self, votes, steps):
        """Accuracy after the first steps, where all of them voted."""
        videos = [(int(label), found) for label in "10" for found in votes[label].values()]
        etas = [eta for eta in (1, EARLY, 20) if list(steps)[:eta] == list(range(eta))]
        return {
            f"lambda {LAMBDA}, eta {eta}": counts(*verdicts(videos, LAMBDA, eta))["accuracy"]
            for eta in etas
        }

    def _config(self, representation, out_dir):
        """A build_x0.yaml of this run; returns its path."""
        path = self.folder / f"{representation}_{Path(out_dir).parent.name}.yaml"
        shown = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in self.settings.items()
        }
        save_yaml(
            {**shown, "representation": representation, "out_dir": str(self.folder / out_dir)}, path
        )
        return path

    def _script(self, name, *flags, config):
        """Run a script as a user does; returns what it took."""
        command = [sys.executable, ROOT / name, "--config", config, *flags]
        if name in ("train_mae.py", "embed_model.py", "build_x0.py"):
            command += ["--gpu_num", self.args.gpu_num]
        print(f"{name} {' '.join(map(str, flags[-2:]))}", file=sys.stderr)
        began = clock()
        ended = subprocess.run(
            list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if ended.returncode:
            raise InputError(
                f"{name}: exit status {ended.returncode} "
                f"({ended.stderr.strip().splitlines()[-1][:300]})"
            )
        return clock() - began


def clock():
    """[seconds, CPU seconds of this process and of all it has started and seen end]"""
    return np.array([time.perf_counter(), sum(os.times()[:4])])


def column(spent, k):
    return {key: float(value[k]) for key, value in spent.items()}


def argmax_votes(path):
    """The votes that a scores.pth gives by argmax, as in results.pth."""
    scores = load_torch(path)["scores"]
    return {
        label: {
            row: step_votes([[int(p >= 0.5) for p in by_row[row]] for by_row in by_group.values()])
            for row in next(iter(by_group.values()))
        }
        for label, by_group in scores.items()
    }


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
