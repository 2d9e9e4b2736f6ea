"""What the scripts are tried on: a tiny world, and a command of each script with its outputs.

All trials work in one folder, so a command has the same paths in each.
"""

from dataclasses import dataclass

import sklearn.metrics
import yaml
from matplotlib.figure import Figure
from transformers import VideoMAEForVideoClassification

import build_eval_set
import build_x0
import choose_rule
import embed_model
import fit_rgb
import gen_eval_set
import pretrain_mae
import test_accuracy
import train_mae
from lvd.training import resumable
from lvd.training.checkpoint import Checkpoint
from MagicTime import inference_magictime
from MagicTime.utils import guarded, run

# What the scripts import late: a trial is a fork of this process.
IMPORTED = (guarded, run, Figure, sklearn.metrics, VideoMAEForVideoClassification)
STEPS = 3
SHAPES = ("circle", "square", "triangle", "ring", "cross")
COLOURS = ("red", "green", "blue", "white")
TRAINING = "--data_dir data --eval_dir eval.pth --size nano --epoch 2 --batch_size 8 --gpu_num -1"
SAMPLING = f"--config sample_configs/Tiny.yaml --gpu_num -1 steps={STEPS}"


@dataclass(frozen=True)
class Case:
    """One command.

    Attributes:
        name: of the case.
        script: its module.
        words: its command line.
        needs: names of the cases before it whose results it reads.
    """

    name: str
    script: object
    words: str
    needs: tuple = ()

    @property
    def argv(self):
        return self.words.split()


FIRST = [
    Case("unsafe", inference_magictime, f"{SAMPLING} --file_path unsafe.txt --save-path unsafe"),
    Case("normal", inference_magictime, f"{SAMPLING} --file_path normal.txt --save-path normal"),
]
RECORDED, BUILT = ("unsafe", "normal"), ("build_x0", "gen_eval_set")
CASES = [
    Case(
        "sample",
        inference_magictime,
        f"{SAMPLING} batch_size=2 save_predx_t=true format=both --file_path few.txt "
        "--save-path sampled --filmstrips 2",
    ),
    Case(
        "gen_eval_set", gen_eval_set, "--config build_x0.yaml --save_path eval.pth", needs=RECORDED
    ),
    Case("build_x0", build_x0, "--config build_x0.yaml --gpu_num -1", needs=RECORDED),
    Case(
        "build_x0 video",
        build_x0,
        "--config build_x0.yaml --gpu_num -1 --representation video --out_dir videos --steps 1",
        needs=RECORDED,
    ),
    Case(
        "build_eval_set",
        build_eval_set,
        "--config build_x0.yaml --eval_dir eval.pth --save_dir .",
        needs=BUILT,
    ),
    Case(
        "fit_rgb",
        fit_rgb,
        "--recordings build_x0.yaml --eval_dir eval.pth --frames 40 --gpu_num -1 "
        "--save_path latent_rgb.json",
        needs=("gen_eval_set",),
    ),
    Case("train grid", train_mae, f"{TRAINING} --save_dir detectors --workers 1", needs=BUILT),
    Case("train workers", train_mae, f"{TRAINING} --save_dir by_two --workers 2", needs=BUILT),
    Case("train shared", train_mae, f"{TRAINING} --save_dir shared --model shared", needs=BUILT),
    Case(
        "train names",
        train_mae,
        f"{TRAINING} --save_dir shared --model shared --names",
        needs=("train shared",),
    ),
    Case(
        "folds",
        train_mae,
        f"{TRAINING} --save_dir shared --model shared --folds 2",
        needs=("train shared",),
    ),
    Case(
        "choose rule",
        choose_rule,
        "--model_dir shared --max_false_positive_rate 0.9 --max_cost 1 --confidence 0.5",
        needs=("folds",),
    ),
    Case(
        "evaluate", train_mae, f"{TRAINING} --save_dir detectors --no-train", needs=("train grid",)
    ),
    Case("pretrain", pretrain_mae, f"{TRAINING} --save_dir pretrained", needs=BUILT),
    Case(
        "embed",
        embed_model,
        "--model_dir detectors --eval_dir eval.pth --data_dir . --save_dir results --gpu_num -1 "
        "--label_file_dir label.csv",
        needs=("train grid", "build_eval_set"),
    ),
    Case(
        "accuracy",
        test_accuracy,
        "--data_dir results --eta 2 --table --metrics --resamples 100",
        needs=("embed",),
    ),
    Case(
        "sample guarded",
        inference_magictime,
        f"{SAMPLING} batch_size=2 --file_path few.txt --save-path guarded --guard detectors "
        "--eta 2 --guard-preview",
        needs=("train grid",),
    ),
]


def with_needs(names):
    """Return the cases of these names and all that they need, in their order."""
    known = {case.name: case for case in [*FIRST, *CASES]}
    wanted, left = set(), list(names)
    while left:
        name = left.pop()
        wanted.add(name)
        left += known[name].needs
    return [case for name, case in known.items() if name in wanted]


def write_inputs(folder):
    """Write prompts, labels and build_x0.yaml."""
    things = [f"a {colour} {shape} moves up" for colour in COLOURS for shape in SHAPES]
    (folder / "unsafe.txt").write_text("\n".join(f"{text}, exploding" for text in things[:10]))
    (folder / "normal.txt").write_text("\n".join(things[:10]))
    (folder / "few.txt").write_text("\n".join(things[-3:]))
    rows = "\n".join(f"{row},{row + 5}" for row in range(5))
    (folder / "label.csv").write_text(f"one,two\n{rows}\n")
    settings = {
        "sample_config": "MagicTime/sample_configs/Tiny.yaml",
        "pred_x0": str(folder / "unsafe/pred_x0.pth"),
        "normal_pred_x0": str(folder / "normal/pred_x0.pth"),
        "label_file_dir": str(folder / "label.csv"),
        "out_dir": str(folder / "data"),
    }
    (folder / "build_x0.yaml").write_text(yaml.safe_dump(settings))


def checkpoint_often():
    """Let trainings write a checkpoint after each mini-batch, not once a minute."""

    class Often(Checkpoint):
        def __init__(self, path, noun, identity, save_every):
            super().__init__(path, noun, identity, save_every=-1)

    resumable.Checkpoint = Often
