"""Prompts in tables: a CSV, or a JSON as MagicTime's. Each names its videos."""

import csv
import io
import re
import unicodedata

from lvd.errors import InputError, shorten
from lvd.utils.files import load_json, read_text
from MagicTime.utils.prompt import Prompt, clean, need_printable, need_prompt_file

MAX_NAME = 200  # bytes; file systems allow 255, with suffix and the mark of an unfinished file


def read_csv(path):
    """Read the Prompts of a CSV with a header.

    Columns other than name (the prompt) and videoid (the video's name) are ignored.
    """
    rows = _csv_rows(path)
    if not rows:
        raise InputError(f"{path}: empty, a header with the columns name and videoid is needed")
    header = [cell.strip() for cell in rows[0][1]]
    for column in ("name", "videoid"):
        if header.count(column) != 1:
            wrong = "stands twice in" if column in header else "is missing from"
            raise InputError(
                f"{path}: column '{column}' {wrong} the header ({', '.join(header)[:120]})"
            )
    prompts, places = [], []
    for line, cells in rows[1:]:
        if not cells:
            raise InputError(
                f"{path}: line {line} is blank; rows are counted, so every line needs a prompt"
            )
        if len(cells) != len(header):
            raise InputError(
                f"{path}: line {line} has {len(cells)} columns, the header {len(header)}; a text "
                "with a comma needs double quotes"
            )
        fields = dict(zip(header, cells))
        places.append(f"line {line}, column 'videoid'")
        prompts.append(
            Prompt(
                clean(fields["name"], f"{path}: line {line}, column 'name'"),
                _file_name(fields["videoid"].strip(), f"{path}: {places[-1]}"),
            )
        )
    return _all_different(prompts, places, path)


def read_json(path):
    """Read the Prompts of a JSON list of {"caption", "video_id", "sen_id"}.

    The list may stand under "sentences", as in MSR-VTT.
    """
    need_prompt_file(path)
    items = load_json(path)
    if isinstance(items, dict):
        items = items.get("sentences")
    if not isinstance(items, list):
        raise InputError(
            f"{path}: a list of objects with caption, video_id and sen_id is needed (or that list "
            "under 'sentences')"
        )
    prompts, places = [], []
    for row, item in enumerate(items):
        place = f"item {row} (from 0)"
        if not isinstance(item, dict):
            raise InputError(
                f"{path}: {place}: an object with caption, video_id and sen_id is needed, found "
                f"{shorten(item)}"
            )
        caption = clean(
            _value(item, "caption", (str,), f"{path}: {place}"), f"{path}: {place}, key 'caption'"
        )
        ids = [
            _value(item, key, (str, int), f"{path}: {place}").strip()
            for key in ("video_id", "sen_id")
        ]
        places.append(f"{place}, keys 'video_id' and 'sen_id'")
        if not all(ids):
            raise InputError(f"{path}: {places[-1]}: blank, both are needed for the video's name")
        prompts.append(Prompt(caption, _file_name("-".join(ids), f"{path}: {places[-1]}")))
    return _all_different(prompts, places, path)


def _csv_rows(path):
    """Return [(line at which the row begins, its cells)], without blank lines at the end."""
    need_prompt_file(path)
    lines = io.StringIO(read_text(path).rstrip("\r\n"))
    reader = csv.reader(lines, skipinitialspace=True, strict=True)
    rows, line = [], 1
    try:
        for cells in reader:
            rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {line}: not valid CSV ({error})") from error
    return rows


def _value(item, key, kinds, where):
    """Return item[key] as text; its type must be one of `kinds`."""
    value = item.get(key)
    if type(value) not in kinds:
        there = f"found {shorten(value)}" if key in item else "it is missing"
        needed = "a text" if kinds == (str,) else "a text or whole number"
        raise InputError(f"{where}, key '{key}': {needed} is needed, {there}")
    return str(value)


def _file_name(name, where):
    """Return `name` if {name}.mp4 is a plain, visible file name."""
    if not name:
        raise InputError(f"{where}: blank, the video's name is needed")
    need_printable(name, where)
    if name.startswith(".") or re.search(r'[/\\:*?"<>|]', name):
        raise InputError(
            f"{where}: {shorten(name)} cannot be a video's file name (no dot at the front, none of "
            f'/ \\ : * ? " < > |)'
        )
    if len(name.encode()) > MAX_NAME:
        raise InputError(
            f"{where}: {shorten(name)} has {len(name.encode())} bytes, a video's name has at most "
            f"{MAX_NAME}"
        )
    return name


def _all_different(prompts, places, path):
    """Return `prompts` if no video overwrites another, even where upper and lower case are one."""
    if not prompts:
        raise InputError(f"{path}: no prompts in this file")
    first = {}
    for row, prompt in enumerate(prompts):
        before = first.setdefault(unicodedata.normalize("NFC", prompt.name).casefold(), row)
        if before != row:
            raise InputError(
                f"{path}: {places[row]}: the video's name {shorten(prompt.name)} is that of "
                f"{places[before]} ({shorten(prompts[before].name)}); upper and lower case are one "
                "on some disks"
            )
    return prompts
