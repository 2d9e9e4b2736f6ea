"""Reading and writing files: whole or not at all, never unpickling code, errors that name the file."""

import csv
import hashlib
import json
import os
import platform
import re
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch
import yaml

from lvd.errors import InputError

SMALL, BLOCK, SAMPLES = 64 << 20, 1 << 20, 64  # bytes, bytes, blocks: how `fingerprint` reads files
PARTIAL = re.compile(
    r"\..+\.((?P<here>[0-9a-f]{8})-)?(?P<pid>\d{1,9})\.partial(\.[^.]*)?"
)  # of `atomic`
DAY = 86_400  # seconds; no partial file is left unwritten for so long while its process lives


@contextmanager
def atomic(path):
    """Yield a temporary path beside `path`; rename it to `path` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{_here()}-{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sweep_partials(folder):
    """Delete what killed processes left half-written by `atomic` in `folder` (not below it).

    A process that was started here (this machine, since it was booted, this container) can be
    looked up; what another one left, on a disk that is shared or before a reboot, goes a day after
    it was last written to.
    """
    for partial in Path(folder).glob(".*.partial*"):
        found = PARTIAL.fullmatch(partial.name)
        with suppress(FileNotFoundError):  # just finished
            if found and (
                not _runs(int(found["pid"]))
                if found["here"] == _here()
                else time.time() - partial.stat().st_mtime > DAY
            ):
                partial.unlink()


@cache
def _here():
    """Eight hex digits of where process numbers are this process's: the machine, its boot and the
    container."""
    marks = [platform.node()]
    with suppress(OSError):  # Linux says more than the name, which machines may share
        marks += [
            Path("/proc/sys/kernel/random/boot_id").read_text(),
            os.readlink("/proc/self/ns/pid"),
        ]
    return hashlib.sha256("".join(marks).encode()).hexdigest()[:8]


def _runs(pid):
    try:
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; a number that no process has
        return True
    return True


def save_torch(obj, path):
    with atomic(path) as partial, open(partial, "wb") as f:
        torch.save(
            obj, f
        )  # to a handle: given a path, torch writes the temporary name into the file


def raw_bytes(tensor):
    """The bytes of a CPU tensor, its values in order, as they lie in memory: a view, not a copy of
    them."""
    return memoryview(tensor.contiguous().flatten().view(torch.uint8).numpy())


def load_torch(path, mmap=False, map_location="cpu"):
    """torch.load with weights_only=True; InputError for a missing, truncated or foreign file."""
    need_file(path)
    try:
        return torch.load(path, mmap=mmap, map_location=map_location, weights_only=True)
    # garbage bytes drive the unpickler into IndexError, struct.error, AssertionError, ...
    except Exception as error:
        raise InputError(f"{path}: not a readable torch file ({_torch_reason(error)})") from error


def _torch_reason(error):
    """What torch.load says, in one line; its advice to run pickled code is not passed on."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()] or [
        type(error).__name__
    ]
    if foreign := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it holds {foreign[1]} besides tensors, and no pickled code is run"
    if "weights_only" not in lines[0]:
        return lines[0][:160]
    return f"no tensors: {lines[-2] if len(lines) > 1 else lines[-1]}"[:160]


def save_json(obj, path):
    with atomic(path) as partial:
        partial.write_text(json.dumps(obj, indent=1, sort_keys=True) + "\n")


def load_json(path):
    return _parsed(path, read_text(path), json.loads, "JSON")


def save_yaml(obj, path):
    with atomic(path) as partial:
        partial.write_text(yaml.safe_dump(obj, sort_keys=False, allow_unicode=True))


def load_yaml(path):
    return _parsed(path, read_text(path), yaml.safe_load, "YAML")


def parse_yaml(text, where):
    """The value of a YAML text; `where` is what a message calls it."""
    return _parsed(where, text, yaml.safe_load, "YAML")


def save_csv(rows, path):
    """Dicts of the same keys as a table with a header; floats to six decimals."""
    with atomic(path) as partial, open(partial, "w", newline="") as f:
        table = csv.DictWriter(f, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(
            {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )


def read_text(path):
    """The text of a UTF-8 file (a byte order mark is dropped)."""
    need_file(path)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error


def need_file(path):
    if not Path(path).is_file():
        what = "is a folder, a file is needed" if Path(path).is_dir() else "no such file"
        raise InputError(f"{path}: {what}")


def sha256(path):
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(path):
    """Hex digest that tells whether a weight file, or any file of a folder (hidden ones aside), was
    replaced.

    Up to SMALL bytes it is the file's sha256. Of a larger file, SAMPLES blocks of BLOCK bytes are
    hashed after its size: the first, the last and evenly spaced ones between, so gigabytes take a
    fraction of a second. A change that keeps the size and touches no such block goes unnoticed;
    other training changes all of them. A folder's digest is that of its files' relative names and
    digests.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
        shown = [
            name for name in names if not any(part.startswith(".") for part in name.split("/"))
        ]
        return hashlib.sha256(
            "".join(f"{name}\0{fingerprint(path / name)}\n" for name in shown).encode()
        ).hexdigest()
    size = path.stat().st_size
    if size <= SMALL:
        return sha256(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as f:
        for i in range(SAMPLES):
            f.seek((size - BLOCK) * i // (SAMPLES - 1))
            digest.update(f.read(BLOCK))
    return digest.hexdigest()


def _parsed(where, text, parse, kind):
    try:
        return parse(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{where}: not valid {kind} ({reason})") from error
