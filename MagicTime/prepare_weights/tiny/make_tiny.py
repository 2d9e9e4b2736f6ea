"""Make the tiny MagicTime that the repository ships: train its parts, export the real layouts.

Seeded and resumable: run it again after a kill and it goes on. About an hour and a half on two CPU
cores, best used by two processes: `torchrun --nproc_per_node 2
MagicTime/prepare_weights/tiny/make_tiny.py` (each draws half of every batch, so the number of
processes is part of what the weights depend on).
"""

import copy
import json
import os
import sys
from pathlib import Path

import torch

from lvd.errors import InputError, shorten
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, claim_output, versions

STEPS = {"vae": 3200, "image": 3000, "clip": 3000, "adapters": 600}

MOST_CLIPS = 1_000_000


def build_parser():
    parser = Parser(
        __doc__,
        "python MagicTime/prepare_weights/tiny/make_tiny.py --work_dir outputs/tiny_training",
    )
    parser.add_argument(
        "--work_dir",
        default=str(ROOT / "outputs" / "tiny_training"),
        help="checkpoints, loss curves",
    )
    parser.add_argument(
        "--save_dir",
        default=str(ROOT / "MagicTime" / "ckpts" / "Tiny"),
        help="where the weights go",
    )
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument(
        "--shorten",
        type=float,
        default=1.0,
        help="share of the training steps to run (0.01: a quick try)",
    )
    parser.add_argument("--clips", type=int, default=5000, help="training clips to draw")
    return parser


def check(args):
    """InputError for a flag that makes no world, or a work folder of other flags."""
    if not 0 < args.shorten <= 1:
        raise InputError(f"--shorten {args.shorten}: a share above 0 and up to 1 is needed")
    if not 0 <= args.seed < 2**63:
        raise InputError(f"--seed {shorten(args.seed)}: a whole number from 0 is needed")
    if not 16 <= args.clips <= MOST_CLIPS:
        raise InputError(
            f"--clips {shorten(args.clips)}: 16, one batch, to {MOST_CLIPS} are needed"
        )
    claim_output(args.work_dir, {key: getattr(args, key) for key in ("seed", "clips", "shorten")})


def work(args):
    check(args)
    from MagicTime.prepare_weights.tiny.export import export
    from MagicTime.prepare_weights.tiny.text import (
        load_tokenizer,
        make_text_encoder,
        make_tokenizer,
    )
    from MagicTime.prepare_weights.tiny.train_adapters import train_adapters
    from MagicTime.prepare_weights.tiny.train_unet import Clips, train_clips, train_images
    from MagicTime.prepare_weights.tiny.train_vae import train_vae
    from MagicTime.prepare_weights.tiny.training import barrier, processes

    if "RANK" in os.environ and not torch.distributed.is_initialized():  # started by torchrun
        torch.distributed.init_process_group("gloo")
    first = processes()[0] == 0
    out = Path(args.work_dir)
    out.mkdir(parents=True, exist_ok=True)
    steps = {stage: max(1, int(n * args.shorten)) for stage, n in STEPS.items()}
    vae = train_vae(out, steps["vae"], args.seed)
    parts = {
        "ordinary": (out / "clips.pt", vae, args.clips, args.seed, False),
        "growing": (out / "growing.pt", vae, max(16, args.clips // 8), args.seed, True),
    }
    if first:  # what the other processes then find
        make_tokenizer(out / "tokenizer", args.seed)
        for part in parts.values():
            Clips(*part)
    barrier()
    ordinary, growing = (Clips(*part) for part in parts.values())
    tokenizer = load_tokenizer(out / "tokenizer")

    image = train_images(
        out, ordinary, tokenizer, make_text_encoder(tokenizer, args.seed), steps["image"], args.seed
    )
    base = copy.deepcopy(image)
    clip = train_clips(out, ordinary, image, tokenizer, steps["clip"], args.seed)
    adapters = train_adapters(out, growing, ordinary, clip, steps["adapters"], args.seed)
    if not first:
        return
    export(
        save_dir=Path(args.save_dir),
        tokenizer_dir=out / "tokenizer",
        vae=vae,
        base=base,
        clip=clip,
        adapters=adapters,
    )
    provenance = {
        "made_by": "MagicTime/prepare_weights/tiny/make_tiny.py",
        "seed": args.seed,
        "steps": steps,
        "clips": args.clips,
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "processes": processes()[1],
    }
    (Path(args.save_dir) / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")
    summary("tiny MagicTime made", {"steps": steps, "seed": args.seed}, [args.save_dir])


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
