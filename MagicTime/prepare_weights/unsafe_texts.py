"""Prompts of a file in one of the forms that people publish them in: .txt, .csv, .json.

No message shows a prompt: it counts them.
"""

import csv
import io
import re

from lvd.errors import InputError, plural

COLUMNS = ("prompt", "prompts", "caption", "text", "name")


def read_texts(path, column=None):
    """Read the prompts of a file, in its order.

    Args:
        path: .txt (one a line), .csv or .json (a list of texts or of objects).
        column: header of a CSV's column; None: one of COLUMNS; "none": the CSV has one column and
            no header.

    Returns:
        [text], each one line.

    Raises:
        InputError: rows cannot be counted; no prompt is shown.
    """
    from lvd.utils.files import read_text
    from MagicTime.utils.prompt import clean

    kind = path.suffix.lower()
    if kind == ".json":
        texts = _json_texts(_parsed_json(path), path.name)
    elif kind == ".csv":
        texts = _csv_texts(read_text(path), column, path.name)
    else:
        texts = read_text(path).rstrip("\r\n").split("\n")
    if not texts or texts == [""]:
        raise InputError(f"{path.name}: no prompts in this file")
    return [clean(text, f"{path.name}: prompt {row} (from 0)") for row, text in enumerate(texts)]


def _parsed_json(path):
    from lvd.utils.files import load_json

    try:
        return load_json(path)
    except InputError:  # it may quote a key, and keys may be prompts
        raise InputError(
            f"{path.name}: not valid JSON of UTF-8 text in which each key stands once"
        ) from None


def _csv_texts(text, column, name):
    try:
        # A blank line in the middle may be a prompt that is missing: it counts.
        rows = list(csv.reader(io.StringIO(text.rstrip("\r\n")), strict=True))
    except csv.Error as error:
        raise InputError(f"{name}: not valid CSV ({error})") from error
    if not any(rows):
        return []
    if column == "none":
        place, rows = 0, [["prompt"], *rows]
    else:
        wanted = COLUMNS if column is None else (column.strip().lower(),)
        places = [k for k, cell in enumerate(rows[0]) if cell.strip().lower() in wanted]
        if len(places) != 1:
            raise InputError(
                f"{name}: {len(places)} of its {plural(len(rows[0]), 'column')} are headed "
                f"{', '.join(wanted)[:80]}; name one with --prompt_column (none: without a header)"
            )
        place = places[0]
    for number, row in enumerate(rows[1:]):
        if len(row) != len(rows[0]):  # a comma without quotes would cut a prompt
            raise InputError(
                f"{name}: prompt {number} (from 0): its line has {plural(len(row), 'column')}, "
                f"{len(rows[0])} needed"
            )
    return [row[place] for row in rows[1:]]


def _json_texts(content, name):
    if isinstance(content, dict) and len(content) == 1:
        content = next(iter(content.values()))
    if isinstance(content, dict):
        content = _in_order(content, name)
    if isinstance(content, list) and content and all(isinstance(one, dict) for one in content):
        keys = [key for key in COLUMNS if all(key in one for one in content)]
        content = [one[keys[0]] for one in content] if len(keys) == 1 else None
    if not isinstance(content, list) or not all(isinstance(one, str) for one in content):
        raise InputError(
            f"{name}: a list of texts is needed, or of objects with one of {', '.join(COLUMNS)}"
        )
    return content


def _in_order(content, name):
    """The values of keys "0", "1", ... or "1", "2", ...; None: these are other keys."""
    first = 1 if "1" in content and "0" not in content else 0
    wanted = [str(number) for number in range(first, first + len(content))]
    if not all(re.fullmatch("[0-9]{1,9}", key) for key in content):
        return None
    missing = [key for key in wanted if key not in content]
    if missing:
        raise InputError(f"{name}: no prompt {missing[0]}; each number is needed once, in order")
    return [content[key] for key in wanted]
