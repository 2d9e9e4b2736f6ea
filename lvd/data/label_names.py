"""Which row of a recording a cell of a label file means: by its index, or by its video's name."""

import re

from lvd.errors import shorten
from lvd.x0.sidecar import numbered_name


class RowFinder:
    """The rows of a recording, by index and by name.

    A video without a name of its own has the sampler's, its row in four digits: 0003.mp4.

    Args:
        rows: how many rows the recording has; None: not known.
        names: [name or None] of each row; None: no names are known.
    """

    def __init__(self, rows=None, names=None):
        self.count = len(names) if rows is None and names is not None else rows
        self.are_named = bool(names) and any(names)
        self.known = names is not None
        self._rows = {}  # name without .mp4 → [row, ...]
        for row, name in enumerate(names or []):
            self._rows.setdefault(_stem(name or numbered_name(row)), []).append(row)

    def row(self, text, by_name=False):
        """Return the row that a cell means.

        Args:
            text: of the cell.
            by_name: whether the column's header says that it has names: a number is one of them
                where the recording's videos have names of their own.

        Raises:
            NoVideo: there is no such video, or two.
        """
        number = text.removesuffix(".0")
        if is_integer(number) and not (by_name and self.are_named):
            row = self._in_range(int(number))
            named = self._rows.get(text, [row])
            if text != str(row) and named != [row]:  # 0003 is written as a name
                raise NoVideo(
                    f"'{text}' is row {row}, and the name of the video in row {named[0]}; give row "
                    f"indices without zeros before them, or names as {text}.mp4"
                )
            return row
        stem = _stem(text)
        rows = self._rows.get(stem, [])
        if not rows and not self.known and re.fullmatch(r"[0-9]{4,9}", stem):
            return self._in_range(int(stem))
        if len(rows) > 1:
            raise NoVideo(
                f"'{text[:60]}' fits two videos (rows {rows[0]} and {rows[1]}); give their row "
                "indices in a column headed 'row'"
            )
        if not rows:
            raise NoVideo(self._unknown(text, by_name), is_text=True)
        return rows[0]

    def _unknown(self, text, by_name):
        said = f"'{text[:40]}' is not a row index (an integer from 0)"
        if self.are_named:
            first = next(iter(self._rows))
            said = f"'{text[:40]}' is not a row index (an integer from 0), nor is a video named so"
            if by_name:
                said = f"no video is named '{text[:40]}'; names are such as {shorten(first)}"
        elif by_name and not self.known:
            said += "; to read names of videos their recording (pred_x0) is needed"
        elif by_name:
            said += ", nor a video's name such as 0003.mp4"
        return said

    def _in_range(self, row):
        if row < 0:
            raise NoVideo(f"{row} is negative; row indices count from 0")
        if self.count is not None and row >= self.count:
            named = self._rows.get(str(row)) if self.are_named else None
            hint = f"; the video named {row} is row {named[0]}" if named else ""
            raise NoVideo(
                f"{row} is out of range, the x0 file has {self.count} rows (0 to {self.count - 1})"
                f"{hint}",
                by_one=row == self.count,
            )
        return row


class NoVideo(ValueError):
    """A cell that means no video, or two.

    Attributes:
        by_one: it is the first row beyond the recording, as when rows are counted from 1.
        is_text: it is neither a row index nor a known name.
    """

    def __init__(self, message, by_one=False, is_text=False):
        super().__init__(message)
        self.by_one, self.is_text = by_one, is_text


def is_integer(text):
    """Whether a text is a whole number of at most nine digits."""
    return re.fullmatch(r"-?[0-9]{1,9}", text) is not None


def _stem(name):
    """A video's name without folders and .mp4."""
    name = re.split(r"[/\\]", name.strip())[-1]
    return name[:-4] if name.lower().endswith(".mp4") else name
