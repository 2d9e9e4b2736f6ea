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
    """Claim a work folder for what its finished runs depend on.

    Args:
        folder: the work folder.
        settings: of the recordings' YAML (read_recordings).
        eval_dir: eval.pth or its folder.
        others: more that the runs depend on.

    Raises:
        InputError: when the folder holds runs of other data or settings.
    """
    fingerprints = {}
    for key in ("pred_x0", "normal_pred_x0"):
        fingerprints[key] = open_x0_file(settings[key]).fingerprint
    known = {
        "recordings": fingerprints,
        "labels": sha256(settings["label_file_dir"]),
        "eval_sha256": sha256(split_path(eval_dir)),
    }
    claim_output(folder, {**known, **others})


def run_script(script, *flags, **environment):
    """Run a script as a user does.

    Args:
        script: its name, from the repository's root.
        flags: its flags.
        environment: variables to set.

    Raises:
        InputError: with the last line that it said, when it fails.
    """
    command = [sys.executable, str(ROOT / script), *map(str, flags)]
    ended = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        reason = lines[-1][:300] if lines else "nothing said"
        raise InputError(f"{script}: exit status {ended.returncode} ({reason})")


def run_once(folder, script, *flags):
    """Run a script unless {folder}/times.json says that it is done there; its seconds and those of
    the CPU go into that file."""
    path = Path(folder) / "times.json"
    times = load_json(path) if path.exists() else {}
    if script in times:
        return
    began, before = time.time(), _cpu()
    run_script(script, *flags, OMP_NUM_THREADS="1")
    save_json({**times, script: {"wall": time.time() - began, "cpu": _cpu() - before}}, path)


def size_of(folder):
    """Bytes of the files below a folder, linked ones once; 0 where there is none."""
    sizes = {}
    for path in Path(folder).rglob("*"):
        if path.is_file():
            stat = path.stat()
            sizes[stat.st_ino] = stat.st_size
    return sum(sizes.values())


def _cpu():
    """CPU seconds of all processes that this one has started and seen end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
