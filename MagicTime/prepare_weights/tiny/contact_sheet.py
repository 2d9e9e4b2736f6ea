"""Draw videos of finished runs under their prompts, all frames side by side."""

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from lvd.errors import InputError, shorten
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.partials import atomic
from lvd.utils.video import read_mp4
from lvd.x0.file import open_x0_file

SIDE, GAP, TEXT = 64, 2, 14  # px

MOST = 1_000  # videos of a run, and columns


def build_parser():
    parser = Parser(
        __doc__,
        "python MagicTime/prepare_weights/tiny/contact_sheet.py --run_dir "
        "MagicTime/outputs/Tiny/unsafe MagicTime/outputs/Tiny/normal --count 24 --save_path "
        "docs/tiny_contact_sheet.png",
    )
    parser.add_argument(
        "--run_dir", nargs="+", required=True, help="output folders of inference_magictime.py"
    )
    parser.add_argument("--count", type=int, default=16, help="videos of each run, from the first")
    parser.add_argument("--columns", type=int, default=2)
    parser.add_argument("--save_path", required=True, help="PNG to write")
    return parser


def strip(frames, prompt):
    """Image of one video: its prompt, then its frames (uint8 [F, H, W, 3]) in a row."""
    image = Image.new("RGB", (len(frames) * (SIDE + GAP), SIDE + TEXT + 4), "white")
    ImageDraw.Draw(image).text((2, 0), prompt, fill="black")
    for k, frame in enumerate(frames):
        image.paste(Image.fromarray(frame).resize((SIDE, SIDE)), (k * (SIDE + GAP), TEXT))
    return image


def _prompt(x0, row):
    return x0.info.get(row, {}).get("prompt") or ""


def work(args):
    for flag in ("count", "columns"):
        value = getattr(args, flag)
        if not 1 <= value <= MOST:
            raise InputError(f"--{flag} {shorten(value)}: a number from 1 to {MOST} is needed")
    strips = []
    for folder in map(Path, args.run_dir):
        x0 = open_x0_file(folder / "pred_x0.pth")
        strips += [
            strip(read_mp4(folder / "videos" / f"{row:04d}.mp4"), _prompt(x0, row))
            for row in x0.rows[: args.count]
        ]
    if not strips:
        raise InputError(f"--run_dir {' '.join(args.run_dir)}: no video is recorded there yet")
    width, height = (max(side) for side in zip(*(s.size for s in strips)))
    rows = -(-len(strips) // args.columns)
    sheet = Image.new("RGB", (args.columns * (width + 8), rows * height), "white")
    for k, image in enumerate(strips):
        sheet.paste(image, (k // rows * (width + 8), k % rows * height))
    with atomic(args.save_path) as partial:
        sheet.save(partial)
    summary("contact sheet", {"videos": len(strips)}, [args.save_path])


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
