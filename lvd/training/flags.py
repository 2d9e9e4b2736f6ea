"""The flags that train_mae.py and pretrain_mae.py have in common."""

from pathlib import Path

from lvd.data.split import NAME
from lvd.detectors.videomae import SIZES
from lvd.training.recipes import DEFAULT_CONFIG, PRECISIONS
from lvd.utils.config import ROOT

MAGICTIME = ROOT / "MagicTime"


def add_common_flags(parser, save_dir):
    """Add the flags of every script that trains: clips, output, device and settings.

    save_dir: the default of --save_dir.
    """
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
        help="instead: a build_x0.yaml, to train straight from its recordings; build_x0.py is "
        "not needed",
    )
    parser.add_argument(
        "--eval_dir",
        type=Path,
        default=MAGICTIME / NAME,
        help="eval.pth or its folder (default: MagicTime/eval.pth)",
    )
    parser.add_argument(
        "--save_dir", type=Path, default=save_dir, help=f"default: MagicTime/{save_dir.name}"
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
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="bf16: mixed, for GPUs (default: float32)"
    )
    parser.add_overrides()
