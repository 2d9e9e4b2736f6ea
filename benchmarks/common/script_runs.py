"""Runs of the project's scripts that a benchmark made of many needs only once, and what they leave
on the disk."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from lvd.data.split import split_path
from lvd.errors import InputError
from lvd.utils.config import ROOT, claim_output
from lvd.utils.files import load_json, save_json, sha256
from lvd.x0.file import open_x0_file


def claim_work(folder, settings, eval_dir, **others):
    """What a work folder's finished runs depend on; InputError when it holds those of other data or
    settings.

    settings: of the recordings' YAML (read_data_config).
    """
    made_by = {
        key: open_x0_file(settings[key]).fingerprint for key in ("pred_x0", "normal_pred_x0")
    }
    claim_output(
        folder,
        {
            "recordings": made_by,
            "labels": sha256(settings["label_file_dir"]),
            "eval_sha256": sha256(split_path(eval_dir)),
            **others,
        },
    )


def run_once(folder, script, *flags):
    """Run a script unless {folder}/times.json says that it is done there; what it took goes into
    that file."""
    path = Path(folder) / "times.json"
    times = load_json(path) if path.exists() else {}
    if script in times:
        return
    began, before = time.time(), _cpu()
    ended = subprocess.run(
        [sys.executable, ROOT / script, *map(str, flags)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if ended.returncode:
        said = [line for line in ended.stderr.splitlines() if line.strip()]
        raise InputError(
            f"{script}: exit status {ended.returncode} "
            f"({said[-1][:300] if said else 'nothing said'})"
        )
    save_json({**times, script: {"wall": time.time() - began, "cpu": _cpu() - before}}, path)


def size_of(folder):
    """Bytes of the files below a folder, linked ones once."""
    found = (
        [p.stat() for p in Path(folder).rglob("*") if p.is_file()] if Path(folder).exists() else []
    )
    return sum({stat.st_ino: stat.st_size for stat in found}.values())


def _cpu():
    """CPU seconds of all processes that this one has started and seen end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
