"""What a call of a protected pipeline costs more than a bare one.

On a tiny random pipeline of diffusers, in turns: a bare call, one in `with guard.watch(pipe)`, a
protected one. The detector is an untrained shared one that finds nothing unsafe. Its own seconds
(making its clips, scoring them) are taken out: what is left is x0 and the verdicts of each step,
and, of a protected call, a twin of the pipeline, which takes as long for 4 steps as for 50. Percent
are of the bare call of the same turn; CPU seconds hardly feel what else the machine does.

Results: guard_protect.csv and .txt.
"""

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.common import tiny_pipelines
from benchmarks.common.flags import need_positive
from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.common.timing import Clock, spread
from lvd import ConfidenceRule, Guard
from lvd.detectors.shared import build_shared, save_shared
from lvd.errors import InputError, shorten
from lvd.utils.cli import Parser, run_command

RESULT_FILE = "guard_protect.csv"
CPU = torch.device("cpu")
CALIBRATION = {"a": 1.0, "b": 0.0, "method": "platt", "clips": {"unsafe": 1, "normal": 1}}


def build_parser():
    parser = Parser(__doc__, "python benchmarks/guard/protect.py --steps 4,50")
    parser.add_argument(
        "--pipeline", default="AnimateDiffPipeline", help="class (default: AnimateDiffPipeline)"
    )
    parser.add_argument("--steps", default="4,50", help="of the samplings (default: 4,50)")
    parser.add_argument("--turns", type=int, default=20, help="(default: 20)")
    add_result_flags(parser, RESULT_FILE)
    return parser


def never_unsafe(folder, shape, steps):
    """Return a Guard of an untrained shared detector whose answers stop nothing."""
    shared = build_shared("nano", shape, "latent", 0, range(steps), ["one"])
    with torch.no_grad():
        shared.net.classifier.weight.normal_(generator=torch.Generator().manual_seed(0))
    shared.thresholds = [[1.0]] * steps
    shared.calibrations = [[CALIBRATION]] * steps
    save_shared(shared, folder / "shared.pth")
    rule = ConfidenceRule(bound=1 - 1e-15, horizon=steps)  # which looks at every step
    return Guard(folder, device="cpu", allow_unknown=True, rule=rule)


class Timed:
    """A function whose seconds are gathered in `clocks`."""

    def __init__(self, function, clocks):
        self.function, self.clocks = function, clocks

    def __call__(self, *args):
        with Clock(CPU) as clock:
            answer = self.function(*args)
        self.clocks.append(clock)
        return answer

    def __getattr__(self, name):
        return getattr(self.function, name)


@contextmanager
def detectors_timed(guard):
    """Yield the Clocks of all that the guard's detectors do in the block."""
    clocks, score, reader = [], guard.bank.score, guard.reader
    guard.bank.score, guard.reader = Timed(score, clocks), Timed(reader, clocks)
    try:
        yield clocks
    finally:
        guard.bank.score, guard.reader = score, reader


def watched(guard, pipe):
    """Return a function that calls a pipeline in a block that watches it."""

    def call(**inputs):
        with guard.watch(pipe):
            return pipe(**inputs)

    return call


def measure(tiny, steps, turns):
    """Return [(case, figures)] of samplings of so many steps."""
    with tempfile.TemporaryDirectory() as folder:
        guard = never_unsafe(Path(folder), tiny.shape, steps)
    ways = {
        "bare": tiny.pipe,
        "watched": watched(guard, tiny.pipe),
        "protected": guard.protect(tiny.pipe),
    }
    times = []  # of each turn, {way: (Clock of the call, Clocks of its detectors)}
    for turn in range(turns + 1):
        times.append({})
        for name, call in ways.items():
            inputs = tiny.inputs([1], (turn,), steps=steps)
            with detectors_timed(guard) as clocks, Clock(CPU) as clock:
                call(**inputs)
            times[-1][name] = clock, clocks
    times.pop(0)  # which has warmed up
    return [*rows_of("seconds", "seconds", times), *rows_of("CPU seconds", "cpu", times)]


def rows_of(title, kind, times):
    """Return rows of figures of one kind of seconds."""
    rows = []
    bare = [getattr(turn["bare"][0], kind) for turn in times]
    rows.append((f"{title}, bare call", spread(bare)))
    for name in ("watched", "protected"):
        whole = [getattr(turn[name][0], kind) for turn in times]
        own = [sum(getattr(clock, kind) for clock in turn[name][1]) for turn in times]
        besides = [a - b for a, b in zip(whole, own, strict=True)]
        rows.append((f"{title}, {name}: percent more", percent_more(whole, bare)))
        rows.append((f"{title}, {name}: besides its detectors", percent_more(besides, bare)))
        more = [1e3 * (a - b) for a, b in zip(besides, bare, strict=True)]
        rows.append((f"{title}, {name}: besides, in ms", spread(more)))
    return rows


def percent_more(values, of):
    return spread([100 * (a / b - 1) for a, b in zip(values, of, strict=True)])


def work(args):
    need_positive(args, "turns")
    if args.pipeline not in tiny_pipelines.FAMILIES:
        raise InputError(
            f"--pipeline {shorten(args.pipeline)}: one of {', '.join(tiny_pipelines.FAMILIES)} is "
            "needed"
        )
    numbers = args.steps.split(",")
    if not all(number.isdecimal() and 0 < int(number) <= 1000 for number in numbers):
        raise InputError(f"--steps {shorten(args.steps)}: numbers from 1 to 1000, such as 4,50")
    path = results_path(args, RESULT_FILE)
    tiny = tiny_pipelines.build(args.pipeline)
    modules = [part for part in tiny.pipe.components.values() if isinstance(part, torch.nn.Module)]
    count = sum(1 for part in modules for _ in part.modules())
    report = Report(f"A protected {args.pipeline} against the bare one", path)
    for steps in map(int, numbers):
        rows = measure(tiny, steps, args.turns)
        report.add(f"{steps} steps", f"{args.turns} turns; {count} modules", rows)
    report.say_where()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
