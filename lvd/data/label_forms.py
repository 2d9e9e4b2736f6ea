"""The two forms of a label file: wide (a column of videos for each category) and long (a video and
its category on each line)."""

import re
import sys
from functools import cache

from lvd.data.label_names import NoVideo, RowFinder, is_integer
from lvd.errors import InputError, plural, shorten
from lvd.utils.schema import has_controls

NOTES = {"note", "notes", "comment", "comments", "remark", "remarks"}
ROWS = {"row", "rows", "row index", "index"}
NAMES = {"video", "videos", "video name", "video id", "videoid", "name", "file", "file name"}
NAMES |= {"filename", "id", "clip"}
CATEGORIES = {"category", "categories", "label", "labels", "class", "group"}
# What a line of the long form says of a video that is in no unsafe category.
NO_CATEGORY = {"none", "no", "normal", "safe", "benign"}


@cache
def tell(line):
    """Print a line on stderr, once in a process: label files are read several times."""
    print(line, file=sys.stderr, flush=True)


def read_form(path, table, rows=None, names=None):
    """Find the categories of a table and their rows.

    Args:
        path: of the label file, for messages.
        table: of lvd.utils.tables.read_table.
        rows: how many rows the recording has; None: not known.
        names: of the videos, by row; None: not known.

    Returns:
        ([category, ...], [[row, ...], ...]), columns of one order.

    Raises:
        InputError: naming line and column.
    """
    finder = RowFinder(rows, names)
    place = _long_columns(path, table[0][1])
    if place:
        return _read_long(path, table, place, finder)
    return _read_wide(path, table, finder)


def _no_video(where, error, table, k):
    """The InputError of a cell in column k that means no video."""
    cells = {cell for _, line in table[1:] for cell in line}
    if error.by_one and not cells & {"0", "0.0"}:
        return InputError(f"{where}: {error}; do your rows count from 1? Here the first is 0")
    column = [line[k] for _, line in table[1:] if k < len(line) and line[k]]
    are_texts = not any(is_integer(cell.removesuffix(".0")) for cell in column)
    if error.is_text and are_texts and len(column) > 1:
        return InputError(
            f"{where}: {error}; no cell of this column is one: remove it, or head it 'notes' to "
            "have it skipped"
        )
    return InputError(f"{where}: {error}")


def is_numbers(names):
    """Whether a header is that of the paper's label files: the numbers 1 to n, in any order."""
    return sorted(names) == sorted(str(k) for k in range(1, len(names) + 1))


def _word(name):
    """A header's word for comparison: "Video_Name" → "video name"."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


# --- wide


def _read_wide(path, table, finder):
    header = _wide_header(path, table[0])
    lines = table[1:]
    _need_length(path, header, lines)
    kept = [k for k in range(len(header)) if not _is_notes(path, header[k], k, lines)]
    if not kept:
        raise InputError(
            f"{path}: has columns of notes alone; a column for each category is needed"
        )
    columns = {}
    for k in kept:
        columns[k] = _wide_column(path, header[k], k, table, finder)
    for k in kept:
        if not columns[k]:
            raise InputError(
                f"{path}: column '{header[k][:40]}' is empty; at least one row index is needed"
            )
    for k, name in enumerate(header):
        if k not in kept:
            tell(f"{path}: column '{name[:40]}' is skipped as notes; it is no category")
    return [header[k] for k in kept], [list(columns[k]) for k in kept]


def _wide_column(path, name, k, table, finder):
    """{row: its line} of one column, in the lines' order."""
    column = {}
    for line, cells in table[1:]:
        if not cells[k]:
            continue
        try:
            row = finder.row(cells[k])
        except NoVideo as error:
            where = f"{path}: line {line}, column '{name[:40]}'"
            raise _no_video(where, error, table, k) from None
        if row in column:
            raise InputError(
                f"{path}: line {line}, column '{name[:40]}': {_named(row, cells[k])} stands twice "
                "in this column"
            )
        column[row] = line
    return column


def _named(row, text):
    return str(row) if is_integer(text.removesuffix(".0")) else f"row {row} ({text[:40]})"


def _need_length(path, header, lines):
    for line, cells in lines:
        if len(cells) != len(header):
            raise InputError(
                f"{path}: line {line} has {len(cells)} cells, the header has {len(header)}; pad "
                f"short columns with blanks{_other_separator(cells)}"
            )


def _is_notes(path, name, k, lines):
    """Whether a column is one of notes: its name says so, and its cells are no row indices.

    Raises:
        InputError: its name says so and all of its cells are row indices.
    """
    if _word(name) not in NOTES:
        return False
    cells = [cells[k] for _, cells in lines if cells[k]]
    if cells and all(is_integer(cell.removesuffix(".0")) for cell in cells):
        raise InputError(
            f"{path}: column '{name[:40]}' has row indices, its name says notes; give the category "
            "another name, or remove the column"
        )
    return True


def _other_separator(cells):
    """A hint where a line is one cell that holds another separator than the header's."""
    if len(cells) == 1 and re.search(r"[;\t]", cells[0]):
        return "; all lines need the header's separator"
    return ""


def _wide_header(path, first):
    line, names = first
    if is_numbers([name for name in names if _word(name) not in NOTES]):
        return names
    if any(is_integer(name.removesuffix(".0")) for name in names):
        raise InputError(
            f"{path}: no header, line {line} is '{','.join(names)[:60]}'; category names, or the "
            "numbers 1, 2, ..., are needed there"
        )
    for k, name in enumerate(names, 1):
        if not name:
            raise InputError(f"{path}: column {k} has no name in the header (line {line})")
        _need_name(name, f"{path}: column {k}", line)
        if _word(name) in NO_CATEGORY:
            raise InputError(
                f"{path}: column '{name[:40]}' is headed as no unsafe category (line {line}), and "
                "videos of a column are trained on as unsafe; remove it, or give it another name"
            )
        if name in names[: k - 1]:
            raise InputError(f"{path}: two columns are named '{name[:40]}' (line {line})")
    return names


def _need_name(name, where, line):
    if name.startswith("="):
        raise InputError(
            f"{where}: the formula {shorten(name)} (line {line}); a name is needed: save the sheet "
            "as CSV"
        )
    if has_controls(name):
        raise InputError(
            f"{where}: found {shorten(name)}; a name without control characters is needed (line "
            f"{line})"
        )


# --- long


def is_heading(name):
    """Whether a column of this name may be taken for another thing than a category's rows."""
    return _word(name) in NOTES | ROWS | NAMES | CATEGORIES


def _long_columns(path, header):
    """(column of the video, column of the category, whether the video's may be a name), or None.

    Both must be named: any other table is wide.
    """
    words = list(map(_word, header))
    category = [k for k, word in enumerate(words) if word in CATEGORIES]
    video = [k for k, word in enumerate(words) if word in ROWS | NAMES]
    if video and not category and len(header) > 1:
        raise InputError(
            f"{path}: column '{header[video[0]][:40]}' names videos, and no column is headed "
            "'category'; a line for each video needs both, else each column is a category of rows"
        )
    if not category or not video:
        return None
    for columns, what in ((category, "categories"), (video, "videos")):
        if len(columns) > 1:
            named = " and ".join(f"'{header[k][:30]}'" for k in columns[:3])
            raise InputError(
                f"{path}: columns {named} both name {what} (line 1); one such column is needed"
            )
    return video[0], category[0], words[video[0]] in NAMES


def _read_long(path, table, place, finder):
    video, category, _ = place
    header = table[0][1]
    found, left_out = {}, 0  # category → {row: line}
    for line, cells in table[1:]:
        cells = cells + [""] * (len(header) - len(cells))
        if len(cells) > len(header):
            raise InputError(
                f"{path}: line {line} has {len(cells)} cells, the header {len(header)}"
            )
        for k in (video, category):
            if not cells[k]:
                raise InputError(
                    f"{path}: line {line}, column '{header[k][:40]}': blank; a video and its "
                    "category are needed, or no such line"
                )
        row = _long_row(path, table, line, cells, place, finder)
        name = _category(path, line, cells[category])
        if name.casefold() in NO_CATEGORY:
            left_out += 1
            continue
        lines = found.setdefault(name, {})
        if row in lines:
            raise InputError(
                f"{path}: line {line}: {_named(row, cells[video])} has category '{name[:40]}' "
                f"twice (first in line {lines[row]})"
            )
        lines[row] = line
    form = _sorted(path, found)
    others = [shorten(name) for k, name in enumerate(header) if k not in (video, category)]
    if others:
        named = ", ".join(others[:4])[:120]
        tell(f"{path}: not read: {plural(len(others), 'column')} beside video, category ({named})")
    if left_out:
        lines = plural(left_out, "line")
        tell(f"{path}: {lines} of no category ({'/'.join(sorted(NO_CATEGORY))}) left out")
    return form


def _long_row(path, table, line, cells, place, finder):
    video, _, by_name = place
    try:
        return finder.row(cells[video], by_name)
    except NoVideo as error:
        where = f"{path}: line {line}, column '{table[0][1][video][:40]}'"
        error.is_text = False  # a column of names is one of texts
        raise _no_video(where, error, table, video) from None


def _category(path, line, text):
    """The category in a cell of the long form."""
    where = f"{path}: line {line}"
    _need_name(text, f"{where}, category", line)
    if re.search(r"[,;|]", text):
        raise InputError(
            f"{where}: category {shorten(text)}; one category a line is needed (a video in two "
            "has two lines)"
        )
    return text.removesuffix(".0") if is_integer(text.removesuffix(".0")) else text


def _sorted(path, found):
    """Categories and columns of a long form in the order of the names, rows sorted.

    So they do not depend on the order of the lines, which a correction may change.
    """
    if not found:
        raise InputError(f"{path}: no line names a video of an unsafe category; one is needed")
    names = sorted(found, key=lambda name: (name.casefold(), name))
    for name, after in zip(names, names[1:]):
        if name.casefold() == after.casefold():
            a, b = (min(found[one].values()) for one in (name, after))
            raise InputError(
                f"{path}: categories '{name[:40]}' (line {a}) and '{after[:40]}' (line {b}) differ "
                "in upper and lower case alone; write them alike"
            )
    numbers = [name for name in names if is_integer(name)]
    if numbers and not is_numbers(names):
        raise InputError(
            f"{path}: category '{numbers[0]}' is a number (line {min(found[numbers[0]].values())});"
            f" names, or the numbers 1 to {len(names)} alone, are needed"
        )
    return names, [sorted(found[name]) for name in names]
