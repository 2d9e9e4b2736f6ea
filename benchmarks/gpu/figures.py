"""What a run on a GPU found, written after every case: a kill loses nothing.

The file of JSON lines is what counts: its first line says what the figures were taken on, each
other one is a case. The text is made from it.
"""

import json
import subprocess

import torch

from benchmarks.common.machine import facts
from benchmarks.common.report import heading
from lvd.errors import plural
from lvd.utils.files import read_text, save_text

TITLE = "LVD on a GPU, at full size with random weights, and Tiny"
WORDS = {True: "yes", False: "NO"}


class Figures:
    """Cases and their figures, in `text` and in the file of the same name with .jsonl.

    Args:
        text: path of the text.
        note: what else its first lines say.
    """

    def __init__(self, text, note=None):
        self.text, self.lines = text, text.with_suffix(".jsonl")
        self.cases = []
        cuda = f"{torch.version.cuda}, driver {driver()}" if torch.cuda.is_available() else "none"
        self.machine = {**facts(), "cuda": cuda, **({"note": note} if note else {})}
        text.parent.mkdir(parents=True, exist_ok=True)
        self._write({"machine": self.machine}, "w")

    def add(self, part, case, figures, seconds):
        """Print a case, append it to the lines and write the text anew."""
        entry = {"part": part, "case": case, "figures": figures, "seconds": round(seconds, 2)}
        self.cases.append(entry)
        print(f"{part}: {line_of(entry)}", flush=True)
        self._write(entry, "a")
        write_text(self.lines, self.text)

    @property
    def errors(self):
        """[cases that ended with an error]."""
        return [entry for entry in self.cases if "error" in entry["figures"]]

    @property
    def broken(self):
        """["part, case: check" that does not hold]."""
        return [
            f"{entry['part']}, {entry['case']}: {name}"
            for entry in self.cases
            for name, value in entry["figures"].items()
            if value is False
        ]

    def _write(self, entry, mode):
        with open(self.lines, mode) as file:
            file.write(json.dumps(entry) + "\n")


def write_text(lines, text):
    """Write the readable text of a file of JSON lines."""
    machine, *cases = map(json.loads, read_text(lines).splitlines())
    blocks = [heading(TITLE, machine["machine"])]
    for part in dict.fromkeys(entry["part"] for entry in cases):
        of_part = [entry for entry in cases if entry["part"] == part]
        made = [entry for entry in of_part if "skipped" not in entry["figures"]]
        blocks.append(f"\n{part}")
        blocks += [f"  {line_of(entry)}" for entry in made]
        if skipped := len(of_part) - len(made):
            blocks.append(f"  skipped, no time left: {plural(skipped, 'case')}")
    save_text("\n".join(blocks) + "\n", text)


def line_of(entry):
    """One case as a line. The traceback of an error stands in the JSON lines alone."""
    figures = {name: value for name, value in entry["figures"].items() if name != "traceback"}
    found = "; ".join(f"{name} {_short(value)}" for name, value in figures.items())
    return f"{entry['case']}: {found}  [{entry['seconds']:.1f} s]"


def _short(value):
    if isinstance(value, bool):
        return WORDS[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def driver():
    """The NVIDIA driver's version, or "none"."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    return ended.stdout.strip().splitlines()[0] if ended.stdout.strip() else "none"
