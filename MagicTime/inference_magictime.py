"""Sample videos from prompts and record the predicted x0 of every denoising step.

Writes {save_path}/videos/0000.mp4 ..., pred_x0.pth [N, S, C, F, h, w] with pred_x0.json, and config.yaml. The same
command goes on where it was stopped. Paths in the YAML are looked up from the current folder, MagicTime/ and the
repository root; a relative save_path in the YAML lies under MagicTime/, --save-path under the current folder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lvd.command import Parser, run_command, summary  # noqa: E402


def build_parser():
    parser = Parser(__doc__, "python MagicTime/inference_magictime.py --config sample_configs/Tiny.yaml --limit 8")
    parser.add_argument("--config", required=True, help="sampling YAML")
    parser.add_argument("--file_path", "--file-path", help="text file, one prompt a line (overrides the YAML)")
    parser.add_argument("--save-path", "--save_path", dest="save_path", help="output folder (overrides the YAML)")
    parser.add_argument("--batch_size", type=int, help="prompts sampled together (overrides the YAML)")
    parser.add_argument("--seed", type=int, help="one seed instead of the YAML's (with seed_per_prompt: of the first prompt)")
    parser.add_argument("--gpu_num", type=int, default=0, help="CUDA device; -1: CPU (default: 0)")
    parser.add_argument("--limit", type=int, help="sample only the first LIMIT prompts now")
    parser.add_argument("--filmstrips", type=int, default=0, metavar="N",
                        help="also draw x0 at six steps beside the final clip, for the first N prompts")
    return parser


def work(args):
    from lvd.errors import InputError
    from MagicTime.utils.config import read_config
    from MagicTime.utils.run import Run

    for flag in ("limit", "filmstrips"):
        if getattr(args, flag) is not None and getattr(args, flag) < (flag == "limit"):
            raise InputError(f"--{flag} {getattr(args, flag)}: too small")
    flags = {key: getattr(args, key) for key in ("file_path", "batch_size", "seed") if getattr(args, key) is not None}
    run = Run(read_config(args.config, flags), args.save_path, args.gpu_num)
    made = run.sample(args.limit)
    strips = run.filmstrips(args.filmstrips) if args.filmstrips else []
    summary("sampled", {"videos": f"{made} new, {run.count_done()} of {len(run.prompts)} prompts done",
                        "device": run.device, "x0": run.describe_x0()}, [*run.outputs(), *strips])


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
