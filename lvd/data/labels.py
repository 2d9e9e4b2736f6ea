"""The label file: which videos belong to which unsafe category.

The wide form has a header of category names and one column per category, each listing row indices
of the x0 file (lines of the prompt file, from 0); short columns are padded with blanks. Column k,
counted from 1, is `group{k}`. A video may stand in several columns. The long form has a line for
each video and category: its columns are headed `row` or `video`, and `category`.

The paper's label files have the numbers 1 to n as their header. So a first line that is the numbers
1 to n, in any order, is a header, never rows: the column headed k is `group{k}` and has that name.

A file is a CSV, separated by commas, semicolons or tabs, or an Excel workbook (.xlsx).
"""

import csv
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

from lvd.data.label_forms import is_numbers, read_form
from lvd.errors import InputError
from lvd.utils.partials import atomic
from lvd.utils.tables import read_table
from lvd.x0.file import open_x0_file


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


SUFFIXES = (".csv",), (".tsv", ".xlsx")  # what a folder's label file ends in; CSVs come first


def label_path(path):
    """Return the path of a label file: `path` itself, or of the one in that folder.

    Raises:
        InputError: the folder holds no label file, or several.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for suffixes in SUFFIXES:
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
        if files:
            break
    if len(files) != 1:
        named = ", ".join(file.name for file in files[:3]) or "none"
        raise InputError(
            f"{path}: a folder with one label file (.csv) is needed, it has {len(files)} "
            f"({named[:80]}); name the file itself"
        )
    return files[0]


def read_labels(path, rows=None, names=None):
    """Read a label file.

    Args:
        path: of the file, or of a folder that holds no other one.
        rows: how many rows the x0 file has, when that is known.
        names: [name of the video or None] of each row (`video_names`), when they are known. A video
            without one is named by its row in four digits, as the sampler does.

    Returns:
        Labels.

    Raises:
        InputError: naming line and column, for anything that is not a row of the x0 file; also for
            duplicates in a column, empty columns, lines of another length than the header, or a
            missing header.
    """
    path = label_path(path)
    table = read_table(path, "a header of category names and their row indices")
    categories, columns = read_form(path, table, rows, names)
    if is_numbers(categories):
        by_number = dict(zip(map(int, categories), columns))
        groups = range(1, len(categories) + 1)
        categories = [f"group{k}" for k in groups]
        columns = [by_number[k] for k in groups]
    return Labels(path, categories, columns)


def video_names(x0):
    """Return [name or None] of the videos of an X0File, by row, as its sidecar tells them."""
    return [x0.info.get(row, {}).get("video") for row in range(len(x0.tensor))]


def read_recorded_labels(path, pred_x0):
    """Read the labels of a recording's videos, which may be given by name.

    Args:
        path: of the label file.
        pred_x0: path of the recording, or None. Where it is gone, rows are not checked against it.

    Returns:
        Labels.
    """
    if pred_x0 is None or not Path(pred_x0).exists():
        return read_labels(path)
    x0 = open_x0_file(pred_x0)
    return read_labels(path, len(x0.tensor), video_names(x0))


def write_labels(columns, path):
    """Write a label file in the wide form, atomically.

    Args:
        columns: {category: rows}.
        path: of the file.
    """
    with atomic(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(zip_longest(*columns.values(), fillvalue=""))
