"""What was downloaded before: the record beside the files, and whether they are still the same."""

from pathlib import Path

from lvd.errors import InputError
from lvd.utils.cli import summary

RECORD = "download.json"  # {file below --dir: where it came from, size, sha256}


def read_record(folder):
    """Return {file below --dir: facts} of earlier downloads into `folder`."""
    from lvd.utils.files import load_json

    path = Path(folder) / RECORD
    record = load_json(path) if path.exists() else {}
    if not isinstance(record, dict) or not all(
        isinstance(entry, dict) and {"size", "sha256", "wanted_revision"} <= set(entry)
        for entry in record.values()
    ):
        raise InputError(f"{path}: not a record of downloads; delete it to go without")
    return record


def check(weights, folder):
    """Hash files and compare them with weights.yaml and the record of the download, offline."""
    from lvd.utils.progress import progress
    from MagicTime.prepare_weights.hub import difference

    record = read_record(folder)
    files = [file for weight in weights for file in weight.files]
    targets = [folder / file.here for file in files]
    total = sum(target.stat().st_size for target in targets if target.is_file())
    bad = []
    with progress(None, "hashing", unit="B", total=total, disable=total == 0) as bar:
        for file, target in zip(files, targets, strict=True):
            entry = record.get(file.here, {})
            size = entry.get("size", file.size)
            known = entry["sha256"] if entry else file.hash
            hashes = [known] if known else []
            wrong = "missing"
            if target.is_file():
                wrong, _ = difference(target, size, hashes, bar.update)
            if wrong:
                bad.append(f"{file.here}: {wrong}")
            right = "ok" if hashes else "there, but nothing is known to compare it with"
            bar.write(f"{wrong or right}: {file.here}")
    if bad:
        raise InputError(
            f"--check {folder}: {len(bad)} of {len(files)} files are missing or wrong, first "
            f"{bad[0]}"
        )
    summary("checked", {"files": len(files)}, [])
