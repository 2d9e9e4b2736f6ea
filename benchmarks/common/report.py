"""Figures as tables on the screen and in two files."""

from numbers import Real
from pathlib import Path

import pandas as pd

from benchmarks.common.machine import facts
from lvd.utils.files import save_text
from lvd.utils.partials import atomic


class Report:
    """Tables of figures, printed and saved as `out` (CSV, one figure a line) and as text beside it.

    Both files begin with what the figures were taken on: commit, versions, date, machine.

    Args:
        title: the first line of the text.
        out: path of the CSV; the text has the same name with .txt.
    """

    def __init__(self, title, out):
        self.title = title
        self.out = Path(out)
        self.text = self.out.with_suffix(".txt")
        self.facts = facts()
        self.parts = {}  # part → (note, [(case, {quantity: value})])

    def add(self, part, note, rows):
        """Print a part's table, and save all there is so far.

        Args:
            part: name of the table; rows of the same name go into one.
            note: what the figures are, units included.
            rows: [(case, {quantity: number or None})].
        """
        _, known = self.parts.setdefault(part, (note, []))
        known.extend(rows)
        print(self._table(part), flush=True)
        self.save()

    def save(self):
        lines = [("machine", "", fact, value) for fact, value in self.facts.items()]
        for part, (_, rows) in self.parts.items():
            for case, figures in rows:
                lines += [(part, case, quantity, value) for quantity, value in figures.items()]
        frame = pd.DataFrame(lines, columns=["part", "case", "quantity", "value"], dtype=object)
        with atomic(self.out) as partial:
            frame.to_csv(partial, index=False, lineterminator="\n")
        tables = "\n".join(self._table(part) for part in self.parts)
        save_text(heading(self.title, self.facts) + tables, self.text)

    def say_where(self):
        """Print the paths of the two files."""
        print(f"wrote {self.out} and {self.text}")

    def _table(self, part):
        note, rows = self.parts[part]
        cases = [case for case, _ in rows]
        frame = pd.DataFrame([figures for _, figures in rows], index=cases, dtype=object)
        lines = frame.map(_short).to_string(col_space=len("  00.00")).splitlines()
        indented = [f"  {line}".rstrip() for line in lines]
        return "\n".join(["", f"{part}: {note}", *indented, ""])


def heading(title, known):
    """The first lines of a text of figures: its title, and what they were taken on."""
    lines = [f"  {fact}: {value}" for fact, value in known.items()]
    return "\n".join([title, *lines, ""])


def _short(value):
    """Four digits of a number, none of a missing one."""
    if not isinstance(value, Real) or value != value:
        return ""
    if isinstance(value, int) or abs(value) >= 1e4:
        return f"{value:.0f}"
    return f"{value:.4g}"
