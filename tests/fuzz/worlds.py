"""One small world with a file of every kind, made once by the scripts; each case gets a cheap copy
of it in which one file is damaged."""

import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

import build_eval_set
import build_x0
import choose_rule
import embed_model
import fit_rgb
import gen_eval_set
import pretrain_mae
import train_mae
from lvd.data.config import DataConfig
from lvd.detectors.bank import load_bank
from lvd.errors import InputError
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.file import ChosenRule, identity_of, save_rule
from lvd.training.checkpoint import FORMAT, Checkpoint
from lvd.utils.config import versions
from lvd.utils.files import save_torch, save_yaml
from lvd_plan.rates import rates_of_cpu, save_rates
from tests.worlds import magictime_world
from tests.worlds.recording_world import write_labels
from tests.worlds.sampler_command import sample

STEPS, ROWS = 3, 10
LABELS = {"first": [*range(0, 6)], "second": [*range(4, 10)]}
TEXTS = (".yaml", ".json", ".jsonl", ".csv", ".txt")
FAST = ["--size", "nano", "--epoch", "1", "--batch_size", "64", "--gpu_num", "-1"]
DATA_CONFIG = dict(
    sample_config="sample.yaml",
    pred_x0="unsafe/pred_x0.pth",
    normal_pred_x0="normal/pred_x0.pth",
    label_file_dir="label.csv",
    out_dir="data",
)

TRAINING = dict(
    size="nano",
    base_model=None,
    seed=2024,
    workers=1,
    together=None,
    precision="float32",
    operating_point="validation",
    recipe="scratch",
    epoch=1,
    batch_size=64,
    lr=0.006,
    weight_decay=0.2,
    warmup=0.1,
    dropout=0.0,
    noise=0.0,
    flip=True,
    mask=0.5,
    smoothing=0.0,
    average=0.3,
    select="last",
    normals="all",
    validation=0.2,
    false_positives=0.05,
    shared=dict(epoch=1, lr=0.006, mask=0.5, flip=True, validation=0.2),
    pretrain=dict(epoch=1, lr=0.003, mask=0.75),
)


STUDY = dict(
    seeds=[1, 2],
    rules_for=["shared"],
    folds=2,
    max_false_positive_rate=0.5,
    max_cost=0.5,
    other_seeds=1,
    guidance_scales=[1.5, 8.0],
    samplings=["ddim:3", "euler:2"],
    safe_guidance=["weak", "max"],
    safety_concept="warped",
    weights={"plain": {"dreambooth_path": ""}},
    wrong_labels=[0.05, 0.2],
)


class World:
    """Where everything lies below `root`, and the commands that read it."""

    def __init__(self, root):
        self.root = Path(root)

    def __getattr__(self, name):
        """world.label_csv: the path of label.csv, and so on."""
        return self.root / PLACES[name]

    def commands(self, script, *words):
        """The script's usual arguments in this world, then `words`."""
        return [word.format(world=self) for word in COMMANDS[script]] + list(map(str, words))


PLACES = {
    "sample_yaml": "sample.yaml",
    "build_yaml": "build_x0.yaml",
    "train_yaml": "train_mae.yaml",
    "study_yaml": "study.yaml",
    "label_csv": "label.csv",
    "prompts": "prompts.txt",
    "data": "data",
    "eval": "eval.pth",
    "grid": "grid",
    "shared": "shared",
    "pretrained": "pretrained",
    "results": "results",
    "results_shared": "results_shared",
    "rule": "rule.yaml",
    "guard_yaml": "guard.yaml",
    "half": "half",
    "guarded": "guarded",
    "rgb": "latent_rgb.json",
    "ckpts": "ckpts",
    "unsafe": "unsafe",
    "normal": "normal",
    "new": "new",
    "captions": "captions.jsonl",
    "plan_rates": "plan_rates.json",
}
COMMANDS = {  # script → its usual arguments, which are quick
    "download": ["--what", "videomae", "--dir", "{world.new}", "--dry-run"],
    "prompts": [
        *("--file", "{world.captions}", "--column", "caption", "--count", "3"),
        *("--out", "{world.new}/normal.txt"),
    ],
    "plan": [
        *("--config", "{world.build_yaml}", "--videos", "60", "--normal_videos", "60"),
        *("--gpu_num", "-1", "--card", "H100"),
    ],
    "sample": ["--config", "{world.sample_yaml}", "--save-path", "{world.new}", "--gpu_num", "-1"],
    "serve": [
        *("--config", "{world.sample_yaml}", "--guard", "{world.guard_yaml}", "--gpu_num", "-1"),
        *("--port", "0", "--save-path", "{world.new}"),
    ],
    "app": [
        *("--config", "{world.sample_yaml}", "--guard", "{world.shared}", "--gpu_num", "-1"),
        *("--port", "0", "--eta", str(STEPS)),
    ],
    "build_x0": ["--config", "{world.build_yaml}", "--gpu_num", "-1"],
    "gen_eval_set": ["--config", "{world.build_yaml}", "--save_path", "{world.new}/eval.pth"],
    "build_eval_set": [
        *("--config", "{world.build_yaml}", "--eval_dir", "{world.eval}"),
        *("--save_dir", "{world.new}"),
    ],
    "train_mae": [
        *("--data_dir", "{world.data}", "--eval_dir", "{world.eval}", "--save_dir", "{world.new}"),
        *("--config", "{world.train_yaml}", "--workers", "1", *FAST),
    ],
    "pretrain_mae": [
        *("--data_dir", "{world.data}", "--eval_dir", "{world.eval}", "--save_dir", "{world.new}"),
        *("--config", "{world.train_yaml}", *FAST),
    ],
    "embed_model": [
        *(
            "--model_dir",
            "{world.grid}",
            "--eval_dir",
            "{world.eval}",
            "--data_dir",
            "{world.root}",
        ),
        *("--save_dir", "{world.new}", "--label_file_dir", "{world.label_csv}", "--gpu_num", "-1"),
    ],
    "choose_rule": [
        *("--model_dir", "{world.shared}", "--save_path", "{world.new}/rule.yaml"),
        *("--max_false_positive_rate", "0.9", "--max_cost", "1", "--confidence", "0.5"),
    ],
    "test_accuracy": ["--data_dir", "{world.results}"],
    "reproduce_tables": [
        *("--config", "{world.build_yaml}", "--study", "{world.study_yaml}", "--tables", "a,b,c"),
        *("--train_config", "{world.train_yaml}", "--gpu_num", "-1", "--dry-run"),
    ],
    "fit_rgb": [
        *("--recordings", "{world.build_yaml}", "--eval_dir", "{world.eval}", "--frames", "64"),
        *("--save_path", "{world.new}/latent_rgb.json", "--gpu_num", "-1"),
    ],
}


def make_world(root):
    """Make every kind of file by the scripts themselves, which takes some seconds."""
    world = World(root)
    _sample(world)
    _run(gen_eval_set, world.commands("gen_eval_set", "--save_path", world.eval))
    _run(build_x0, world.commands("build_x0"))
    _run(build_eval_set, world.commands("build_eval_set", "--save_dir", world.root))
    _run(fit_rgb, world.commands("fit_rgb", "--save_path", world.rgb))
    save_yaml(TRAINING, world.train_yaml)
    save_yaml(STUDY, world.study_yaml)
    _train(world)
    embed = world.commands("embed_model", "--operating_point", "validation")
    with mock.patch("lvd.evaluation.votes.VoteRun.votes", side_effect=InputError("stopped")):
        assert embed_model.main([*embed, "--save_dir", str(world.half)]) == 2
    _run(embed_model, [*embed, "--save_dir", str(world.results)])
    _choose(world)
    _write_bare(world.root / "bare" / "1" / "0.pth")
    _write_journal(world)
    guard = ["--guard", str(world.grid), "--eta", "2", "--guard-allow-unknown"]
    assert sample(world.sample_yaml, world.guarded, *guard, "--limit", "4") == 0
    return world


def _sample(world):
    magictime_world.make_world(world.root)
    prompts = [f"dot {number}" for number in range(ROWS)]
    world.prompts.write_text("\n".join(prompts) + "\n")
    captions = [{"caption": f"a dot, number {row}"} for row in range(ROWS)]
    world.captions.write_text("".join(json.dumps(row) + "\n" for row in captions))
    for kind in ("unsafe", "normal"):
        changes = dict(steps=STEPS, batch_size=5, prompt=[f"{kind} {text}" for text in prompts])
        config = world.sample_yaml if kind == "unsafe" else world.root / "normal.yaml"
        magictime_world.write_config(config, world.root, **changes)
        assert sample(config, getattr(world, kind)) == 0
    write_labels(world.label_csv, LABELS)
    settings = {key: str(world.root / path) for key, path in DATA_CONFIG.items()}
    save_yaml(settings, world.build_yaml)
    save_rates(replace(rates_of_cpu(), memory=10**9, peak={"names": 1}), "today", world.plan_rates)


def _train(world):
    """The grid, the shared detector and a pre-trained encoder, the last two also half-way."""
    _run(train_mae, world.commands("train_mae", "--save_dir", world.grid))
    kept = mock.patch.object(Checkpoint, "delete")
    always = mock.patch.object(Checkpoint, "save_if_due", _save)
    with kept, always:
        for script, name, *words in (
            (train_mae, "shared", "--model", "shared"),
            (pretrain_mae, "pretrained"),
        ):
            save = ["--save_dir", world.root / name, *words]
            _run(script, world.commands("pretrain_mae", *save))
            (world.half / name).mkdir(parents=True)
            (world.root / name / f"{name}.training.pth").rename(
                world.half / name / f"{name}.training.pth"
            )


def _choose(world):
    """Names, scores out of fold, a rule and a guard.yaml for the shared detector."""
    more = ["--save_dir", world.shared, "--model", "shared", "--names", "--folds", "2"]
    _run(train_mae, world.commands("pretrain_mae", *more))
    _run(choose_rule, world.commands("choose_rule"))
    save = ["--model_dir", world.shared, "--save_dir", world.results_shared]
    _run(embed_model, world.commands("embed_model", *save))
    detectors = identity_of(load_bank(world.shared))
    rule = ChosenRule(ConfidenceRule(0.9, 2), detectors, {"settings": {"best": "accuracy"}})
    save_rule(rule, world.rule, versions())
    guard = {
        "detectors": "shared",
        "rule": "rule.yaml",
        "operating_point": "validation",
        "categories": {"first": {"action": "flag"}, "second": {"action": "stop", "bound": 0.95}},
    }
    save_yaml(guard, world.guard_yaml)


def _save(checkpoint, state_of):
    save_torch({"format": FORMAT, "identity": checkpoint.identity, **state_of()}, checkpoint.path)


def _write_bare(path):
    """A state dict as the paper's code saves it: VideoMAE of 16 frames of 224 px, but narrow."""
    config = VideoMAEConfig(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=64,
        patch_size=112,
        tubelet_size=8,
        num_labels=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_torch(VideoMAEForVideoClassification(config).state_dict(), path)


def _write_journal(world):
    """A recording whose rows stand in a journal, as a killed run leaves it."""
    folder = world.root / "journal"
    shutil.copytree(world.unsafe, folder, ignore=shutil.ignore_patterns("videos"))
    sidecar = json.loads((folder / "pred_x0.json").read_text())
    lines = [{"row": int(row), "info": info} for row, info in sidecar["rows"].items()]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "pred_x0.rows.0.jsonl").write_text(text)
    (folder / "pred_x0.json").write_text(json.dumps({**sidecar, "rows": {}}))


def _run(script, words):
    assert script.main(words) == 0, script.__name__


def shared_template(folder):
    """The World below `folder`, made by the first test process that asks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            shutil.rmtree(folder / "world", ignore_errors=True)
            make_world(folder / "world")
            (folder / "made").touch()
    return World(folder / "world")


class Cases:
    """Copies of the template, one after the other at the same place.

    Weights and clips are linked, and text files, in which paths stand, are written anew.
    """

    def __init__(self, template, folder):
        self.origin, self.here = Path(folder) / "template", Path(folder) / "cases" / "one"
        shutil.copytree(template.root, self.origin)
        for path in self.origin.rglob("*"):
            if path.suffix in TEXTS and path.parent.name not in ("unsafe", "normal"):
                # The hash of a recording's sidecar, paths and all, stands in other files.
                text = path.read_text()
                path.write_text(text.replace(str(template.root), str(self.here)))

    @contextmanager
    def world(self, *parts):
        """A World of its own, with the files and folders named by `parts` alone."""
        _delete(self.here.parent)
        self.here.mkdir(parents=True)
        os.chdir(self.here)  # relative paths lead here, those of a build_x0.yaml too
        for part in parts:
            self._copy(PLACES.get(part, part))
        try:
            with mock.patch("lvd.data.config.ROOT", self.here), self._default_folder():
                yield World(self.here)
        finally:
            os.chdir(self.origin)
            _delete(self.here.parent)

    def _default_folder(self):
        """Where a dataset goes for which no folder is named: not into the repository."""
        out_dir = DataConfig.__dataclass_fields__["out_dir"]
        return mock.patch.object(out_dir, "default", self.here / "data")

    def _copy(self, name):
        there, here = self.origin / name, self.here / name
        here.parent.mkdir(parents=True, exist_ok=True)
        if there.is_dir():
            shutil.copytree(there, here, copy_function=_link, dirs_exist_ok=True)
        else:
            _link(there, here)


def _link(there, here):
    """Link a file, or copy one that a script may append to, unless it is there."""
    if os.path.lexists(here):
        return
    copy = Path(there).suffix in TEXTS or Path(there).name.startswith("pred_x0")
    shutil.copyfile(there, here) if copy else os.link(there, here)


def _delete(folder):
    if folder.exists():
        shutil.rmtree(folder)
