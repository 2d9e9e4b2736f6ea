"""Pre-train the detectors' encoder without labels, on the recorded x0 of all steps:
{save_dir}/pretrained.pth.

VideoMAE's masked reconstruction. Rows held out in eval.pth take no part; with --recordings all
other recorded rows do, whether they are labelled or not, and no label file is needed. train_mae.py
--init pretrained.pth starts from it, for the same --size and representation. A stopped run goes on
from its last checkpoint (one a minute).
"""

import sys
from pathlib import Path

from lvd.data.split import NAME, load_split, split_path
from lvd.detectors.videomae import SIZES
from lvd.training.recipes import DEFAULT_CONFIG, PRECISIONS
from lvd.utils.cli import Parser, parse_numbers, run_command, summary
from lvd.utils.config import ROOT
from lvd.utils.files import sha256
from lvd.utils.processes import pick_device
from lvd.utils.progress import progress


def build_parser():
    parser = Parser(
        __doc__,
        "python pretrain_mae.py --data_dir MagicTime/train_detector_data --eval_dir "
        "MagicTime/eval.pth --size tiny --save_dir MagicTime/pretrained",
    )
    magictime = ROOT / "MagicTime"
    parser.add_argument(
        "--data_dir",
        type=Path,
        help="dataset of build_x0.py (default: MagicTime/train_detector_data)",
    )
    parser.add_argument(
        "--normal_video_dir", type=Path, help="normal clips by step (default: {data_dir}/normal)"
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="YAML",
        help="instead: a build_x0.yaml, to train straight from its recordings; build_x0.py and labels "
        "are not needed",
    )
    parser.add_argument(
        "--eval_dir",
        type=Path,
        default=magictime / NAME,
        help="eval.pth or its folder (default: MagicTime/eval.pth)",
    )
    parser.add_argument(
        "--save_dir",
        type=Path,
        default=magictime / "pretrained",
        help="default: MagicTime/pretrained",
    )
    parser.add_argument(
        "--step_num",
        default="all",
        help="denoising steps, from 0: 0, 0-49, 0,10 or all (default: all)",
    )
    parser.add_argument(
        "--gpu_num", type=int, default=0, help="CUDA device, -1 for the CPU (default: 0)"
    )
    parser.add_argument(
        "--config",
        default=DEFAULT_CONFIG,
        help="settings (default: train_mae.yaml beside this script)",
    )
    parser.add_argument(
        "--size", choices=SIZES, help="the network (default: the config's, else base)"
    )
    parser.add_argument("--base_model", help="folder or hub name of VideoMAE for size base")
    parser.add_argument("--epoch", type=int)
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument(
        "--mask", type=float, help="share of the patches that are hidden (default: 0.75)"
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="bf16: mixed, for GPUs (default: float32)"
    )
    return parser


def work(args):
    from lvd.data.identity import need_same_labels
    from lvd.training.pretrain import PretrainRun
    from lvd.training.recipes import run_settings
    from train_mae import clip_source

    settings = run_settings("pretrain", args.config, args)
    eval_path = split_path(args.eval_dir)
    split = load_split(eval_path)
    device = pick_device(args.gpu_num)
    source = clip_source(args, device, labelled=False)
    need_same_labels(eval_path, split, source)
    steps = parse_numbers(args.step_num, source.steps, "--step_num")
    source.need_steps(steps)
    run = PretrainRun(source, split, settings, steps, sha256(eval_path), args.save_dir, device)
    bar = progress(run, "pre-training", unit="batch", total=run.total, initial=run.done)
    for loss in bar:
        bar.set_postfix_str(f"loss {loss:.3f}")
    summary(
        "encoder pre-trained",
        {
            "size": settings["size"],
            "representation": source.representation,
            "clips": f"{len(run.rows.videos)} videos x {len(steps)} steps, none held out",
            "reconstruction error": (
                f"{run.final['train_loss']:.3f} (mean square, patches of unit variance)"
            ),
        },
        run.written,
    )


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
