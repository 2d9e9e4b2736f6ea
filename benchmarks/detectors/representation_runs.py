"""The project's commands for each representation: each is run once, and its seconds are kept."""

import shutil
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import build_eval_set
import build_x0
import embed_model
import fit_rgb
import test_accuracy
import train_mae
from benchmarks.common.script_runs import size_of
from lvd.errors import InputError
from lvd.utils.files import load_json, save_json, save_yaml
from lvd.utils.progress import progress

CASES = {  # name → keys of build_x0.yaml, and whether clip files are made of them
    "latent, no clip files": ({"representation": "latent"}, False),
    "latent": ({"representation": "latent"}, True),
    "rgb, fitted": ({"representation": "rgb"}, True),
    "rgb, published": ({"representation": "rgb", "rgb_matrix": None}, True),
    "video, pt": ({"representation": "video", "video_format": "pt"}, True),
    "video, mp4": ({"representation": "video", "video_format": "mp4"}, True),
}
LAMBDA = 0.6
FIRST_SEED = 2024


@dataclass
class SeedRun:
    """What one seed's training left: the folder of test_accuracy.py's tables, and seconds."""

    table: Path
    train_seconds: float
    embed_seconds: float


@dataclass
class CaseRuns:
    """A case's runs, a SeedRun for each seed, and what its clip files cost."""

    seeds: list
    build_seconds: float
    files_mib: float


class Commands:
    """Runs the commands for each case, each once, and remembers how long they took.

    Args:
        args: of representations.py.
        settings: of the recordings' YAML, as texts.
        eval_path: eval.pth.
    """

    def __init__(self, args, settings, eval_path):
        self.args, self.settings, self.eval_path = args, settings, eval_path
        self.matrix = args.dir / "latent_rgb.json"
        self.times = args.dir / "seconds.json"
        self.bar = progress(None, "commands", unit="command")

    def fit_matrix(self):
        """Fit the matrix of the model's autoencoder.

        Returns:
            (its R2, that of the published one).
        """
        config = self._config("matrix", {})
        flags = ["--recordings", config, "--eval_dir", self.eval_path, "--save_path", self.matrix]
        self._timed("fit_rgb", fit_rgb, *flags)
        known = load_json(self.matrix)
        return known["r2"], known.get("r2_of_the_published_matrix", -1)

    def run_case(self, case):
        """Build, train, embed and evaluate one case; returns its CaseRuns."""
        changes, from_files = CASES[case]
        home = self.args.dir / case.replace(", ", "_").replace(" ", "_")
        data = home / "data"
        config = self._config(home.name, changes)
        built = 0
        if from_files:
            name = f"{home.name} build"
            built = self._timed(name, build_x0, "--config", config, fresh=data)
            flags = ["--config", config, "--eval_dir", self.eval_path, "--save_dir", home]
            built += self._timed(f"{home.name} eval set", build_eval_set, *flags, gpu=False)
        train = ["--data_dir", data] if from_files else ["--recordings", config]
        held_out = ["--data_dir", home] if from_files else ["--recordings", config]
        seeds = range(FIRST_SEED, FIRST_SEED + self.args.seeds)
        runs = [self._run_seed(home, train, held_out, seed) for seed in seeds]
        return CaseRuns(runs, built, size_of(data) / 2**20)

    def _run_seed(self, home, train, held_out, seed):
        """Train, embed and evaluate with one seed."""
        place = home / str(seed)
        detectors, results, table = place / "detectors", place / "results", place / "table"
        common = ["--config", self.args.train_config, "--eval_dir", self.eval_path]

        flags = [*common, *train, "--save_dir", detectors, "--seed", seed]
        flags += ["--size", self.args.size]
        for key in ("epoch", "workers"):
            if (value := getattr(self.args, key)) is not None:
                flags += [f"--{key}", value]
        name = f"{home.name} train {seed}"
        train_seconds = self._timed(name, train_mae, *flags, fresh=detectors)

        flags = [*common, *held_out, "--model_dir", detectors, "--save_dir", results]
        flags += ["--label_file_dir", self.settings["label_file_dir"]]
        name = f"{home.name} embed {seed}"
        embed_seconds = self._timed(name, embed_model, *flags, fresh=results)

        flags = ["--data_dir", results, "--lambda", LAMBDA, "--eta", 1, "--table"]
        flags += ["--save_dir", table]
        self._timed(f"{home.name} test {seed}", test_accuracy, *flags, gpu=False)
        return SeedRun(table, train_seconds, embed_seconds)

    def _config(self, name, changes):
        """Write a build_x0.yaml; returns its path."""
        path = self.args.dir / f"{name}.yaml"
        own = {"rgb_matrix": str(self.matrix), "out_dir": str(self.args.dir / name / "data")}
        save_yaml({**self.settings, **own, **changes}, path)
        return path

    def _timed(self, name, script, *flags, gpu=True, fresh=None):
        """Seconds that a command took when it first ran; a finished one is not run again.

        Args:
            name: of the command, in seconds.json.
            script: its module.
            flags: its flags.
            gpu: whether it takes --gpu_num.
            fresh: folder that a stopped command began; it begins anew, without what it left, so
                that its seconds are those of the whole.
        """
        known = load_json(self.times) if self.times.exists() else {}
        self.bar.set_postfix_str(name)
        if name not in known:
            if gpu:
                flags = [*flags, "--gpu_num", self.args.gpu_num]
            if fresh:
                shutil.rmtree(fresh, ignore_errors=True)
            log = self.args.dir / "log.txt"
            began = time.time()
            with open(log, "a") as f, redirect_stdout(f), redirect_stderr(f):
                status = script.main(list(map(str, flags)))
            if status:
                last = log.read_text().strip().splitlines()[-1]
                raise InputError(f"{script.__name__}.py failed: {last}")
            known[name] = time.time() - began
            save_json(known, self.times)
        self.bar.update()
        return known[name]
