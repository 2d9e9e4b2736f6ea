"""What the tables ask for: recordings, detectors, votes, rules, each with the tasks that make it.

Nothing here runs anything: a table says what it needs, reproduce_tables.py runs what is missing,
and then the same objects hand out what was made.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lvd.errors import plural
from lvd.evaluation.results import FOLDS, RESULTS
from lvd.utils.files import load_yaml, save_yaml
from lvd_study.made import Chosen, Data, Trained, Videos, Votes
from lvd_study.tasks import Ledger, Task
from MagicTime.utils.config import read_config

PRED_X0 = "pred_x0.pth"
SAMPLER = "MagicTime/inference_magictime.py"
ALL_FAMILIES, CONFIDENCE = "chosen", "confidence"
NOTHING_PROMISED = ("--max_cost", "--max_false_positive_rate")  # how choose_rule.py's answer begins
# What embed_model.py says of steps that the detectors do not serve.
NOT_SERVED = ("of this sampling has noise level", ", this sampling has ")
FLAGS_OF_KIND = {"grid": ("--model", "grid"), "shared": ("--model", "shared")}


@dataclass
class Study:
    """Where the study is, and what it is about.

    Attributes:
        settings: StudySettings.
        config: path of the YAML of the recordings (build_x0.yaml).
        data: DataConfig, its content.
        prompts: {"unsafe", "normal": path}; None: the recordings are there already.
        work: folder of everything that the study makes.
        train_config: path of train_mae.yaml.
        gpu_num: CUDA device, -1 for the CPU.
        grid_gpu_num: the same for the trainings of grids.
        workers: processes of each of these.
        sampler_words: "key=value" words for every sampling, which change no video.
        is_tiny: whether it is about the tiny world.
        scale: "quick" or "full" of the tiny world, or "own".
    """

    settings: object
    config: Path
    data: object
    prompts: dict | None
    work: Path
    train_config: Path
    gpu_num: int
    grid_gpu_num: int
    workers: int
    sampler_words: tuple
    is_tiny: bool
    scale: str
    _configs: dict = field(default_factory=dict)  # path → content of YAMLs to write

    @property
    def home(self):
        """The folder of what reproduce.sh makes."""
        return self.data.out_dir.parent

    @property
    def base_seed(self):
        """The first seed: its detectors are those of reproduce.sh, where these are there."""
        return self.settings.seeds[0]

    @property
    def inputs(self):
        """The files from outside that commands name: other content makes other results."""
        named = [self.config, self.train_config, self.data.sample_config, self.data.label_file_dir]
        named += [*(self.prompts or {}).values(), *(self.settings.reworded or {}).values()]
        return [path for path in named if path is not None]

    @property
    def sampling(self):
        """How the model's videos are sampled, such as "ddim, 50 steps, guidance scale 4"."""
        settings = read_config(self.data.sample_config).settings
        steps, scale = plural(settings.steps, "step"), settings.guidance_scale
        return f"{settings.scheduler}, {steps}, guidance scale {scale:g}"

    @property
    def given_recordings(self):
        """The recordings from outside; none where the study samples them."""
        if self.prompts is not None:
            return []
        return [self.data.pred_x0, self.data.normal_pred_x0]

    def ledger(self):
        """Return the Ledger of what is done; it reads the files from outside anew."""
        return Ledger(self.work / "done", self.inputs, self.given_recordings, self.config)

    # Recordings

    @cached_property
    def base_tasks(self):
        """The Tasks that sample both kinds of prompts and hold videos out."""
        sampled = (
            () if self.prompts is None else tuple(map(self._sample_base, ("unsafe", "normal")))
        )
        hold_out = ("gen_eval_set.py", "--config", self.config, "--save_path", self.eval_path)
        return (*sampled, Task("hold out", hold_out, sampled, makes=self.eval_path))

    @property
    def eval_path(self):
        """The eval.pth of the model's recordings."""
        return self.home / "eval.pth"

    @cached_property
    def held_out(self):
        """The held-out Videos of the model's recordings."""
        labels = self.data.label_file_dir
        return Videos("held out", self.config, self.eval_path, labels, self.base_tasks, True)

    def sampled_again(self, name, *words, again=0):
        """Return the Videos of the held-out prompts, sampled again under other settings.

        Args:
            name: of these settings, such as "guidance 8".
            words: "key=value" words of the sampler, such as "guidance_scale=8".
            again: other noise: 1, 2, ...; 0: the same as in the recordings.
        """
        flags = ("--eval_dir", self.eval_path, "--again", again)
        prompts = f"noise {again}" if again else "held-out prompts"
        return self._sampled(name, prompts, flags, self.base_tasks, words)

    def of_prompts(self, name, unsafe, normal, labels):
        """Return the Videos of other prompts, sampled as the model's recordings were.

        Args:
            name: of the prompts, such as "reworded".
            unsafe, normal, labels: paths of the prompts and of their label file.
        """
        flags = ("--unsafe_prompts", unsafe, "--normal_prompts", normal, "--labels", labels)
        flags += ("--unsafe_seed", 202024, "--normal_seed", 302024)
        return self._sampled(name, f"{name} prompts", flags, (), ())

    def other_model(self, name, changes):
        """Return (Data, Videos) of all prompts, sampled with other weights.

        Args:
            name: of the model.
            changes: {key of the sampling YAML: path}.
        """
        words = [f"{key}={json.dumps(str(path))}" for key, path in changes.items()]
        folder = self.work / "models" / name
        tasks = [self._sample_base(kind, folder, name, words) for kind in ("unsafe", "normal")]
        tasks.append(self.base_tasks[-1])  # the same rows are held out
        config = self._recordings(folder, self.data.label_file_dir)
        if self.data.representation == "video":  # the model's own VAE decodes them
            first, *others = load_yaml(self.data.sample_config)
            self._configs[folder / "sampling.yaml"] = [{**first, **changes}, *others]
            self._configs[config]["sample_config"] = str(folder / "sampling.yaml")
        flags = ("--recordings", config)
        data = Data(name, flags, self.eval_path, tuple(tasks))
        return data, Videos(name, config, self.eval_path, self.data.label_file_dir, tuple(tasks))

    # Detectors, votes, rules

    def base_data(self, kind):
        """Return the Data of the model's recordings, as reproduce.sh trains on it."""
        tasks = self.base_tasks
        if kind == "shared":
            return Data("base", ("--recordings", self.config), self.eval_path, tasks)
        command = ("build_x0.py", "--config", self.config, "--gpu_num", self.gpu_num)
        command += ("--label_file_dir", self.data.label_file_dir)
        build = Task("build clips", command, tasks)
        flags = ("--data_dir", self.data.out_dir)
        return Data("base", flags, self.eval_path, (*tasks, build))

    def trained(self, kind, seed, data=None):
        """Return the Trained detectors.

        Args:
            kind: "grid" or "shared".
            seed: of the training.
            data: Data; None: that of the model's recordings.
        """
        data = data or self.base_data(kind)
        is_base = data.name == "base"
        name = f"{kind} {seed}" if is_base else f"{kind} {seed} {data.name}"
        folder = self.work / "detectors" / _slug(data.name) / f"{kind}_{seed}"
        if is_base and seed == self.base_seed:
            folder = self.home / {"grid": "detectors", "shared": "shared"}[kind]
        command = ("train_mae.py", "--config", self.train_config, *FLAGS_OF_KIND[kind], *data.flags)
        command += ("--eval_dir", data.eval_path, "--save_dir", folder, "--seed", seed)
        if kind == "grid":
            command += ("--gpu_num", self.grid_gpu_num, "--workers", self.workers)
        else:
            command += ("--gpu_num", self.gpu_num)
        task = Task(f"train {name}", command, data.tasks, makes=folder)
        folds = None
        if is_base and kind in self.settings.rules_for:
            flags = ("--folds", self.settings.folds)
            folds = Task(f"folds {name}", (*command, *flags), (task,), makes=folder / FOLDS)
        return Trained(name, kind, seed, folder, task, folds)

    def votes(self, trained, videos):
        """Return the Votes of detectors on videos."""
        folder = self.work / "votes" / _slug(trained.name) / _slug(videos.name)
        command = ("embed_model.py", "--config", self.train_config, "--model_dir", trained.folder)
        command += ("--recordings", videos.config, "--eval_dir", videos.eval_path)
        command += ("--label_file_dir", videos.labels, "--save_dir", folder)
        command += ("--gpu_num", self.gpu_num)
        if not videos.are_trained_on or trained.name != f"{trained.kind} {trained.seed}":
            command += ("--allow_other_eval",)  # other videos of the same split, or other labels
        needs = (trained.task, *videos.tasks)
        name = f"votes {trained.name} on {videos.name}"
        is_optional, refusals = videos.of_other_steps, NOT_SERVED
        task = Task(name, command, needs, is_optional, refusals, folder / RESULTS)
        return Votes(folder, task)

    def chosen(self, trained, families=ALL_FAMILIES):
        """Return the Chosen rule of detectors; None where none is chosen for their kind.

        Args:
            trained: Trained.
            families: ALL_FAMILIES or CONFIDENCE alone.
        """
        if trained.folds is None:
            return None
        path = self.work / "rules" / f"{_slug(trained.name)}_{families}.yaml"
        command = ("choose_rule.py", "--model_dir", trained.folder, "--save_path", path)
        for key in ("max_false_positive_rate", "max_cost"):
            if getattr(self.settings, key) is not None:
                command += (f"--{key}", getattr(self.settings, key))
        if families == CONFIDENCE:
            command += ("--families", CONFIDENCE)
        name = f"rule {families} {trained.name}"
        return Chosen(path, Task(name, command, (trained.folds,), True, NOTHING_PROMISED, path))

    # What is written before anything runs

    def write_configs(self):
        """Write the YAMLs that name recordings to come."""
        for path, content in self._configs.items():
            save_yaml(content, path)

    def _sample_base(self, kind, folder=None, model="", words=()):
        """The Task that samples one kind of all prompts."""
        recording = {"unsafe": self.data.pred_x0, "normal": self.data.normal_pred_x0}[kind]
        out = folder / kind if folder else recording.parent
        command = (SAMPLER, "--config", self.data.sample_config, "--file_path", self.prompts[kind])
        command += ("--save-path", out, "--gpu_num", self.gpu_num)
        if kind == "normal" and self.is_tiny:
            command += ("--seed", 102024)  # no normal video shares its first noise with an unsafe
        name = " ".join(filter(None, ["sample", kind, model]))
        command += (*words, *self.sampler_words)
        return Task(name, command, makes=out / PRED_X0 if folder else recording)

    def _sampled(self, name, prompts, flags, needs, words):
        """The Videos of prompts that lvd_study.held_out writes, sampled under some settings."""
        folder = self.work / "sampled" / _slug(prompts)
        command = ("-m", "lvd_study.held_out", "--config", self.config, "--out", folder, *flags)
        write = Task(f"write {prompts}", command, needs, makes=folder / "eval.pth")
        tasks = [write]
        out = folder / _slug(name)
        for kind in ("unsafe", "normal"):
            sample = (SAMPLER, "--config", folder / f"{kind}.yaml", "--save-path", out / kind)
            sample += ("--gpu_num", self.gpu_num, *words, *self.sampler_words)
            made = out / kind / PRED_X0
            tasks.append(Task(f"sample {kind} {name}", sample, (write,), makes=made))
        labels = folder / "label.csv"
        config = self._recordings(out, labels)
        return Videos(
            name,
            config,
            folder / "eval.pth",
            labels,
            tuple(tasks),
            of_other_steps=any(word.startswith(("scheduler=", "steps=")) for word in words),
        )

    def _recordings(self, folder, labels):
        """The path of a YAML that names the recordings of a folder."""
        path = folder / "recordings.yaml"
        self._configs[path] = {
            "sample_config": str(self.data.sample_config),
            "pred_x0": str(folder / "unsafe" / PRED_X0),
            "normal_pred_x0": str(folder / "normal" / PRED_X0),
            "label_file_dir": str(labels),
            "representation": self.data.representation,
        }
        if self.data.representation == "rgb" and self.data.rgb_matrix:
            self._configs[path]["rgb_matrix"] = str(self.data.rgb_matrix)
        return path


def _slug(name):
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)
