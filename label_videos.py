"""Label videos: from the videos of a recording, by raters, to the label file.

  export  writes what raters need: tasks and a labelling page for Label Studio, sheets for a
          spreadsheet, instructions, and how to start the server.
  upload  makes the projects in a running Label Studio.
  import  makes label.csv of the ratings: the majority by category, and how much raters agree.

docs/labels.md goes all the way.
"""

import sys
from pathlib import Path

from lvd.utils.cli import Parser, run_command

EXPORT = """Write what raters need to label the videos of a recording.

Videos are shown in an order drawn by --seed. With --raters N there are N lists, each video in
--ratings_per_video of them, all about equally long. The same command again changes nothing, and
sheets that are filled in, and instructions that were changed, stay."""
UPLOAD = """Make a project in a running Label Studio for each list of an export.

The token comes from the environment variable LABEL_STUDIO_TOKEN. A project that is there already
under the same title is left as it is."""
IMPORT = """Make a label file of ratings.

Files: Label Studio's exports (JSON, JSON-MIN, CSV), or tables (.csv, .xlsx) or JSON lines (.jsonl)
of video, rater, categories. A video gets a category when more than half of those who judged it
chose it. "cannot tell" is no judgement. Videos are told by their names, not by their order."""


def build_parser():
    parser = Parser(
        __doc__,
        "python label_videos.py export --recording MagicTime/outputs/Tiny/unsafe --categories "
        "warped,strobing --out labelling",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="export|upload|import")
    _add_export(commands)
    _add_upload(commands)
    _add_import(commands)
    return parser


def _add_export(commands):
    parser = commands.add_parser(
        "export",
        description=EXPORT,
        example="python label_videos.py export --recording MagicTime/outputs/Tiny/unsafe "
        "--categories warped,strobing,striped,bursting,banner --raters 10 --out labelling",
    )
    _add_recording(parser)
    parser.add_argument(
        "--categories", required=True, help="names, with commas between, as in the label file"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--raters", type=int, default=1, help="a list for each of them (1)")
    parser.add_argument(
        "--ratings_per_video",
        type=int,
        help="raters that see a video (3, or all if they are fewer)",
    )
    parser.add_argument(
        "--only", type=Path, help="a table of videos: unlabelled.csv or doubtful.csv of an import"
    )
    parser.add_argument(
        "--show_prompt", action="store_true", help="show the prompt to raters, which biases them"
    )
    parser.add_argument(
        "--seconds", type=float, default=15, help="a rating takes, to say how long it takes (15)"
    )
    parser.add_argument("--seed", type=int, default=2024, help="of the lists and orders (2024)")


def _add_upload(commands):
    parser = commands.add_parser(
        "upload",
        description=UPLOAD,
        example="LABEL_STUDIO_TOKEN=... python label_videos.py upload --labelling labelling",
    )
    parser.add_argument("--labelling", type=Path, required=True, help="folder of an export")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8080", help="of the server (http://127.0.0.1:8080)"
    )
    parser.add_argument("--title", default="videos", help="of the projects, before their numbers")


def _add_import(commands):
    parser = commands.add_parser(
        "import",
        description=IMPORT,
        example="python label_videos.py import project-1.json --recording "
        "MagicTime/outputs/Tiny/unsafe --categories warped,strobing --out label.csv",
    )
    parser.add_argument("ratings", type=Path, nargs="+", help="files of ratings")
    _add_recording(parser)
    parser.add_argument(
        "--categories",
        help="names, in the order of the label file's columns (default: those that raters chose, "
        "by the alphabet)",
    )
    parser.add_argument("--out", type=Path, required=True, help="label file to write")
    parser.add_argument(
        "--minimum_raters", type=int, default=1, help="judgements that a video needs (1)"
    )
    parser.add_argument(
        "--twice",
        choices=("refuse", "last"),
        default="refuse",
        help="what counts where a rater has rated a video twice (default: nothing is written)",
    )
    parser.add_argument(
        "--raters_from_files",
        action="store_true",
        help="each file is of one rater, named as the file",
    )


def _add_recording(parser):
    parser.add_argument(
        "--recording", type=Path, required=True, help="its folder: pred_x0.json and videos/"
    )


def work(args):
    if args.command == "export":
        from lvd_labels.export import export as run
    elif args.command == "upload":
        from lvd_labels.upload import upload as run
    else:
        from lvd_labels.import_ratings import import_ratings as run
    run(args)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
