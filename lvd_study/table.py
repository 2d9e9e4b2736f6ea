"""Tables of the study: as Markdown to read, and as CSV to go on with."""

from dataclasses import dataclass
from numbers import Real

import pandas as pd

from lvd.evaluation.tables import save_table
from lvd_study.intervals import Estimate


@dataclass(frozen=True)
class Table:
    """Figures in lines and columns.

    Attributes:
        name: of its CSV, without the suffix, such as "a_rules".
        title: a line above it.
        note: what the figures are, in one or two sentences; "" for none.
        columns: names, the first of what a line is about.
        rows: lists of as many texts, numbers, Estimates or None.
        in_page: whether the page shows it; else it is a CSV alone, which the page names.
    """

    name: str
    title: str
    note: str
    columns: list
    rows: list
    in_page: bool = True

    def markdown(self):
        """Return it as Markdown; of one that is no part of the page, the line that names it."""
        if not self.in_page:
            return f"[{self.name}.csv]({self.name}.csv): {self.title}"
        lines = [f"**{self.title}**" + (f" {self.note}" if self.note else ""), ""]
        lines.append(_line(self.columns))
        lines.append(_line(["---"] + ["---:"] * (len(self.columns) - 1)))
        lines += [_line([shown(value) for value in row]) for row in self.rows]
        return "\n".join(lines)

    def frame(self):
        """Return it as a DataFrame: an Estimate takes three columns, its ends are _low, _high."""
        return pd.DataFrame([self._flat(row) for row in self.rows])

    def save(self, folder):
        """Write {folder}/{name}.csv and return its path."""
        path = folder / f"{self.name}.csv"
        save_table(self.frame(), path)
        return path

    def _flat(self, row):
        flat = {}
        for column, value in zip(self.columns, row, strict=True):
            if isinstance(value, Estimate):
                flat |= {
                    column: value.mean,
                    f"{column}_low": value.low,
                    f"{column}_high": value.high,
                }
            else:
                flat[column] = value
        return flat


def shown(value):
    """Return a cell as Markdown shows it."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, Estimate):
        return value.text()
    if isinstance(value, Real) and not isinstance(value, int):
        if 0 < abs(value) < 0.01:
            return f"{value:.2g}"
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def _line(cells):
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
