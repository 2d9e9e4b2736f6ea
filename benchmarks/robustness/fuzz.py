"""Damage every kind of file, give every flag odd values, and do odd things to a guarded pipeline:
how many cases there were, and in how many a script did not end as it must.

The cases are those of tests/fuzz, which says what a fault is. They are seeded: two runs give the
same counts. Exit status 1 where a case has a fault.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common.flags import chosen, need_positive
from benchmarks.common.machine import facts
from benchmarks.common.report import heading
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.robustness.result_file import write_section
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command
from lvd.utils.config import ROOT

RESULT_FILE = "robustness.txt"
TITLE = "Damaged files, odd flags and odd situations of the guard"
PARTS = ("settings", "recordings", "detectors", "results", "texts", "flags", "guard")


def build_parser():
    parser = Parser(__doc__, "python benchmarks/robustness/fuzz.py --cases 20")
    parser.add_argument(
        "--cases",
        type=int,
        default=1,
        metavar="TIMES",
        help="times the number of cases in the test suite (default: 1)",
    )
    parser.add_argument(
        "--processes", type=int, default=2, help="that run at the same time (default: 2)"
    )
    parser.add_argument("--parts", default="all", help=f"some of {', '.join(PARTS)} (default: all)")
    add_result_flags(parser, RESULT_FILE, "text of the counts")
    return parser


def run_cases(parts, times, processes, report):
    """Run the tests of some parts; what they print goes to the screen.

    Args:
        parts: some of PARTS.
        times: the usual number of cases.
        processes: how many run at the same time.
        report: path of the table that the tests write.

    Returns:
        The exit status of pytest.
    """
    files = [f"tests/fuzz/test_fuzz_{part}.py" for part in parts]
    at_once = ["-n", str(processes), "--dist", "loadfile"] if processes > 1 else []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *at_once, *files]
    own = {"LVD_FUZZ_CASES": str(times), "LVD_FUZZ_REPORT": str(report), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **own}).returncode


def read_report(path):
    """Read the table that the tests write.

    Returns:
        ([(kind, cases, faults)], [text of a fault]), both in the order of their names.
    """
    counts, faults = [], []
    for line in path.read_text().splitlines() if path.exists() else []:
        kind, *cells = line.split("\t")
        if len(cells) == 2:
            cases, found = (int(cell.split()[0]) for cell in cells)
            counts.append((kind, cases, found))
        elif len(cells) == 3:
            times, what, examples = cells
            faults.append(f"{kind}: {times} {what} (such as {examples.split(' | ')[0]})")
    return sorted(counts), sorted(faults)


def counts_text(counts, faults):
    """Return the table of counts, and the faults."""
    lines = [f"  {'':50}{'cases':>10}{'with faults':>15}"]
    lines += [f"  {kind:50}{cases:10}{found:15}" for kind, cases, found in counts]
    # A situation of the guard stands in the line of each of its oddities, and in that of all.
    whole = [row for row in counts if not row[0].startswith("guard, ")]
    total, found = (sum(row[place] for row in whole) for place in (1, 2))
    lines.append(f"  {'all':50}{total:10}{found:15}")
    return "\n".join([*lines, *(f"  {fault}" for fault in faults)])


def work(args):
    need_positive(args, "cases", "processes")
    parts = chosen(args.parts, PARTS, "--parts")
    began, known = time.monotonic(), facts()
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        report = Path(folder) / "report.tsv"
        status = run_cases(parts, args.cases, args.processes, report)
        counts, faults = read_report(report)
    if not counts:
        raise InputError(f"tests/fuzz: no case was run (pytest ended with status {status})")
    known |= {
        "cases": f"{args.cases} times those of the test suite, of {', '.join(parts)}",
        "seconds": f"{time.monotonic() - began:.0f}, {args.processes} processes",
        "tests": "all passed" if status == 0 else f"some failed (pytest: status {status})",
    }
    text = heading(TITLE, known) + "\n" + counts_text(counts, faults) + "\n"
    print(text)
    path = results_path(args, RESULT_FILE)
    write_section(path, "fuzz", text)
    print(f"wrote {path}")
    if status != 0:
        raise SystemExit(1)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
