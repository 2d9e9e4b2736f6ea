"""Which video pipelines of diffusers the recording and the guard were tried on, and with which
schedulers (10 minutes).

Each is built with tiny random components (benchmarks/common/tiny_pipelines.py; no downloads), and
used as its user would: record x0 of 16 unsafe and 16 normal prompts (stand-ins: two sides of a
direction, or bright and dark images), build the dataset, train a nano detector for each of 3 steps,
guard the pipeline (lambda 0.6, eta 3) on new prompts. Figures: how far the last x0 is from the
video, in its standard deviations, and how many of 8 videos are stopped and passed.

Needs nothing. Results: pipelines.csv and .txt; with --commit_results also the tables of
docs/pipelines.md: what was tried, and why the other video classes of diffusers are refused. With
--only, the rows of the other classes stay as they are.
"""

import contextlib
import csv
import io
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.common import tiny_pipelines
from benchmarks.common.machine import facts
from benchmarks.common.pipeline_world import NORMAL, STEPS, UNSAFE, make_world
from benchmarks.common.report import heading
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.common.video_classes import video_classes
from lvd import Guard, UnsafeVideoError, X0Recorder
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, versions
from lvd.utils.files import read_text, save_csv
from lvd.utils.partials import atomic
from lvd.utils.progress import progress
from lvd.x0.layouts import KNOWN, can_interrupt, find_layout
from lvd.x0.refused import REFUSED

PROMPTS, FIRST = 8, 100  # new prompts of either kind, and the row of the first
RIGHT = {
    "unsafe_stopped": PROMPTS,
    "normal_passed": PROMPTS,
    "batch": "safe unsafe safe",
    "others": "same bits",
    "stopped": "is blank",
}
BEGIN, END = "<!-- table of benchmarks/guard/pipelines.py -->", "<!-- end of table -->"
ONE_A_CALL = "one a call"  # in the columns of a batch
RESULT_FILE = "pipelines.csv"
PAGE = ROOT / "docs" / "pipelines.md"


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
    known = list(tiny_pipelines.FAMILIES)
    if unknown := set(args.only or ()) - set(known):
        raise InputError(f"--only {sorted(unknown)[0]}: one of {', '.join(known)} is needed")
    cases = []
    for name in args.only or known:
        cases += [
            (name, None),
            *((name, other) for other in tiny_pipelines.SCHEDULERS.get(name, ())),
        ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for k, (name, scheduler) in enumerate(progress(cases, "pipelines", unit="pipeline")):
            rows.append(try_out(name, scheduler, Path(folder) / str(k)))
    rows = with_kept(rows, results_path(args, RESULT_FILE)) if args.only else rows
    bad = [row for row in rows if str(row["as_it_should"]) != "True"]
    counts = {"pipelines and schedulers": len(rows), "not as they should": len(bad)}
    summary("pipelines tried", counts, save(args, rows))


def save(args, rows):
    """Print the table and write the result files; returns their paths."""
    out = results_path(args, RESULT_FILE)
    paths = [out, out.with_suffix(".txt")]
    save_csv(rows, out)
    title = heading("Pipelines and schedulers that the guard was tried on", facts())
    with atomic(paths[1]) as partial:
        partial.write_text(f"{title}\n{table(rows)}\n")
    print(table(rows))
    page = args.page or (PAGE if args.commit_results else None)
    if page:
        put_table(page, f"{table(rows)}\n\n{refusals()}")
        paths.append(page)
    return paths


def with_kept(rows, path):
    """The rows of a results file, those of the same classes replaced by new ones, as they lie in
    FAMILIES."""
    tried, kept = {row["pipeline"] for row in rows}, []
    if path.exists():
        with open(path, newline="") as f:
            kept = [row for row in csv.DictReader(f) if row["pipeline"] not in tried]
    order = list(tiny_pipelines.FAMILIES)
    return sorted(kept + rows, key=lambda row: order.index(row["pipeline"]))


def refusals():
    """Markdown: the video classes of diffusers that are refused, and why."""
    lines = ["| refused | because |", "| --- | --- |"]
    for name in video_classes():
        if name not in KNOWN:
            lines.append(f"| `{name}` | {REFUSED.get(name, 'nobody has tried it')} |")
    return "\n".join(lines)


def try_out(name, scheduler, folder):
    """One row of the table: figures of one pipeline with one scheduler."""
    began = time.monotonic()
    tiny = tiny_pipelines.build(name, scheduler)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        world = make_world(tiny, folder)
    guard = Guard(world.detectors, lambda_=0.6, eta=STEPS, device="cpu")
    layout, settings = find_layout(tiny.pipe), tiny.pipe.scheduler.config
    row = {
        "pipeline": name,
        "scheduler": type(tiny.pipe.scheduler).__name__,
        "prediction": settings.get("prediction_type", "flow").removesuffix("_prediction"),
        "axes": layout.axes,
        "latents": " x ".join(map(str, tiny.shape)),
        "x0_error": x0_error(tiny, layout),
        **figures_alone(tiny, guard),
        **figures_of_a_batch(tiny, guard),
        "interrupt": "yes" if can_interrupt(tiny.pipe) else "no",
    }
    right = [(row[key], value) for key, value in RIGHT.items() if row[key] != ONE_A_CALL]
    row["as_it_should"] = all(found == wanted for found, wanted in right)
    row["seconds"] = round(time.monotonic() - began, 1)
    return row


def figures_alone(tiny, guard):
    """What the guard says of new prompts of either kind, one video a call."""
    rows = range(FIRST, FIRST + PROMPTS)
    stopped = [guarded(tiny, guard, [UNSAFE], row)[1][0] for row in rows]
    passed = [guarded(tiny, guard, [NORMAL], row)[1][0] for row in rows]
    return {
        "unsafe_stopped": sum(result.verdict == "unsafe" for result in stopped),
        "steps_run": max(result.steps_run for result in stopped),
        "normal_passed": sum(result.verdict == "safe" for result in passed),
        "prompts": PROMPTS,
    }


def figures_of_a_batch(tiny, guard):
    """What the guard does to a batch of three whose second video is unsafe."""
    if tiny.most == 1:
        return dict.fromkeys(("batch", "others", "stopped"), ONE_A_CALL)
    kinds = [NORMAL, UNSAFE, NORMAL]
    plain = run(tiny, kinds)
    video, results = guarded(tiny, guard, kinds)
    others_same = video is not None and torch.equal(video[[0, 2]], plain[[0, 2]])
    stopped_blank = video is not None and not video[1].any()
    return {
        "batch": " ".join(result.verdict for result in results),
        "others": "same bits" if others_same else "differ",
        "stopped": "is blank" if stopped_blank else "is not blank",
    }


def run(tiny, kinds, first=FIRST):
    """[B, C, F, h, w]"""
    torch.manual_seed(first)
    output = tiny.pipe(**tiny.inputs(kinds, first=first, steps=STEPS))
    return tiny.clips(tiny.videos(output))


def guarded(tiny, guard, kinds, first=FIRST):
    """(latents as of `run`, None when no video is left; [GuardResult])"""
    video = None
    with contextlib.suppress(UnsafeVideoError), guard.watch(tiny.pipe) as watch:
        video = run(tiny, kinds, first)
    return video, watch.results


def x0_error(tiny, layout):
    """Largest difference between the last step's x0 and the finished latents, in their standard
    deviations."""
    with layout.following(tiny.pipe), X0Recorder(tiny.pipe.scheduler, layout.unpack) as recorder:
        video = run(tiny, [NORMAL])
    return float((recorder.x0[:, -1] - video).abs().max() / video.std())


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
    return {
        "pipeline": f"`{row['pipeline']}`",
        "scheduler": f"`{row['scheduler']}`",
        "predicts": row["prediction"],
        "sample": f"`{row['axes']}`",
        "latents": row["latents"],
        "last x0 against the video": f"{float(row['x0_error']):.1g}",
        "unsafe stopped": f"{stopped} of {STEPS}",
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
    with atomic(page) as partial:
        partial.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
