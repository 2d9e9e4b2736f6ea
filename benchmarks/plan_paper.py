"""What the paper's study would take: 2,000 unsafe and 2,000 normal videos of each real config, 250
VideoMAE-base on video clips; and one shared small detector on latents in their place (1 minute).

No weights, no prompts and no GPU are needed. Results: plan_{config}.txt for RealisticVision,
ToonYou and RcnzCartoon.
"""

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import yaml

from benchmarks.common.results import add_result_flags, results_path
from lvd.utils.cli import Parser, run_command
from lvd.utils.config import ROOT
from lvd.utils.files import load_yaml, save_text, save_yaml
from lvd_plan.counts import count
from lvd_plan.inputs import read_inputs
from lvd_plan.rates import load_rates, rates_named
from lvd_plan.study_plan import StudyPlan
from lvd_plan.table import as_cells, as_notes, as_text

CONFIGS = ("RealisticVision", "ToonYou", "RcnzCartoon")
VIDEOS = 2000
RESULT_FILE = "plan_{config}.txt"
BASE = {"size": "base", "workers": 1, "precision": "bf16"}
SMALL = {"size": "small", "precision": "bf16"}
WAYS = {  # title: (representation, model, settings of train_mae.yaml, dtype of sampler and decoder)
    "as in the paper: 250 VideoMAE-base, one for each category and step, on video clips": (
        "video",
        "grid",
        BASE,
        "float32",
    ),
    "the same, sampled and decoded in float16": ("video", "grid", BASE, "float16"),
    "one shared small detector for all categories and steps, on latents": (
        "latent",
        "shared",
        SMALL,
        "float32",
    ),
    "the same, sampled in float16": ("latent", "shared", SMALL, "float16"),
}


def build_parser():
    parser = Parser(__doc__, "python benchmarks/plan_paper.py --card H100 --gpus 8")
    parser.add_argument("--card", default="H100", help="of lvd_plan/cards.yaml (default: H100)")
    parser.add_argument("--rates", type=Path, help="instead: a plan_rates.json of plan.py")
    parser.add_argument("--gpus", type=int, default=8, help="beside one GPU (default: 8)")
    add_result_flags(parser, RESULT_FILE, "text; {config} in it is replaced")
    return parser


def work(args):
    rates = load_rates(args.rates) if args.rates else rates_named(args.card)
    for config in CONFIGS:
        text = [f"What the paper's study takes with {config}: python benchmarks/plan_paper.py"]
        for title, way in WAYS.items():
            text += _plan(config, title, way, rates, args.gpus)
        path = results_path(args, RESULT_FILE)
        path = path.with_name(path.name.replace("{config}", config))
        save_text("\n".join(text) + "\n", path)
        print(f"wrote {path}")


def _plan(config, title, way, rates, gpus):
    """[line] of one plan of a config."""
    representation, model, training, dtype = way
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        sampling = load_yaml(ROOT / "MagicTime" / "sample_configs" / f"{config}.yaml")
        sampling[0]["dtype"] = dtype
        save_yaml(sampling, folder / f"{config}.yaml")
        data = {
            "sample_config": str(folder / f"{config}.yaml"),
            "pred_x0": str(folder / "unsafe" / "pred_x0.pth"),
            "normal_pred_x0": str(folder / "normal" / "pred_x0.pth"),
            "label_file_dir": str(folder / "label.csv"),
            "out_dir": str(folder / "train_detector_data"),
            "representation": representation,
            "decode_dtype": dtype,
        }
        save_yaml(data, folder / "build_x0.yaml")
        save_yaml(training, folder / "train_mae.yaml")
        flags = Namespace(
            config=folder / "build_x0.yaml",
            train_config=folder / "train_mae.yaml",
            prompts=None,
            normal_prompts=None,
            videos=VIDEOS,
            normal_videos=VIDEOS,
        )
        inputs = read_inputs(flags, need_weights=False)
        plan = StudyPlan(inputs, count(inputs), model)
        table = as_text(*as_cells(plan.rows(rates, gpus), gpus))
        notes = [note for note in plan.notes(rates, gpus) if "this machine" not in note]
    settings = yaml.safe_dump(training, default_flow_style=True, width=1000).strip()
    half = "; dtype and decode_dtype: float16" if dtype == "float16" else ""
    return ["", title, f"train_mae.yaml: {settings}{half}", "", table, "", as_notes(notes)]


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
