"""Tables that people write: a CSV, whose separator its header tells, or an Excel workbook.

A table is [(line, [cell, ...]), ...], the header first; cells are texts without blanks around them.
"""

import csv
import re
import warnings
import zipfile
from pathlib import Path

from lvd.errors import InputError, shorten, words_of
from lvd.utils.files import need_file, read_text
from lvd.utils.libraries import OF_DATA, import_library

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
WORKBOOK_LIMIT = 32 << 20  # bytes of a workbook's parts, unpacked
MOST_PARTS = 1000  # files in a workbook
MOST_LINES, MOST_COLUMNS = 200_000, 256  # of a workbook's sheet
MOST_CELLS = 20_000_000
EXCEL_LINES = 1 << 20


def read_table(path, needed):
    """Read the cells of a table.

    Args:
        path: of a CSV, or of an Excel workbook (.xlsx).
        needed: what an empty file lacks, for messages.

    Returns:
        [(line, [cell, ...]), ...] without blank lines, the header first. No line but the header is
        changed in its length, except that blank cells beyond the header's are left out.

    Raises:
        InputError: it is neither, it is empty, or its separator cannot be told.
    """
    path = Path(path)
    need_file(path)
    if path.suffix.lower() in (".xls", ".ods", ".numbers"):
        raise InputError(f"{path}: {path.suffix} is not read; save it as .xlsx or .csv")
    lines = _workbook(path) if path.suffix.lower() in (".xlsx", ".xlsm") else _text(path)
    table = [(number, [cell.strip() for cell in cells]) for number, cells in lines]
    if not any(any(cells) for _, cells in table):
        raise InputError(f"{path}: empty; {needed} are needed")
    number, header = table[0]
    if not any(header):
        raise InputError(f"{path}: line {number} is blank; the header is needed there")
    header, lines = _same_width(header, [cells for _, cells in table[1:]])
    rest = zip([line for line, _ in table[1:]], lines)
    return [(number, header), *((line, cells) for line, cells in rest if any(cells))]


def _same_width(header, lines):
    """The header without columns at the end that are blank in all lines, and lines without blank
    cells beyond it."""
    widest = max((len(_without_blank_end(cells, 0)) for cells in lines), default=0)
    header = _without_blank_end(header, max(1, min(widest, len(header))))
    return header, [_without_blank_end(cells, len(header)) for cells in lines]


def _without_blank_end(cells, least):
    """The cells without blank ones at the end, but `least` of them in any case."""
    end = len(cells)
    while end > least and not cells[end - 1]:
        end -= 1
    return cells[:end]


def _text(path):
    with open(path, "rb") as f:
        begins = f.read(4)
    if begins == b"PK\3\4":
        raise InputError(f"{path}: an Excel workbook or another archive; a workbook ends in .xlsx")
    if begins[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path}: a text of UTF-16; save it as CSV UTF-8")
    lines = read_text(path).split("\n")  # not at U+2028 and the like, which notes may hold
    return _parsed(path, lines, _separator(path, lines))


def _parsed(path, lines, separator):
    """[(line, [cell, ...])]; the line is the last one where cells hold line breaks."""
    reader = csv.reader(lines, strict=True, delimiter=separator)
    try:
        return [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error})") from error


def _separator(path, lines):
    """The separator that the header tells.

    A header with several is told by the lines below: one reading alone must give whole lines. A
    header with one that no line has may be that of one column, so it is refused.
    """
    header = lines[0] if lines else ""
    named = [mark for mark in SEPARATORS if mark in re.sub(r'"[^"]*"?', "", header)]
    if named in ([], [","]):
        return ","
    fitting = [mark for mark in named if _fits(path, lines, mark)]
    if len(fitting) == 1:
        return fitting[0]
    if len(named) == 1 and any(named[0] in line for line in lines[1:]):
        return named[0]  # what is wrong is told of the lines
    found = " and ".join(SEPARATORS[mark] for mark in named)
    raise InputError(
        f"{path}: the header (line 1) has {found}: {shorten(header)}, and the lines below do not "
        "tell what separates columns; use one separator, and quotes around names that hold another"
    )


def _fits(path, lines, separator):
    """Whether a separator gives lines of the header's length, and some below it."""
    try:
        table = [cells for _, cells in _parsed(path, lines, separator)]
    except InputError:
        return False
    header, *lines = [[cell.strip() for cell in cells] for cells in table]
    header, lines = _same_width(header, lines)
    lines = [cells for cells in lines if any(cells)]
    return bool(lines) and all(len(cells) == len(header) for cells in lines)


def _workbook(path):
    """The cells of a workbook's one sheet that has any."""
    _need_small(path)
    openpyxl = import_library("openpyxl", OF_DATA, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions that matter to nobody here
        try:
            book = openpyxl.load_workbook(path, read_only=True, keep_links=False)
            sheets = {sheet.title: _sheet(path, sheet) for sheet in book.worksheets}
            book.close()
        except InputError:
            raise
        except Exception as error:  # damaged parts raise KeyError, ParseError, TypeError, ...
            raise InputError(
                f"{path}: not a readable Excel workbook ({words_of(error)}); save it anew, or as "
                "CSV"
            ) from error
    filled = {title: lines for title, lines in sheets.items() if lines}
    if len(filled) > 1:
        named = ", ".join(shorten(title) for title in list(filled)[:3])
        raise InputError(
            f"{path}: {len(filled)} sheets have content ({named[:120]}); a workbook with one sheet "
            "is needed"
        )
    lines = next(iter(filled.values()), [])
    widest = max((len(cells) for _, cells in lines), default=0)
    return [(line, cells + [""] * (widest - len(cells))) for line, cells in lines]


def _need_small(path):
    """InputError for a file that is no archive, or one that unpacks to more than labels need."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path}: not an Excel workbook ({words_of(error)}); a .xlsx or a CSV is needed"
        ) from error
    size = sum(part.file_size for part in parts)
    if len(parts) > MOST_PARTS or size > WORKBOOK_LIMIT:
        raise InputError(
            f"{path}: unpacks to {len(parts)} parts of {size >> 20} MiB; a workbook of at most "
            f"{MOST_PARTS} parts and {WORKBOOK_LIMIT >> 20} MiB is needed"
        )


def _sheet(path, sheet):
    """[(line, [cell, ...])] of the lines with content."""
    lines, cells_seen = [], 0
    sheet.reset_dimensions()  # what the file says of its size may be wrong
    for number, values in enumerate(sheet.iter_rows(values_only=True), 1):
        cells_seen += len(values)
        if number > EXCEL_LINES or cells_seen > MOST_CELLS:
            raise InputError(
                f"{path}: sheet {shorten(sheet.title)}: more than {MOST_CELLS} cells or "
                f"{EXCEL_LINES} lines; a table alone is needed"
            )
        if values.count(None) == len(values):
            continue
        cells = _without_blank_end([_cell(value).strip() for value in values], 0)
        if cells and (number > MOST_LINES or len(cells) > MOST_COLUMNS):
            raise InputError(
                f"{path}: sheet {shorten(sheet.title)}: content in line {number}, column "
                f"{len(cells)}; at most {MOST_LINES} lines and {MOST_COLUMNS} columns are read"
            )
        if cells:
            lines.append((number, cells))
    return lines


def _cell(value):
    """A cell's value as a CSV would have it: 12.0 is 12. A formula stays one, and is no row."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
