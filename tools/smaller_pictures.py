"""Give each PNG of folders a palette of 256 colours: a third of the bytes, nearly the same picture.

For pictures that git keeps. One that would not become smaller is left alone.
"""

import io
import sys
from pathlib import Path

from PIL import Image

from lvd.errors import InputError, plural
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.partials import atomic
from lvd.utils.progress import progress

COLOURS = 256


def build_parser():
    parser = Parser(__doc__, "python tools/smaller_pictures.py docs/results docs/study")
    parser.add_argument("folders", type=Path, nargs="+", help="folders of pictures")
    return parser


def work(args):
    pictures = []
    for folder in args.folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        pictures += sorted(folder.glob("*.png"))
    before = sum(path.stat().st_size for path in pictures)
    for path in progress(pictures, "pictures", unit="picture"):
        make_smaller(path)
    after = sum(path.stat().st_size for path in pictures)
    facts = {"size": f"{plural(len(pictures), 'picture')}, {before:,} bytes before, {after:,} now"}
    summary("pictures made smaller", facts, args.folders)


def make_smaller(path):
    """Write a PNG again with a palette, where that is smaller.

    Args:
        path: of the picture.

    Raises:
        InputError: it is no picture.
    """
    try:
        picture = Image.open(path).convert("RGB")
    except OSError as error:
        raise InputError(f"{path}: not a PNG that can be read") from error
    method, none = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    smaller = io.BytesIO()
    picture.quantize(COLOURS, method=method, kmeans=3, dither=none).save(
        smaller, "PNG", optimize=True
    )
    if len(smaller.getvalue()) < path.stat().st_size:
        with atomic(path) as partial:
            partial.write_bytes(smaller.getvalue())


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
