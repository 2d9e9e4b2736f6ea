"""The plan as rows, as text, and as a file."""

from dataclasses import dataclass
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.config import ROOT
from lvd.utils.disk import GIB
from lvd.utils.files import save_csv
from lvd.utils.partials import atomic

COLUMNS = ("step", "makes", "there", "disk GiB", "GPU GiB", "host GiB", "hours, 1 GPU")


@dataclass(frozen=True)
class Row:
    """One step of reproduce.sh.

    Attributes:
        step: its name.
        makes: what, in words.
        there: what is there already, in words.
        disk: bytes that it adds; gpu, host: bytes of memory.
        hours: on one GPU, None: not known; hours_n: on several.
    """

    step: str
    makes: str
    there: str
    disk: int
    gpu: int
    host: int
    hours: float | None
    hours_n: float | None


def as_cells(rows, gpus):
    """Return (column names, [[text]]) of Rows, with a last one for the whole."""
    columns = [*COLUMNS, f"hours, {gpus} GPUs"] if gpus > 1 else list(COLUMNS)
    lines = [_cells(row, gpus) for row in rows]
    known = [row for row in rows if row.hours is not None]
    total = Row(
        "all",
        "",
        "",
        sum(row.disk for row in rows),
        max(row.gpu for row in rows),
        max(row.host for row in rows),
        sum(row.hours for row in known) if known else None,
        sum(row.hours_n for row in known) if known else None,
    )
    return columns, [*lines, _cells(total, gpus)]


def _cells(row, gpus):
    sizes = [size_text(size) for size in (row.disk, row.gpu, row.host)]
    hours = [row.hours, row.hours_n] if gpus > 1 else [row.hours]
    return [row.step, row.makes, row.there, *sizes, *map(hours_text, hours)]


def size_text(size):
    """Return bytes in GiB, with two digits that count."""
    gib = size / GIB
    if gib == 0:
        return "-"
    return f"{gib:.0f}" if gib >= 100 else f"{gib:.1f}" if gib >= 1 else f"{gib:.2g}"


def hours_text(hours):
    """Return hours, with two digits that count; "?" where they are not known."""
    if hours is None:
        return "?"
    if hours == 0:
        return "-"
    return f"{hours:.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"


def as_text(columns, lines):
    """Return an aligned table; numbers stand on the right."""
    cells = [list(columns), *lines]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    text = []
    for line in cells:
        aligned = [
            cell.ljust(width) if place < 3 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(aligned).rstrip())
    rule = "-" * max(map(len, text))
    return "\n".join([text[0], rule, *text[1:-1], rule, text[-1]])


def as_markdown(columns, lines):
    """Return a table in Markdown."""
    rows = [columns, ["---"] * 3 + ["---:"] * (len(columns) - 3), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def save(path, title, columns, lines, notes):
    """Write the plan as CSV, Markdown or text, by the file's suffix."""
    path = Path(path)
    if path.suffix == ".csv":
        save_csv([dict(zip(columns, line, strict=True)) for line in lines], path, list(columns))
        return
    listed = "\n".join(f"- {note}" for note in notes)
    if path.suffix == ".md":
        text = f"# {title}\n\n{as_markdown(columns, lines)}\n\n{listed}\n"
    else:
        text = f"{title}\n\n{as_text(columns, lines)}\n\n{listed}\n"
    with atomic(path) as partial:
        partial.write_text(text)


def short(path):
    """Return a path, from the repository's root where it lies below it."""
    path = Path(path).resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def need_suffix(path):
    """Refuse a file of another kind than `save` writes."""
    if Path(path).suffix not in (".csv", ".md", ".txt"):
        raise InputError(f"--save {path}: a name that ends in .csv, .md or .txt is needed")
