"""What prompts.py writes: normal.txt, and beside it normal.yaml (what it is) and normal.csv (whose
captions these are).

The text file is written last. So it is there only when all three are whole.
"""

import csv
import hashlib
from pathlib import Path

from lvd.errors import InputError, shorten
from lvd.utils.changes import what_changed
from lvd.utils.config import first_difference
from lvd.utils.files import load_yaml, save_yaml, sha256
from lvd.utils.partials import atomic

OTHER_NAMES = {"dataset": "what", "columns": "column"}  # flags that are not called as their setting
COLUMNS = ("row", "id", "start", "end", "umt_score", "aesthetic_score", "dataset_row")


def beside(path):
    """Return the paths of the YAML and the CSV of a prompt file."""
    return path.with_suffix(".yaml"), path.with_suffix(".csv")


def need_text_name(path):
    """InputError unless --out can be a prompt file with others beside it."""
    if path.suffix != ".txt" or path.is_dir():
        raise InputError(f"--out {path}: the name of a .txt file is needed")
    if files := [parent for parent in path.parents if parent.is_file()]:
        raise InputError(f"--out {path}: {files[0]} is a file, a folder is needed there")


def is_there(path, settings):
    """Whether an earlier run with these settings wrote the prompt file.

    Args:
        path: of the prompt file.
        settings: {key: value} of this run.

    Raises:
        InputError: one of the three files is there and is another run's, or nobody's that we know.
    """
    about, sources = beside(path)
    others = [file for file in (path, sources) if file.exists()]
    record = load_yaml(about) if about.exists() else None
    ours = isinstance(record, dict) and {"settings", "sha256"} <= set(record)
    if about.exists() and not ours:
        raise InputError(f"{about}: not a file of prompts.py; another --out is needed")
    if others and not ours:
        raise InputError(
            f"{others[0]}: there already, and no {about.name} says what it is; delete it or use "
            "another --out"
        )
    if not path.exists():  # a run that was killed before its end, or nothing
        return False
    if sha256(path) != record["sha256"].get("prompts"):
        raise InputError(
            f"{path}: was changed since it was written; use another --out or delete it"
        )
    difference = first_difference(record["settings"], settings)
    if difference:
        raise InputError(f"{path}: {_changed(*difference)}; use another --out or delete it")
    return True


def _changed(key, before, now):
    """Say what a difference between the settings of two runs means."""
    if key.startswith("files."):
        return f"was made of other files: {key.removeprefix('files.')} is not the same"
    if words := what_changed(key, before, now):
        return f"after it was made, {words}"
    setting = key.partition(".")[0]
    flag = OTHER_NAMES.get(setting, setting)
    return f"was made with --{flag} {shorten(before)}, now it is {shorten(now)}"


def write(path, captions, record):
    """Write the three files.

    Args:
        path: of the prompt file.
        captions: [prompt_draw.Caption], one a line.
        record: {key: value} of the YAML; hashes are added.

    Returns:
        The paths.
    """
    about, sources = beside(path)
    text = "".join(f"{caption.text}\n" for caption in captions).encode()
    hashes = {"prompts": hashlib.sha256(text).hexdigest()}
    save_yaml({**record, "sha256": hashes}, about)
    with atomic(sources) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for row, caption in enumerate(captions):
            own = {"row": row, "id": caption.id, "dataset_row": caption.row}
            table.writerow({**own, **dict(caption.facts)})
    with atomic(path) as partial:
        Path(partial).write_bytes(text)
    return [path, about, sources]
