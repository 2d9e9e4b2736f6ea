"""What the recording benchmarks share: the machine, this process's memory, figures that are printed
and saved."""

import csv
import io
import os
import platform
import threading
from datetime import date
from importlib.metadata import version
from pathlib import Path

from lvd.utils.files import atomic

POLL = (
    0.005  # seconds between two looks at the anonymous memory, whose peak the kernel does not keep
)


def machine():
    """What the figures were taken on, without names of hosts or folders: {fact: text}."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = ("torch", "diffusers", "transformers")
    return {
        "cpu": (
            f"{_cpu()}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} torch "
            "threads"
        ),
        "gpu": gpu,
        "memory": f"{memory:.0f} GiB",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "versions": ", ".join(
            [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]
        ),
        "date": date.today().isoformat(),
    }


def _cpu():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def status(key):
    """A memory figure of this process from /proc/self/status in MiB. VmHWM: the peak of all
    resident pages, touched pages of mapped files included; RssAnon: its own memory now; RssFile:
    mapped file pages now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


class AnonymousPeak:
    """Peak of this process's own memory (RssAnon) since the block began, in MiB, seen every POLL
    seconds."""

    def __enter__(self):
        self.mib, self._ended = status("RssAnon"), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        while not self._ended.wait(POLL):
            self.mib = max(self.mib, status("RssAnon"))

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()


class Report:
    """Figures as a table on the screen and in two files, `out` (CSV, one figure a line) and the
    same name in .txt."""

    def __init__(self, title, out):
        self.title, self.out, self.machine = title, Path(out), machine()
        self.parts = {}  # part → (note, [(case, {quantity: value})])

    def add(self, part, note, rows):
        """rows: [(case, {quantity: number})]. Prints the part's table, and saves all there is so
        far."""
        known = self.parts.setdefault(part, (note, []))[1]
        known.extend(rows)
        print(self._table(part), flush=True)
        self.save()

    def save(self):
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["part", "case", "quantity", "value"])
        lines.writerows(["machine", "", fact, value] for fact, value in self.machine.items())
        for part, (_, rows) in self.parts.items():
            lines.writerows(
                [part, case, name, value]
                for case, figures in rows
                for name, value in figures.items()
            )
        facts = "\n".join(f"  {fact}: {value}" for fact, value in self.machine.items())
        tables = "\n".join(self._table(part) for part in self.parts)
        files = {
            self.out: text.getvalue(),
            self.out.with_suffix(".txt"): f"{self.title}\n{facts}\n{tables}",
        }
        for path, content in files.items():
            with atomic(path) as partial:
                partial.write_text(content)

    def _table(self, part):
        note, rows = self.parts[part]
        names = list(dict.fromkeys(name for _, figures in rows for name in figures))
        cells = [
            ["", *names],
            *([case, *(_short(figures.get(name)) for name in names)] for case, figures in rows),
        ]
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = [
            "  ".join(
                [
                    line[0].ljust(widths[0]),
                    *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:])),
                ]
            )
            for line in cells
        ]
        return "\n".join(["", f"{part}: {note}", *("  " + line.rstrip() for line in lines), ""])


def _short(value):
    return (
        ""
        if value is None
        else f"{value:.4g}"
        if isinstance(value, float) and abs(value) < 1e4
        else f"{value:.0f}"
    )
