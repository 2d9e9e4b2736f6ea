"""Where a benchmark writes its figures: in a folder that git ignores, or, when told to, over the
committed ones."""

from pathlib import Path

from lvd.utils.config import ROOT

OUTPUTS = ROOT / "MagicTime" / "outputs" / "benchmarks"  # ignored by git
COMMITTED = ROOT / "docs" / "results"


def add_result_flags(parser, name, what="CSV of the figures, with a .txt beside it"):
    """Add `--out` and `--commit_results`, of which one may be given.

    Args:
        parser: the benchmark's Parser.
        name: of the result files, as the help shows it.
        what: what `--out` names.
    """
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--out", type=Path, help=f"{what} (default: MagicTime/outputs/benchmarks/{name})"
    )
    where.add_argument(
        "--commit_results",
        action="store_true",
        help=f"write to docs/results/{name} instead, over the committed figures",
    )


def results_folder(args):
    """The folder of the result files where `--out` names none."""
    return COMMITTED if args.commit_results else OUTPUTS


def results_path(args, name):
    """The path that `--out` names, else the file `name` in the folder of the results."""
    return args.out or results_folder(args) / name
