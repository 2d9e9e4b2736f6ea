"""What is known about an x0 file: its sidecar pred_x0.json, and the journals of the processes that
are filling it.

The sidecar says what made the file and which rows are whole. A running process does not touch it:
it appends a line for each row it finished to a journal of its own, pred_x0.rows.{rank}.jsonl, so
that a row costs the same whatever the number of rows. The last process to leave folds the journals
into the sidecar; what a killed run left is folded by the next one. A row counts as whole when
either names it.
"""

import glob
import json
import os
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.config import first_difference, shorten
from lvd.utils.files import atomic, load_json
from lvd.utils.jsonl import append_lines, cut_half_line, open_lines, read_lines

FORMAT = 1
KINDS = {"format": int, "shape": list, "dtype": str, "meta": dict, "rows": dict}


def sidecar_path(path):
    """pred_x0.pth → pred_x0.json"""
    return Path(path).with_suffix(".json")


def new_sidecar(shape, dtype, meta):
    """shape [N, S, C, F, h, w]; meta: plain JSON dict that says what makes the file."""
    return {
        "format": FORMAT,
        "shape": list(shape),
        "dtype": str(dtype).removeprefix("torch."),
        "meta": json.loads(json.dumps(meta)),
        "rows": {},
    }


def load_sidecar(path):
    """{"format", "shape", "dtype", "meta", "rows": {"row": info}} of the recording `path`, checked."""
    where = sidecar_path(path)
    sidecar = load_json(where)
    if not isinstance(sidecar, dict) or any(
        not isinstance(sidecar.get(k), kind) for k, kind in KINDS.items()
    ):
        raise InputError(
            f"{where}: not the sidecar of an x0 file (keys {', '.join(KINDS)} are needed)"
        )
    if sidecar["format"] != FORMAT:
        raise InputError(f"{where}: format {sidecar['format']}, this version reads {FORMAT}")
    bad = [row for row in sidecar["rows"] if not row.isdecimal() or int(row) >= sidecar["shape"][0]]
    if bad:
        raise InputError(
            f"{where}: row {bad[0]!r} is outside the file's {sidecar['shape'][0]} rows"
        )
    return sidecar


def save_sidecar(sidecar, path):
    """Atomically, one line per row, in their order."""
    head = json.dumps({k: v for k, v in sidecar.items() if k != "rows"}, indent=1)
    rows = sorted(sidecar["rows"].items(), key=lambda item: int(item[0]))
    lines = ",\n".join(f"  {json.dumps(row)}: {json.dumps(info)}" for row, info in rows)
    with atomic(sidecar_path(path)) as partial, open(partial, "w", encoding="utf-8") as f:
        f.write(f'{head[:-2]},\n "rows": {{\n{lines}\n }}\n}}\n')
        f.flush()
        os.fsync(f.fileno())


def need_same_recording(path, planned, ignore):
    """InputError unless the file that is there was made as the `planned` sidecar says (keys in
    `ignore` aside)."""
    if not sidecar_path(path).exists():
        raise InputError(
            f"{path}: exists without {sidecar_path(path).name}, so it cannot be resumed; move it "
            "away"
        )
    found = load_sidecar(path)
    made_by = {key: found[key] for key in ("shape", "dtype", "meta")}
    difference = first_difference(made_by, {key: planned[key] for key in made_by}, ignore)
    if difference:
        key, there, now = difference
        raise InputError(
            f"{sidecar_path(path)}: made with {key}={shorten(there)}, now it is {shorten(now)}; "
            "use another folder or move these files away"
        )


class Journal:
    """One process's list of the rows it finished. Made with the first of them."""

    def __init__(self, path, rank):
        self.path, self._file = Path(path).with_suffix(f".rows.{rank}.jsonl"), None

    def append(self, rows, infos):
        """One line per row, on the disk when this returns; a failure leaves the journal as it was."""
        entries = [{"row": row, "info": info} for row, info in zip(rows, infos, strict=True)]
        if self._file is None:
            self._file = open_lines(self.path)
            cut_half_line(self._file)  # of a killed process of the same rank
        append_lines(self._file, entries)

    def close(self):
        if self._file:
            self._file.close()


class JournalReader:
    """What the journals of a recording of `count` rows say, read on from where the last look ended."""

    def __init__(self, path, count):
        self.path, self.count = Path(path), count
        self._read = {}  # journal → bytes and lines read

    def new(self):
        """{row: info} of the lines that came since the last look. A line without its end is not
        there yet, or never: its process was killed. InputError for a damaged one."""
        found = {}
        for journal in journals(self.path):
            offset, count = self._read.get(journal, (0, 0))
            try:
                lines, offset = read_lines(journal, offset)
            except FileNotFoundError:  # folded into the sidecar meanwhile
                continue
            for number, line in enumerate(lines, count + 1):
                row, info = self._parse(journal, number, line)
                found[row] = info
            self._read[journal] = offset, count + len(lines)
        return found

    def _parse(self, journal, number, line):
        try:
            entry = json.loads(line)
            row, info = entry["row"], entry["info"]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{journal}: line {number} is damaged; delete it, and its row will be sampled again"
            ) from error
        if type(row) is not int or not 0 <= row < self.count:
            raise InputError(
                f"{journal}: line {number}: row {row!r} is outside the file's {self.count} rows"
            )
        return row, info


def journals(path):
    """The journals that are there, by rank."""
    path = Path(path)
    found = [
        p
        for p in path.parent.glob(f"{glob.escape(path.stem)}.rows.*.jsonl")
        if p.name.split(".")[-2].isdecimal()
    ]
    return sorted(found, key=lambda journal: int(journal.name.split(".")[-2]))


def fold(path, meta):
    """Move what the journals say into the sidecar, whose meta becomes `meta`. For the file's only
    owner.

    Stopped between the two, rows stand in both, which does no harm.
    """
    there = journals(path)
    if there:
        sidecar = load_sidecar(path)
        found = JournalReader(path, sidecar["shape"][0]).new()
        rows = sidecar["rows"] | {str(row): info for row, info in found.items()}
        save_sidecar({**sidecar, "meta": meta, "rows": rows}, path)
        for journal in there:
            journal.unlink()
