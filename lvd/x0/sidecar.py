"""What is known about an x0 file: its sidecar, and the journals of the processes that fill it.

The sidecar pred_x0.json says what made the file and which rows are whole (completely written). A
running process does not touch it. It has a journal of its own, pred_x0.rows.{rank}.jsonl, and
appends a line for each row that it finished, so a row costs the same however many rows there are.
The last process of a run moves the lines of all journals into the sidecar; after a killed run, the
next run does so. A row is whole if the sidecar or a journal names it.
"""

import glob
import hashlib
import json
from pathlib import Path

from lvd.errors import InputError, shorten
from lvd.utils.config import first_difference
from lvd.utils.files import load_json
from lvd.utils.jsonl import append_lines, cut_half_line, open_lines, read_lines
from lvd.utils.partials import atomic
from lvd.utils.schema import checked
from lvd.x0.sidecar_schema import Line, Sidecar

FORMAT = 1
NEEDED = ("format", "shape", "dtype", "meta", "rows")  # keys that every sidecar has
MAY_DIFFER = ("versions",)  # keys of meta that two runs into one file may differ in


def sidecar_path(path):
    """Return the path of a recording's sidecar: pred_x0.pth → pred_x0.json."""
    return Path(path).with_suffix(".json")


def new_sidecar(shape, dtype, meta, shards=()):
    """Return the sidecar of a recording without rows.

    Args:
        shape: [N, S, C, F, h, w].
        dtype: torch dtype of the file.
        meta: plain JSON dict that says what makes the file.
        shards: [rows of each file], said where there are several.
    """
    return {
        "format": FORMAT,
        "shape": list(shape),
        "dtype": str(dtype).removeprefix("torch."),
        **({"shards": list(shards)} if len(shards) > 1 else {}),
        "meta": json.loads(json.dumps(meta)),
        "rows": {},
    }


def fingerprint_of(shape, dtype, meta, values=None):
    """Return the hex digest of what made a recording.

    Args:
        shape: [N, S, C, F, h, w].
        dtype: as text, such as "float16".
        meta: of its sidecar.
        values: of a recording without a sidecar, some of its first values.
    """
    made_by = {
        "shape": list(shape),
        "dtype": f"torch.{dtype}",
        "meta": {key: value for key, value in meta.items() if key not in MAY_DIFFER},
    }
    if values is not None:
        made_by["values"] = values
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()


def recorded_rows(path):
    """Return {row: facts} of the rows of a recording that are whole; {} without a sidecar."""
    return whole_rows(path, load_sidecar(path)) if sidecar_path(path).exists() else {}


def whole_rows(path, sidecar):
    """Return {row: facts} of the rows that are whole, as the sidecar and the journals tell.

    Args:
        path: of the recording.
        sidecar: of `load_sidecar`.
    """
    finished = JournalReader(path, sidecar["shape"]).new()
    return {int(row): info for row, info in sidecar["rows"].items()} | finished


def numbered_name(row):
    """Return what the video of a row is called that has no name of its own: "0003"."""
    return f"{row:04d}"


def video_name(row, info):
    """Return what the video of a row is called: its file in videos/ has that name and a suffix.

    Args:
        row: its number.
        info: what the sidecar says of the row.
    """
    return info.get("video") or numbered_name(row)


def load_sidecar(path):
    """Read and check the sidecar of the recording `path`.

    Returns:
        {"format", "shape", "dtype", "meta", "rows": {"row": info}}.

    Raises:
        InputError: it is missing, damaged, of another format, or names a row that cannot exist.
    """
    where = sidecar_path(path)
    sidecar = load_json(where)
    keys = set(sidecar) if isinstance(sidecar, dict) else set()
    if not keys >= set(NEEDED):
        raise InputError(
            f"{where}: not the sidecar of an x0 file (keys {', '.join(NEEDED)} are needed)"
        )
    if sidecar["format"] != FORMAT:
        raise InputError(
            f"{where}: format {shorten(sidecar['format'])}, this version reads {FORMAT}"
        )
    checked(Sidecar, sidecar, where)
    _need_all_rows(sidecar, where)
    rows, steps = sidecar["shape"][:2]
    for row, info in sidecar["rows"].items():
        if int(row) >= rows:
            raise InputError(f"{where}: row '{row}' is outside the file's {rows} rows")
        _need_timesteps(info, steps, f"{where}: row {row}")
    return sidecar


def _need_all_rows(sidecar, where):
    """InputError unless the shards have as many rows as the shape says."""
    for part in (sidecar, sidecar.get("growing") or {}):
        held, rows = sum(part.get("shards") or [0]), part.get("shape", [0])[0]
        if "shards" in part and held != rows:
            raise InputError(f"{where}: its shards have {held} rows, its shape says {rows}")
    before, after = (part.get("shards") or [] for part in (sidecar, sidecar.get("growing") or {}))
    if after and len(after) < len(before):
        raise InputError(f"{where}: {len(before)} shards grow to {len(after)}, which are fewer")


def _need_timesteps(info, steps, where):
    for key in ("timesteps", "levels"):
        values = info.get(key)
        if values is not None and len(values) != steps:
            raise InputError(f"{where}: {len(values)} {key}, the file has {steps} steps")


def save_sidecar(sidecar, path):
    """Write the sidecar of the recording `path` atomically, with one line for each row in order."""
    head = json.dumps({k: v for k, v in sidecar.items() if k != "rows"}, indent=1)
    rows = sorted(sidecar["rows"].items(), key=lambda item: int(item[0]))
    lines = ",\n".join(f"  {json.dumps(row)}: {json.dumps(info)}" for row, info in rows)
    with atomic(sidecar_path(path)) as partial, open(partial, "w", encoding="utf-8") as f:
        f.write(f'{head[:-2]},\n "rows": {{\n{lines}\n }}\n}}\n')


def need_same_recording(path, planned):
    """Check that an existing recording was made as the `planned` sidecar says.

    Args:
        path: the recording.
        planned: a sidecar; its rows do not matter.

    Raises:
        InputError: the recording has no sidecar, or differs; the first difference is named.
    """
    if not sidecar_path(path).exists():
        raise InputError(
            f"{path}: exists without {sidecar_path(path).name}, so it cannot be resumed; move it "
            "away"
        )
    existing = load_sidecar(path)
    made_by = {key: existing[key] for key in ("shape", "dtype", "meta")}
    difference = first_difference(made_by, {key: planned[key] for key in made_by}, MAY_DIFFER)
    if difference:
        key, there, now = difference
        raise InputError(
            f"{sidecar_path(path)}: made with {key}={shorten(there)}, now it is {shorten(now)}; "
            "use another folder or move these files away"
        )


class Journal:
    """The rows that one process finished, one JSON line each. The file is made with the first row.

    Args:
        path: the recording.
        rank: number of the process in its run.
    """

    def __init__(self, path, rank):
        self.path = Path(path).with_suffix(f".rows.{rank}.jsonl")
        self._file = None

    def append(self, rows, infos):
        """Add a line for each row. The lines are on the disk when this returns.

        A failure leaves the journal as it was.
        """
        entries = [{"row": row, "info": info} for row, info in zip(rows, infos, strict=True)]
        if self._file is None:
            self._file = open_lines(self.path)
            cut_half_line(self._file)  # of a killed process of the same rank
        append_lines(self._file, entries)

    def close(self):
        if self._file:
            self._file.close()


class JournalReader:
    """Reads the journals of a recording, each time only the lines that are new.

    Args:
        path: the recording.
        shape: its shape, of which the first two are rows and steps.
    """

    def __init__(self, path, shape):
        self.path = Path(path)
        self.count, self.steps = shape[:2]
        self._read = {}  # journal → (bytes, lines) that were read

    def new(self):
        """Return {row: info} of the lines that were added since the last call.

        A line without a newline is left out: it is still being written, or its process was killed.

        Raises:
            InputError: a line is damaged.
        """
        rows = {}
        for journal in journals(self.path):
            offset, count = self._read.get(journal, (0, 0))
            try:
                lines, offset = read_lines(journal, offset)
            except FileNotFoundError:  # its lines were moved into the sidecar meanwhile
                continue
            for number, line in enumerate(lines, count + 1):
                row, info = self._parse(journal, number, line)
                rows[row] = info
            self._read[journal] = offset, count + len(lines)
        return rows

    def _parse(self, journal, number, line):
        try:
            entry = json.loads(line)
            row, info = entry["row"], entry["info"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(
                f"{journal}: line {number} is damaged; delete it, and its row will be sampled again"
            ) from error
        where = f"{journal}: line {number}"
        if type(row) is not int or not 0 <= row < self.count:
            raise InputError(f"{where}: row {shorten(row)} is outside the file's {self.count} rows")
        checked(Line, entry, where)
        _need_timesteps(info, self.steps, f"{where}: info")
        return row, info


def journals(path):
    """Return the paths of a recording's journals, in the order of their ranks."""
    path = Path(path)
    by_rank = {}
    for journal in path.parent.glob(f"{glob.escape(path.stem)}.rows.*.jsonl"):
        rank = journal.name.split(".")[-2]
        if rank.isdecimal():
            by_rank[int(rank), journal.name] = journal
    return [by_rank[key] for key in sorted(by_rank)]


def merge_journals(path, meta):
    """Move the lines of the journals into the sidecar, whose meta becomes `meta`.

    Only for a process that no other one shares the file with. When it is killed in the middle,
    rows stand in both places, which does no harm.
    """
    existing = journals(path)
    if not existing:
        return
    sidecar = load_sidecar(path)
    finished = JournalReader(path, sidecar["shape"]).new()
    rows = sidecar["rows"] | {str(row): info for row, info in finished.items()}
    save_sidecar({**sidecar, "meta": meta, "rows": rows}, path)
    for journal in existing:
        journal.unlink()
