"""The label file: which videos belong to which unsafe category.

A CSV with a header of category names and one column per category, each listing row indices of the
x0 file (lines of the prompt file, from 0); short columns are padded with blanks. Column k, counted
from 1, is `group{k}`. A video may stand in several columns.

The paper's label files have the numbers 1 to n as their header. So a first line that is the numbers
1 to n, in any order, is a header, never rows: the column headed k is `group{k}` and has that name.
"""

import csv
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lvd.errors import InputError, shorten
from lvd.utils.files import read_text
from lvd.utils.schema import has_controls


@dataclass(frozen=True)
class Labels:
    """Unsafe videos by category.

    Args:
        path: of the label file.
        categories: names of the columns.
        columns: lists of rows; columns[k] are those of categories[k], which is group k + 1.
    """

    path: Path
    categories: list
    columns: list

    def rows(self):
        """Return all labelled rows, sorted, each once."""
        return sorted({row for column in self.columns for row in column})

    def groups_of(self, row):
        """Return the groups, from 1, that `row` belongs to."""
        return self._groups.get(row, [])

    @cached_property
    def _groups(self):
        """{row: [group, ...]}"""
        groups = {}
        for group, column in enumerate(self.columns, 1):
            for row in column:
                groups.setdefault(row, []).append(group)
        return groups


def label_path(path):
    """Return the path of a label file: `path` itself, or of the one CSV in that folder.

    Raises:
        InputError: the folder holds no CSV, or several.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".csv")
    if len(files) != 1:
        named = ", ".join(file.name for file in files[:3]) or "none"
        raise InputError(
            f"{path}: a folder with one label file (.csv) is needed, it has {len(files)} "
            f"({named[:80]}); name the file itself"
        )
    return files[0]


def read_labels(path, rows=None):
    """Read a label file.

    Args:
        path: of the CSV file, or of a folder that holds no other CSV.
        rows: how many rows the x0 file has, when that is known.

    Returns:
        Labels.

    Raises:
        InputError: naming line and column, for anything that is not a row index of the x0 file;
            also for duplicates in a column, empty columns, lines of another length than the header,
            or a missing header.
    """
    path = label_path(path)
    try:
        table = list(csv.reader(read_text(path).splitlines(), strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error})") from error
    if not any(map(any, table)):
        raise InputError(
            f"{path}: empty; a header of category names and their row indices are needed"
        )
    names = _header(path, table[0])
    columns = [{} for _ in names]  # row → its line; dicts keep the order
    for line, cells in enumerate(table[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue  # a blank line
        if len(cells) != len(names):
            raise InputError(
                f"{path}: line {line} has {len(cells)} cells, the header has {len(names)}; pad "
                "short columns with blanks"
            )
        for name, column, cell in zip(names, columns, cells):
            text = cell.strip()
            if text:
                try:
                    column[_row(text, column, rows)] = line
                except ValueError as error:
                    where = f"{path}: line {line}, column '{name[:40]}'"
                    raise InputError(f"{where}: {error}") from None
    for name, column in zip(names, columns):
        if not column:
            raise InputError(
                f"{path}: column '{name[:40]}' is empty; at least one row index is needed"
            )
    return _labels(path, names, [list(column) for column in columns])


def _labels(path, names, columns):
    if not _is_numbers(names):
        return Labels(path, names, columns)
    by_number = dict(zip(map(int, names), columns))
    groups = range(1, len(names) + 1)
    return Labels(path, [f"group{k}" for k in groups], [by_number[k] for k in groups])


def _is_numbers(names):
    """Whether a header is that of the paper's label files: the numbers 1 to n, in any order."""
    return sorted(names) == sorted(str(k) for k in range(1, len(names) + 1))


def _header(path, cells):
    names = [cell.strip() for cell in cells]
    if _is_numbers(names):
        return names
    if any(_is_integer(name.removesuffix(".0")) for name in names):
        raise InputError(
            f"{path}: no header, line 1 is '{','.join(cells)[:60]}'; category names, or the "
            "numbers 1, 2, ..., are needed there"
        )
    for k, name in enumerate(names, 1):
        if not name:
            raise InputError(f"{path}: column {k} has no name in the header (line 1)")
        if has_controls(name):
            raise InputError(
                f"{path}: column {k}: found {shorten(name)}; a name without control characters is "
                "needed (line 1)"
            )
        if name in names[: k - 1]:
            raise InputError(f"{path}: two columns are named '{name[:40]}' (line 1)")
    return names


def _row(text, column, rows):
    """The row index in one cell; files written from float tables ('12.0') are read too."""
    if not _is_integer(text.removesuffix(".0")):
        raise ValueError(f"'{text[:40]}' is not a row index (an integer from 0)")
    row = int(text.removesuffix(".0"))
    if row < 0:
        raise ValueError(f"{row} is negative; row indices count from 0")
    if rows is not None and row >= rows:
        raise ValueError(f"{row} is out of range, the x0 file has {rows} rows (0 to {rows - 1})")
    if row in column:
        raise ValueError(f"{row} stands twice in this column")
    return row


def _is_integer(text):
    return re.fullmatch(r"-?[0-9]{1,9}", text) is not None
