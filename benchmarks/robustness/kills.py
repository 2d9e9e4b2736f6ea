"""Stop every script at any file operation, run it again, and compare with a run that was not
stopped.

Also: a limit of the files' size, a small disk (where this process may mount one), two processes of
the same command at once, and sampling by two processes of which one is killed. Nothing may differ:
no byte, or no value in files that tell how long they took; no partial file may be left; what goes
wrong is one line. Exit status 1 where something is not so.
"""

import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from benchmarks.common.flags import chosen, need_positive
from benchmarks.common.machine import facts
from benchmarks.common.report import heading
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.robustness import kinds
from benchmarks.robustness.result_file import write_section
from benchmarks.robustness.trials import copy_world, differences, faults_of, files_below, run
from benchmarks.robustness.world import CASES, with_needs, write_inputs
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command
from lvd.utils.progress import progress

RESULT_FILE = "robustness.txt"
BLOCK = 4096


def build_parser():
    parser = Parser(__doc__, "python benchmarks/robustness/kills.py --trials 252 --launched 6")
    parser.add_argument("--trials", type=int, default=252, help="(default: 252)")
    parser.add_argument(
        "--launched", type=int, default=6, help="trials with accelerate launch (default: 6)"
    )
    parser.add_argument("--seed", type=int, default=2024, help="of the trials (default: 2024)")
    parser.add_argument(
        "--cases", default="all", help=f"some of {', '.join(c.name for c in CASES)} (default: all)"
    )
    parser.add_argument("--kinds", default="all", help=f"some of {', '.join(kinds.KINDS)}")
    parser.add_argument("--work", type=Path, help="folder of the trials (default: a temporary one)")
    add_result_flags(parser, RESULT_FILE, "text of the counts")
    return parser


class Reference:
    """An unbroken run of a command: the world before it and after it."""

    def __init__(self, case, folder, place):
        self.case, self.before, self.after = case, place / "before", place / "after"
        copy_world(folder, self.before)
        ended = run(case, folder)
        if faults := faults_of(ended, {0}):
            raise InputError(f"{case.name}: fails without being disturbed: {faults[0]}")
        self.operations = ended.operations
        copy_world(folder, self.after)

    def written_sizes(self):
        """Return the bytes of each file that the command writes."""
        new = files_below(self.after) - files_below(self.before)
        return [(self.after / name).stat().st_size for name in new]

    def bytes_written(self):
        """Return about how many bytes of disk the command takes."""
        return sum(-(-size // BLOCK) * BLOCK for size in self.written_sizes())

    def finish(self, folder):
        """Run the command to its end, and compare: see `differences`."""
        ended = run(self.case, folder)
        faults, same_bytes, same_values = differences(folder, self.after)
        return faults_of(ended, {0}) + faults, same_bytes, same_values


class Campaign:
    """All trials, and what came of them."""

    def __init__(self, args, work):
        self.args, self.folder, self.work = args, work / "run", work
        self.counts = defaultdict(Counter)  # kind → what → how often
        self.faults = []
        self.references = {}
        self.folder.mkdir(parents=True)
        self.trials = self._plan()
        self.only_values = set()  # files that had other bytes than an unbroken run's

    def prepare(self):
        """Make the references, one after the other: each goes on with what the last one made."""
        write_inputs(self.folder)
        cases = with_needs([name for _, name in self.trials])
        for number, case in enumerate(progress(cases, "unbroken runs", "command")):
            place = self.work / str(number)
            self.references[case.name] = Reference(case, self.folder, place)

    def _plan(self):
        """Return [(kind, case name)], the kinds and the commands in turn."""
        wanted = chosen(self.args.kinds, kinds.KINDS, "--kinds")
        if not kinds.SmallDisk.works(self.folder) and kinds.SMALL_DISK in wanted:
            wanted.remove(kinds.SMALL_DISK)
            print("small disk: left out, this process may not mount one")
        names = chosen(self.args.cases, [case.name for case in CASES], "--cases")
        pairs = [(kind, name) for name in names for kind in wanted]
        planned = [pairs[number % len(pairs)] for number in range(self.args.trials)]
        return planned + [(kinds.LAUNCHED, "sample")] * self.args.launched

    def run(self):
        for number, (kind, name) in enumerate(progress(self.trials, "trials", "trial")):
            self._try(number, kind, name)

    def _try(self, number, kind, name):
        reference, draw = self.references[name], random.Random(f"{self.args.seed}/{number}")
        copy_world(reference.before, self.folder)
        faults, stopped, finished = kinds.disturb(kind, reference, self.folder, draw)
        more, same_bytes, same_values = finished
        faults = faults + more
        self.counts[kind].update(
            {
                "trials": 1,
                "stopped": stopped,
                "with faults": bool(faults),
                "partial files left": sum("partial" in fault for fault in faults),
                "files of the same bytes": same_bytes,
                "of the same values": len(same_values),
            }
        )
        self.only_values |= {f"{name}: {file}" for file in same_values}
        for fault in faults:
            self.faults.append(f"trial {number}, {kind}, {name}: {fault}")
            print(self.faults[-1], file=sys.stderr, flush=True)

    def text(self):
        """Return the table of counts, and the faults."""
        columns = list(next(iter(self.counts.values())))
        lines = [f"  {'':28}" + "".join(f"{name:>25}" for name in columns)]
        total = Counter()
        for kind, counts in self.counts.items():
            lines.append(f"  {kind:28}" + "".join(f"{counts[name]:25}" for name in columns))
            total.update(counts)
        lines.append(f"  {'all':28}" + "".join(f"{total[name]:25}" for name in columns))
        return "\n".join([*lines, *(f"  {fault}" for fault in self.faults)])


def work(args):
    need_positive(args, "trials")
    began, known = time.monotonic(), facts()
    place = args.work or Path(tempfile.mkdtemp(prefix="kills"))
    campaign = Campaign(args, place)
    try:
        campaign.prepare()
        campaign.run()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    known |= {"seed": args.seed, "minutes": f"{(time.monotonic() - began) / 60:.0f}"}
    title = "Scripts that are stopped and run again, compared with unbroken runs"
    text = heading(title, known) + "\n" + campaign.text() + "\n"
    print(text)
    path = results_path(args, RESULT_FILE)
    write_section(path, "kills", text)
    print(f"wrote {path}")
    for name in sorted(campaign.only_values):
        print(f"equal in values only: {name}")
    if campaign.faults:
        raise SystemExit(1)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
