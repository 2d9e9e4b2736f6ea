"""What every case must do, and how a case is run: bounded in time and memory.

A script ends with status 0 and the right result, or with status 2 and one line on stderr that is
under 300 characters and names the culprit. All else is a fault: an exception that comes out, a
hang, another status, several lines, a line that does not say where to look.
"""

import contextlib
import io
import os
import re
import resource
import signal
import traceback
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from lvd.errors import InputError

SECONDS = 60  # after which a case counts as a hang; the slowest good one takes 2 on an idle core
MEMORY = 3 << 30  # bytes of address space that a case may take besides what the process has
LONGEST = 300  # characters of a message
PROGRESS = re.compile(r"[\w -]+: \d+ of \d+")
TIMES = int(os.environ.get("LVD_FUZZ_CASES", "1"))  # how many times the usual number of cases


class Hang(BaseException):
    """A case took too long. No `except Exception` swallows it."""


@dataclass
class Outcome:
    """How a case ended: its status or the exception that came out, and what it printed."""

    status: int | None
    out: str
    err: str
    error: BaseException | None = None
    value: object = None


def run_script(script, words):
    """Run a script's main(words)."""
    return _bounded(lambda: (script.main(words), None))


def run_loader(load):
    """Run what a script calls to read a file: an InputError is what the script would print."""

    def status():
        try:
            return 0, load()
        except InputError as error:
            return 2, error

    outcome = _bounded(status)
    if outcome.status == 2:
        outcome.err = f"error: {outcome.value}\n"
    return outcome


def _bounded(work):
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            _limits(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            status, value = work()
    except (Exception, Hang) as error:
        return Outcome(None, out.getvalue(), err.getvalue(), error)
    except SystemExit as error:  # argparse's --help
        return Outcome(error.code or 0, out.getvalue(), err.getvalue())
    return Outcome(status, out.getvalue(), err.getvalue(), value=value)


@contextlib.contextmanager
def _limits():
    """An alarm, and a limit of memory above what the process takes now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, _too_long)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)  # again, should something swallow it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _too_long(*_):
    raise Hang(f"more than {SECONDS} s")


def fault(outcome, names=()):
    """Say what is wrong with an outcome, None if nothing is.

    A status of 0 is right as far as can be told here: the caller looks at the result.

    Args:
        outcome: Outcome.
        names: [(text, ...)]; of each tuple one text must stand in the message.
    """
    if outcome.error is not None:
        return _where(outcome.error)
    if "Traceback (most recent call last)" in outcome.err:
        return f"a traceback on stderr: {outcome.err.strip().splitlines()[-1][:160]}"
    if outcome.status == 0:
        return None
    if outcome.status != 2:
        return f"exit status {outcome.status}"
    lines = [line for line in re.split(r"[\r\n]+", outcome.err) if line.strip()]
    lines = [line for line in lines if not PROGRESS.match(line)]
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return f"{len(lines)} lines on stderr: {lines[:3]!r}"[:240]
    if len(lines[0]) >= LONGEST:
        return f"a message of {len(lines[0])} characters: {lines[0][:120]}..."
    for texts in names:
        if not any(text in lines[0] for text in texts):
            return f"the message names none of {', '.join(texts)}: {lines[0][:200]}"
    return None


def _where(error):
    """The last line of a traceback and the place in the repository that it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f for f in frames if "/site-packages/" not in f.filename and "/tests/" not in f.filename
    ]
    ours = [f for f in ours if "/lib/python" not in f.filename]
    place = ""
    if ours:
        last = ours[-1]
        place = f" at {'/'.join(last.filename.split('/')[-3:])}:{last.lineno} {last.name}"
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {text}{place}"


class Faults:
    """The faults of one kind of cases, grouped by what went wrong."""

    def __init__(self, kind):
        self.kind, self.count, self.cases = kind, 0, 0
        self.found = defaultdict(list)

    def add(self, case, what):
        """Note a case: `what` went wrong, or None."""
        self.cases += 1
        if what is not None:
            self.count += 1
            self.found[re.sub(r"\d+", "#", what)[:110]].append((case, what))

    def check(self, at_least):
        """Fail the test with all faults; also if fewer cases were run than planned."""
        self.report()
        lines = [f"{self.kind}: {self.count} of {self.cases} cases have a fault"]
        for cases in self.found.values():
            case, what = cases[0]
            lines.append(f"  {len(cases)} x {what}\n      case: {case}")
        assert not self.found, "\n".join(lines)
        assert self.cases >= at_least, f"{self.kind}: {self.cases} cases, {at_least} are planned"

    def counts(self):
        """The number of cases and of those with a fault, as the report has them."""
        return f"{self.cases} cases", f"{self.count} faults"

    def report(self):
        """Append the number of cases and the faults to the report."""
        lines = [(self.kind, *self.counts())]
        for cases in self.found.values():
            named = " | ".join(case for case, _ in cases[:40])
            lines.append((self.kind, f"{len(cases)} x", cases[0][1], named))
        append_to_report(lines)


def append_to_report(lines):
    """Append lines to the table that LVD_FUZZ_REPORT names, if it names one.

    Several processes may do so at once: all lines are written at once.

    Args:
        lines: [(cell, ...)]: (kind, cases, faults), or (kind, times, fault, examples).
    """
    path = os.environ.get("LVD_FUZZ_REPORT")
    if path:
        text = "".join("\t".join(" ".join(cell.split()) for cell in line) + "\n" for line in lines)
        with open(path, "ab", buffering=0) as file:
            file.write(text.encode(errors="replace"))
