"""Compare two studies: the CSV files of two folders of pages of reproduce_tables.py.

For each table it counts the figures, how many means of one study lie in the intervals of the other,
and names the largest difference. Both folders must have the same tables, with the same columns and
the same lines.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lvd.errors import InputError, shorten, words_of
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.files import save_text

LOW, HIGH = "_low", "_high"
MEASURED = ("seconds", "ms")  # columns that begin so tell of the machine, too


@dataclass(frozen=True)
class Compared:
    """One table of two studies.

    Attributes:
        name: of its CSV, without the suffix.
        figures: how many numbers it has, of both studies.
        with_interval: how many of them have an interval.
        b_in_a, a_in_b: how many means of one study lie in the interval of the other.
        largest: the largest difference.
        where: the line and the column where it is; "" where all are alike.
    """

    name: str
    figures: int
    with_interval: int
    b_in_a: int
    a_in_b: int
    largest: float
    where: str

    def cells(self):
        """Return its line of the page."""
        shares = [f"{count} of {self.with_interval}" for count in (self.b_in_a, self.a_in_b)]
        where = " ".join(self.where.split()).replace("|", "\\|")
        return [self.name, self.figures, *shares, f"{self.largest:.3g}", where]


def build_parser():
    parser = Parser(
        __doc__, "python tools/compare_studies.py docs/study/quick MagicTime/study/tables"
    )
    parser.add_argument("a", type=Path, metavar="A", help="folder of pages")
    parser.add_argument("b", type=Path, metavar="B", help="folder of pages of another run")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="Markdown to write (default: only print)"
    )
    return parser


def work(args):
    tables = {folder: _tables(folder) for folder in (args.a, args.b)}
    for one, other in ((args.a, args.b), (args.b, args.a)):
        if missing := sorted(tables[one].keys() - tables[other].keys()):
            raise InputError(f"{other}: has no {missing[0]}.csv, which is in {one}")
    compared = [
        compare(name, tables[args.a][name], tables[args.b][name]) for name in sorted(tables[args.a])
    ]
    text = page(compared, args.a.name, args.b.name)
    print(text)
    if args.out:
        save_text(text, args.out)
    inside = sum(one.b_in_a for one in compared)
    total = sum(one.with_interval for one in compared)
    facts = {"means of B in A's intervals": f"{inside} of {total}"}
    summary("studies compared", facts, [args.out] if args.out else [])


def _tables(folder):
    """Return {name: path} of the CSV files of a folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; one with the pages of a study is needed")
    found = {path.stem: path for path in folder.glob("*.csv")}
    if not found:
        raise InputError(f"{folder}: no CSV files; reproduce_tables.py writes them")
    return found


def compare(name, path_a, path_b):
    """Compare one table.

    Args:
        name: of the table.
        path_a, path_b: of its CSV in both studies.

    Returns:
        Compared.

    Raises:
        InputError: other columns, other lines, a figure in one study alone, or one end of an
            interval without the other.
    """
    a, b = _read(path_a), _read(path_b)
    if list(a) != list(b):
        other = next(iter(set(a) ^ set(b)), "their order")
        raise InputError(f"{path_b}: other columns than {path_a}: {shorten(other)}")
    numbers = [column for column in a if _is_number(a[column]) and _is_number(b[column])]
    keys = [column for column in a if column not in numbers]
    keys += [column for column in numbers if column in ("step", "limit", "seeds")]
    if len(a) != len(b) or not a[keys].astype(str).equals(b[keys].astype(str)):
        raise InputError(f"{path_b}: other lines than {path_a}")
    counts = {"figures": 0, "with_interval": 0, "b_in_a": 0, "a_in_b": 0}
    largest, where = 0.0, ""
    for column in numbers:
        if column in keys or column.endswith((LOW, HIGH)):
            continue
        same = a[column] == b[column]  # also where both are infinite
        difference = (a[column].astype(float) - b[column].astype(float)).abs().mask(same, 0.0)
        if (a[column].isna() != b[column].isna()).any():
            raise InputError(f"{path_b}: {column}: a figure where {path_a} has none, or none")
        counts["figures"] += int(difference.notna().sum())
        if _has_interval(column, numbers, a, path_a):
            known = difference.notna()
            counts["with_interval"] += int(known.sum())
            counts["b_in_a"] += int((_inside(b, a, column) & known).sum())
            counts["a_in_b"] += int((_inside(a, b, column) & known).sum())
        is_of_machine = any(column.startswith(word) for word in MEASURED)
        if not is_of_machine and difference.max() > largest:
            largest = float(difference.max())
            line = a.loc[difference.idxmax(), keys]
            where = ", ".join([*map(str, line), column])
    return Compared(name, **counts, largest=largest, where=where)


def _read(path):
    try:
        return pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no readable CSV ({words_of(error)})") from error


def _has_interval(column, numbers, table, path):
    """Tell whether a column has an interval; InputError where it has one end, or ends of texts."""
    ends = [f"{column}{end}" for end in (LOW, HIGH)]
    there = [end for end in ends if end in table]
    if there and not all(end in numbers for end in ends):
        raise InputError(f"{path}: {shorten(column)}: numbers in {LOW} and {HIGH} columns needed")
    return bool(there)


def _is_number(column):
    return pd.api.types.is_numeric_dtype(column) and column.dtype != bool


def _inside(mean_of, interval_of, column):
    """Whether the means of one study lie in the other's intervals; rounded to six decimals."""
    mean = mean_of[column]
    rounding = 1e-6 + 1e-6 * np.abs(mean)
    low, high = interval_of[f"{column}{LOW}"], interval_of[f"{column}{HIGH}"]
    return (low - rounding <= mean) & (mean <= high + rounding)


def page(compared, a="A", b="B"):
    """Return the Markdown of [Compared]."""
    inside, back = sum(one.b_in_a for one in compared), sum(one.a_in_b for one in compared)
    total = sum(one.with_interval for one in compared)
    lines = [
        "# Two runs of the study",
        "",
        f"A is {a}, B is {b}. Of {total} means with an interval, {inside} of B's lie in A's "
        f"interval, and {back} of A's in B's. Seconds and milliseconds tell of the machine; they "
        "do not count in the largest difference.",
        "",
        "| table | figures | B in A's intervals | A in B's | largest difference | where |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += ["| " + " | ".join(map(str, one.cells())) + " |" for one in compared]
    return "\n".join(lines) + "\n"


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
