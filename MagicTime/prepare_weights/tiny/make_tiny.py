"""Make the tiny MagicTime that the repository ships: train every part and export it in the real layouts.

Seeded and resumable: run it again after a kill and it goes on. About two hours on two CPU cores.
"""

import copy
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from lvd.command import Parser, run_command, summary  # noqa: E402
from lvd.settings import ROOT, versions  # noqa: E402

STEPS = {"vae": 3200, "image": 3000, "clip": 3000, "adapters": 250}


def build_parser():
    parser = Parser(__doc__, "python MagicTime/prepare_weights/tiny/make_tiny.py --work_dir outputs/tiny_training")
    parser.add_argument("--work_dir", default=str(ROOT / "outputs" / "tiny_training"), help="checkpoints, loss curves")
    parser.add_argument("--save_dir", default=str(ROOT / "MagicTime" / "ckpts" / "Tiny"), help="where the weights go")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--shorten", type=float, default=1.0, help="share of the training steps to run (0.01: a quick try)")
    parser.add_argument("--clips", type=int, default=5000, help="training clips to draw")
    return parser


def work(args):
    from export import export
    from text import make_text_encoder, make_tokenizer
    from train_adapters import train_adapters
    from train_unet import Clips, train_clips, train_images
    from train_vae import train_vae

    out = Path(args.work_dir)
    out.mkdir(parents=True, exist_ok=True)
    steps = {stage: max(1, int(n * args.shorten)) for stage, n in STEPS.items()}
    vae = train_vae(out, steps["vae"], args.seed)
    vae.save_pretrained(out / "vae_final")
    ordinary = Clips(out / "clips.pt", vae, args.clips, args.seed, grows=False)
    growing = Clips(out / "growing.pt", vae, max(16, args.clips // 8), args.seed, grows=True)
    tokenizer = make_tokenizer(out / "tokenizer", args.seed)

    image = train_images(out, ordinary, tokenizer, make_text_encoder(tokenizer, args.seed), steps["image"], args.seed)
    base = copy.deepcopy(image)
    clip = train_clips(out, ordinary, image, tokenizer, steps["clip"], args.seed)
    adapters = train_adapters(out, growing, ordinary, clip, steps["adapters"], args.seed)
    export(save_dir=Path(args.save_dir), tokenizer_dir=out / "tokenizer", vae=vae, base=base, clip=clip, adapters=adapters)
    provenance = {"made_by": "MagicTime/prepare_weights/tiny/make_tiny.py", "seed": args.seed, "steps": steps,
                  "clips": args.clips, "versions": versions(), "threads": torch.get_num_threads()}
    (Path(args.save_dir) / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")
    summary("tiny MagicTime made", {"steps": steps, "seed": args.seed}, [args.save_dir])


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
