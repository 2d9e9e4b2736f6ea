"""The plan as rows, as text, and as a file."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.config import ROOT
from lvd.utils.disk import GIB
from lvd.utils.files import save_csv, save_text

WIDTH = 120  # of the text
WORDS = 3  # columns that hold words; the others hold numbers and stand on the right
HOUR, MINUTE = 3600, 60
UNITS = ("KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Row:
    """One step of reproduce.sh.

    Attributes:
        step: its name.
        makes: what, in words.
        done: how much is there already, in words.
        disk: bytes that it adds; gpu, host: bytes of memory.
        seconds: on one GPU, None: not known; seconds_n: on several.
    """

    step: str
    makes: str
    done: str
    disk: int
    gpu: int
    host: int
    seconds: float | None
    seconds_n: float | None


def with_total(rows):
    """Return the Rows with a last one for the whole: what is added up, and the most memory."""
    known = [row for row in rows if row.seconds is not None]
    total = Row(
        "all",
        "",
        "",
        sum(row.disk for row in rows),
        max(row.gpu for row in rows),
        max(row.host for row in rows),
        sum(row.seconds for row in known) if known else None,
        sum(row.seconds_n for row in known) if known else None,
    )
    return [*rows, total]


def as_cells(rows, gpus):
    """Return (column names, [[text]]) of Rows, with a last one for the whole."""
    rows = with_total(rows)
    on_gpu = any(row.gpu for row in rows)
    columns = ["step", "makes", "done", "disk", *(["GPU memory"] if on_gpu else []), "memory"]
    columns += ["time, 1 GPU", f"time, {gpus} GPUs"] if gpus > 1 else ["time"]
    return columns, [_cells(row, gpus, on_gpu) for row in rows]


def _cells(row, gpus, on_gpu):
    sizes = [row.disk, *([row.gpu] if on_gpu else []), row.host]
    times = [row.seconds, row.seconds_n] if gpus > 1 else [row.seconds]
    return [row.step, row.makes, row.done, *map(size_text, sizes), *map(time_text, times)]


def size_text(size):
    """Return bytes in a unit that suits them: "8 KiB", "1.9 GiB"."""
    if not size:
        return "-"
    power = 1
    while size >= 999.5 * 1024**power and power < len(UNITS):
        power += 1
    number, unit = size / 1024**power, UNITS[power - 1]
    text = f"{number:.1f}" if 0.95 <= number < 9.95 and power > 1 else _whole(number)
    return f"{text} {unit}"


def time_text(seconds):
    """Return seconds in a unit that suits them: "5 s", "12 min", "20.4 h"; "?": not known."""
    if seconds is None:
        return "?"
    if not seconds:
        return "-"
    if seconds < 99.5:
        return f"{_whole(seconds)} s"
    if seconds < 99.5 * MINUTE:
        minutes = seconds / MINUTE
        return f"{minutes:.1f} min" if minutes < 9.95 else f"{_whole(minutes)} min"
    hours = seconds / HOUR
    return f"{hours:.1f} h" if hours < 99.95 else f"{_whole(hours)} h"


def _whole(number):
    return f"{max(1, round(number)):,}"


def as_text(columns, lines):
    """Return an aligned table; numbers stand on the right."""
    cells = [list(columns), *lines]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    text = []
    for line in cells:
        aligned = [
            cell.ljust(width) if place < WORDS else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(aligned).rstrip())
    rule = "-" * max(map(len, text))
    return "\n".join([text[0], rule, *text[1:-1], rule, text[-1]])


def as_notes(notes):
    """Return sentences as a list, in lines that a terminal holds."""
    return "\n".join(
        textwrap.fill(
            note,
            WIDTH,
            initial_indent="- ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for note in notes
    )


def as_markdown(columns, lines):
    """Return a table in Markdown."""
    rows = [columns, ["---"] * WORDS + ["---:"] * (len(columns) - WORDS), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def as_numbers(rows, gpus):
    """Return [{column: number or text}] of Rows, with one for the whole, for a CSV."""
    numbers = []
    for row in with_total(rows):
        line = {"step": row.step, "makes": row.makes, "done": row.done}
        for name, size in (("disk", row.disk), ("gpu", row.gpu), ("host", row.host)):
            line[f"{name}_gib"] = f"{size / GIB:.6g}"
        times = {1: row.seconds, gpus: row.seconds_n}
        for count, seconds in times.items():
            hours = "" if seconds is None else f"{seconds / HOUR:.6g}"
            line[f"hours_{count}_gpu{'s' if count > 1 else ''}"] = hours
        numbers.append(line)
    return numbers


def save(path, title, rows, gpus, notes):
    """Write the plan as CSV, Markdown or text, by the file's suffix; a CSV holds numbers alone."""
    path = Path(path)
    if path.suffix == ".csv":
        lines = as_numbers(rows, gpus)
        save_csv(lines, path, list(lines[0]))
        return
    columns, lines = as_cells(rows, gpus)
    if path.suffix == ".md":
        listed = "\n".join(f"- {note}" for note in notes)
        text = f"# {title}\n\n{as_markdown(columns, lines)}\n\n{listed}\n"
    else:
        text = f"{title}\n\n{as_text(columns, lines)}\n\n{as_notes(notes)}\n"
    save_text(text, path)


def short(path):
    """Return a path, from the repository's root where it lies below it."""
    path = Path(path).resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def need_suffix(path):
    """Refuse a file of another kind than `save` writes."""
    if Path(path).suffix not in (".csv", ".md", ".txt"):
        raise InputError(f"--save {path}: a name that ends in .csv, .md or .txt is needed")
