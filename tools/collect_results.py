"""Copy the tables and figures of a finished `bash reproduce.sh` into a folder, as in docs/results.

Files of the grid keep their names or end in _grid, those of the shared detector end in _shared;
what benchmarks/guard/reworded.sh found begins with reworded_. Files that are not there are named
in the summary. summary.txt is what tools/closing_report.py says of the run.
"""

import contextlib
import io
import shutil
import sys
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.files import save_text
from lvd.utils.partials import atomic
from tools import closing_report

SAME = ("grid.csv", "grid.txt", "grid.png", "per_step.csv", "per_step.png", "reliability.png")
SAME += (
    "score_metrics.png",
    "reliability.csv",
    "calibration.csv",
    "score_metrics.csv",
    "score_metrics.txt",
)
RULE = ("misses.csv", "frontier.csv", "frontier.txt", "frontier.png", "naming.txt")
RESULTS = {"grid": "results", "shared": "results_shared"}


def build_parser():
    parser = Parser(
        __doc__,
        "python tools/collect_results.py --home_dir MagicTime/outputs/TinyFull "
        "--reworded MagicTime/outputs/TinyFull/reworded --out docs/results",
    )
    parser.add_argument("--home_dir", type=Path, required=True, help="of reproduce.sh")
    parser.add_argument("--reworded", type=Path, help="folder of benchmarks/guard/reworded.sh")
    parser.add_argument("--out", type=Path, required=True, help="folder of the copies")
    return parser


def copies(home, reworded):
    """Return {name of a copy: path of the file} of all files that a finished run has."""
    wanted = {name: home / "results" / name for name in SAME}
    wanted |= {"metrics.csv": home / "detectors" / "metrics.csv", "steps.csv": home / "steps.csv"}
    for kind, results in RESULTS.items():
        wanted[f"rule_{kind}.txt"] = home / results / "rule_report.txt"
        for name in RULE:
            stem, suffix = name.split(".")
            wanted[f"{stem}_{kind}.{suffix}"] = home / results / name
        if reworded:
            wanted[f"reworded_{kind}.txt"] = reworded / results / "grid.txt"
            wanted[f"reworded_rule_{kind}.txt"] = reworded / results / "rule_report.txt"
    return wanted


def work(args):
    if not (args.home_dir / "results" / "results.pth").is_file():
        raise InputError(f"--home_dir {args.home_dir}: no votes here; bash reproduce.sh makes them")
    args.out.mkdir(parents=True, exist_ok=True)
    written, missing = [], []
    for name, path in copies(args.home_dir, args.reworded).items():
        if not path.is_file():
            missing.append(str(path))
            continue
        with atomic(args.out / name) as partial:
            shutil.copyfile(path, partial)
        written.append(args.out / name)
    told = io.StringIO()
    flags = ["--home_dir", str(args.home_dir), "--steps_csv", str(args.home_dir / "steps.csv")]
    with contextlib.redirect_stdout(told):
        if closing_report.main([*flags, "--filmstrips", str(args.home_dir)]):
            raise InputError(f"--home_dir {args.home_dir}: its results cannot be summed up")
    text = told.getvalue().split("Open these three:")[0]
    save_text(text, args.out / "summary.txt")
    facts = {"copied": len(written), "not there": ", ".join(missing) or "none"}
    summary("results collected", facts, [args.out])


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
