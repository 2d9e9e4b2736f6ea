"""Reading and writing files.

A file is written whole or not at all. No pickled code is run. Errors name the file.
"""

import csv
import hashlib
import json
import pickle
import re
import zipfile
from pathlib import Path

import torch

from lvd.errors import InputError
from lvd.utils.canonical import canonical
from lvd.utils.parsing import dump_yaml, parse_json, parse_yaml
from lvd.utils.partials import atomic
from lvd.utils.stand_ins import STAND_INS, stand_ins

# How `fingerprint` reads a file: whole up to SMALL bytes, else SAMPLES blocks of BLOCK bytes.
SMALL = 64 << 20
BLOCK = 1 << 20
SAMPLES = 64
# Bytes of the largest texts that are read: a sidecar has some 500 a video, a label file 8.
TEXT_LIMIT = 64 << 20
JSON_LIMIT = 512 << 20
YAML_LIMIT = 2 << 20


def save_torch(obj, path, durable=True):
    """Write a torch file, atomically. Equal content gives equal bytes.

    Args:
        obj: tensors and plain values.
        path: of the file.
        durable: see `atomic`.
    """
    with atomic(path, durable) as partial, open(partial, "wb") as f:
        # An open file: given a path, torch would write the temporary name into the file.
        torch.save(canonical(obj), f)


def raw_bytes(tensor):
    """Return the bytes of a CPU tensor, its values in order: a view where it is contiguous."""
    return memoryview(tensor.contiguous().flatten().view(torch.uint8).numpy())


def load_torch(path, mmap=False, map_location="cpu"):
    """Read a torch file with weights_only=True.

    Files of the paper's scripts are read too: numpy's numbers in them become plain ones, and
    defaultdicts plain dicts (lvd.utils.stand_ins). Nothing else is taken.

    Args:
        path: the file.
        mmap: map its tensors into memory instead of reading them.
        map_location: device of the tensors, as in torch.load.

    Raises:
        InputError: the file is missing, truncated, or holds something else than tensors and
            plain values.
    """
    need_file(path)

    def load():
        return torch.load(path, mmap=mmap, map_location=map_location, weights_only=True)

    try:
        try:
            return load()
        except pickle.UnpicklingError as error:
            if _foreign_name(error) not in STAND_INS:
                raise
        with stand_ins():
            return load()
    # Damaged bytes make the unpickler raise IndexError, struct.error, AssertionError, ...
    except Exception as error:
        reason = _cut_off(path) or _torch_reason(error)
        raise InputError(f"{path}: not a readable torch file ({reason})") from error


def _cut_off(path):
    """Say that a file is a part of one, as a copy that was broken off leaves it; "" if it is not.

    A torch file is a zip archive: it begins with PK, and at its end is the table of its entries.
    """
    with open(path, "rb") as f:
        begins = f.read(4)
    if begins == b"PK\3\4" and not _has_table(path):
        return "truncated: its end is missing; copy it again"
    return "" if begins.strip(b"\0") else "it begins with zeros or is empty; copy it again"


def _has_table(path):
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # of a damaged end
        return False


def _torch_reason(error):
    """What torch.load says, in one line, without its advice to run pickled code."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    if not lines:
        return type(error).__name__
    if foreign := _foreign_name(error):
        return f"it holds {foreign[:80]} besides tensors, and no pickled code is run"
    if "weights_only" not in lines[0]:
        return lines[0][:160]
    reason = lines[-2] if len(lines) > 1 else lines[-1]
    return f"no tensors: {reason}"[:160]


def _foreign_name(error):
    """The name in a torch file that torch.load refused, or None."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return found[1] if found else None


def save_text(text, path):
    """Write a text as UTF-8, atomically."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def save_json(obj, path):
    """Write plain values as JSON with sorted keys, atomically."""
    save_text(json.dumps(obj, indent=1, sort_keys=True) + "\n", path)


def load_json(path):
    """Read a JSON file; InputError when it is missing, not JSON, or has a key twice."""
    return parse_json(read_text(path, JSON_LIMIT), path)


def save_yaml(obj, path):
    """Write plain values as YAML in their order, atomically."""
    # Without a copy, a list that occurs twice would be written as a reference to the first.
    save_text(dump_yaml(canonical(obj)), path)


def load_yaml(path):
    """Read a YAML file: see lvd.utils.parsing; InputError also when it is missing."""
    return parse_yaml(read_text(path, YAML_LIMIT), path)


def save_csv(rows, path, columns=None):
    """Write a table with a header as CSV, atomically.

    Args:
        rows: [{column: value}]; a missing value is written as an empty cell, a float with six
            decimals at most.
        path: of the file.
        columns: the order of the columns; None: that of the first row.
    """
    with atomic(path) as partial, open(partial, "w", newline="", encoding="utf-8") as f:
        table = csv.DictWriter(f, fieldnames=columns or list(rows[0]))
        table.writeheader()
        for row in rows:
            table.writerow({column: _rounded(value) for column, value in row.items()})


def _rounded(value):
    return round(value, 6) if isinstance(value, float) else value


def read_text(path, limit=TEXT_LIMIT):
    """Read a UTF-8 file without its byte order mark.

    Raises:
        InputError: it is missing, not UTF-8, or has more than `limit` bytes: a weight file, for
            example, that was named by mistake.
    """
    need_file(path)
    size = Path(path).stat().st_size
    if size > limit:
        raise InputError(f"{path}: {size >> 20} MiB; a text of at most {limit >> 20} MiB is needed")
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error


def need_file(path):
    """InputError unless `path` is a file."""
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder, a file is needed")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")


def need_no_folder(path, flag):
    """InputError where a folder is named as a file to write: now, and not when all is computed."""
    if Path(path).is_dir():
        raise InputError(f"{flag} {path}: is a folder, the name of a file is needed")


def sha256(path):
    """Return the hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(path):
    """Return a hex digest that tells whether weights were replaced.

    Of a file up to SMALL bytes it is the sha256. Of a larger one, its size and SAMPLES blocks are
    hashed, which takes a fraction of a second: the first block, the last, and evenly spaced ones
    between. Other training changes all of them. A change that keeps the size and lies between the
    blocks is not noticed.

    Args:
        path: a weight file, or a folder: the names and digests of its files, without hidden ones.
    """
    path = Path(path)
    if path.is_dir():
        return _folder_fingerprint(path)
    size = path.stat().st_size
    if size <= SMALL:
        return sha256(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as f:
        for i in range(SAMPLES):
            f.seek((size - BLOCK) * i // (SAMPLES - 1))
            digest.update(f.read(BLOCK))
    return digest.hexdigest()


def _folder_fingerprint(folder):
    digest = hashlib.sha256()
    files = [file for file in folder.rglob("*") if file.is_file()]
    for name in sorted(file.relative_to(folder).as_posix() for file in files):
        if not any(part.startswith(".") for part in name.split("/")):
            digest.update(f"{name}\0{fingerprint(folder / name)}\n".encode())
    return digest.hexdigest()
