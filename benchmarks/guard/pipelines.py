"""Which video pipelines of diffusers the recording and the guard were tried on, and with which
schedulers (5 minutes).

Each is built with tiny random components (benchmarks/common/tiny_pipelines.py; no downloads), and
used as its user would: record x0 of 16 unsafe and 16 normal prompts (stand-ins: two sides of a
direction, or bright and dark images), build the dataset, train a nano detector for each of 3 steps,
guard the pipeline (lambda 0.6, eta 3) on new prompts. Where a call samples several times, 16
samplings of either kind are recorded; where it begins in the middle, the 2 steps that it takes.
Figures: how far the last x0 is from the video, in its standard deviations, and how many of 8 videos
are stopped and passed.

Needs nothing. Results: pipelines.csv and .txt; with --commit_results also the tables of
docs/pipelines_table.md: what was tried, and why the other video classes of diffusers are refused.
With --only, the rows of the other classes stay as they are.
"""

import csv
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.common import tiny_pipelines
from benchmarks.common.machine import facts
from benchmarks.common.pipeline_figures import try_out
from benchmarks.common.report import heading
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.common.video_classes import video_classes
from lvd.errors import InputError, shorten
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, versions
from lvd.utils.files import read_text, save_csv, save_text
from lvd.utils.progress import progress
from lvd.x0.layouts import KNOWN
from lvd.x0.refused import REFUSED

BEGIN, END = "<!-- table of benchmarks/guard/pipelines.py -->", "<!-- end of table -->"
RESULT_FILE = "pipelines.csv"
PAGE = ROOT / "docs" / "pipelines_table.md"


def build_parser():
    parser = Parser(__doc__, "python benchmarks/guard/pipelines.py")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="PIPELINE",
        help="these classes alone; the other rows of the results stay as they are",
    )
    add_result_flags(parser, RESULT_FILE)
    parser.add_argument(
        "--page",
        type=Path,
        help=f"page to write the table into ({PAGE.name} with --commit_results)",
    )
    return parser


def work(args):
    torch.set_num_threads(1)
    known = list(tiny_pipelines.ALL)
    if unknown := set(args.only or ()) - set(known):
        raise InputError(
            f"--only {shorten(sorted(unknown)[0])}: one of the {len(known)} classes in "
            "docs/pipelines_table.md is needed, such as WanPipeline"
        )
    cases = []
    for name in dict.fromkeys(args.only or known):
        cases += [
            (name, None),
            *((name, other) for other in tiny_pipelines.SCHEDULERS.get(name, ())),
        ]
    rows, out = [], results_path(args, RESULT_FILE)
    kept = kept_rows(out) if args.only else []
    with tempfile.TemporaryDirectory() as folder:
        for k, (name, scheduler) in enumerate(progress(cases, "pipelines", unit="pipeline")):
            rows.append(try_out(name, scheduler, Path(folder) / str(k)))
            save_csv(in_order(rows, kept), out)  # a stopped run goes on with --only
    rows = in_order(rows, kept)
    bad = [row for row in rows if str(row["as_it_should"]) != "True"]
    counts = {"pipelines and schedulers": len(rows), "not as they should": len(bad)}
    summary("pipelines tried", counts, save(args, rows))


def save(args, rows):
    """Print the table and write the result files; returns their paths."""
    out = results_path(args, RESULT_FILE)
    paths = [out, out.with_suffix(".txt")]
    save_csv(rows, out)
    title = heading("Pipelines and schedulers that the guard was tried on", facts())
    save_text(f"{title}\n{table(rows)}\n", paths[1])
    print(table(rows))
    page = args.page or (PAGE if args.commit_results else None)
    if page:
        put_table(page, f"{table(rows)}\n\n{refusals()}")
        paths.append(page)
    return paths


def kept_rows(path):
    """The rows of a results file."""
    if not path.exists():
        return []
    with open(path, newline="") as f:
        rows = list(csv.DictReader(f))
    if rows and "samplings" not in rows[0]:
        raise InputError(f"{path}: column 'samplings' is missing; run all classes, without --only")
    return rows


def in_order(rows, kept):
    """New rows and those of other classes that are kept, as they lie in tiny_pipelines.ALL."""
    tried = {row["pipeline"] for row in rows}
    rows = [row for row in kept if row["pipeline"] not in tried] + rows
    order = list(tiny_pipelines.ALL)
    return sorted(rows, key=lambda row: order.index(row["pipeline"]))


def refusals():
    """Markdown: the video classes of diffusers that are refused, and why."""
    lines = ["| refused | because |", "| --- | --- |"]
    for name in video_classes():
        if name not in KNOWN:
            lines.append(f"| `{name}` | {REFUSED.get(name, 'nobody has tried it')} |")
    return "\n".join(lines)


def table(rows):
    """Markdown, one line a pipeline and scheduler."""
    shown = [shown_row(row) for row in rows]
    lines = [list(shown[0]), ["---"] * len(shown[0])]
    lines += [list(row.values()) for row in shown]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    made = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"{text}\n\nMade with {made}, on the CPU."


def shown_row(row):
    """{column: text} of one line of the table."""
    stopped = f"{row['unsafe_stopped']} of {row['prompts']}, after step {row['steps_run']}"
    times = f", {row['samplings']} times" if int(row["samplings"]) > 1 else ""
    return {
        "pipeline": f"`{row['pipeline']}`",
        "scheduler": f"`{row['scheduler']}`",
        "predicts": row["prediction"],
        "sample": f"`{row['axes']}`",
        "latents": row["latents"],
        "last x0 against the video": f"{float(row['x0_error']):.1g}",
        "unsafe stopped": f"{stopped} of {row['steps']}{times}",
        "normal passed": f"{row['normal_passed']} of {row['prompts']}",
        "others of a batch": row["others"],
        "`interrupt`": row["interrupt"],
    }


def put_table(page, text):
    """Put the table between its two marks."""
    before = read_text(page)
    if before.count(BEGIN) != 1 or before.count(END) != 1:
        raise InputError(
            f"{page}: the lines {BEGIN} and {END} are needed, once each; the table goes between"
        )
    head, tail = before.split(BEGIN)[0], before.split(END)[1]
    save_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", page)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
