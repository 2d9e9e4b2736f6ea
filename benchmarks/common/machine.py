"""What figures were taken on and with, for the first lines of every result file."""

import os
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lvd.utils.config import ROOT, versions


def facts():
    """Commit, versions, date and machine, without names of hosts or folders: {fact: text}."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "commit": commit(ROOT),
        "versions": ", ".join(f"{name} {number}" for name, number in all_versions().items()),
        "date": date.today().isoformat(),
        "cpu": f"{cpu_model()}, {cores} cores, {torch.get_num_threads()} torch threads",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "memory": f"{memory:.0f} GiB",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
    }


def commit(folder):
    """The short hash of the commit at work in a folder, "+changes" behind it where tracked files
    differ from it; "unknown" outside git."""
    head = _git(folder, "rev-parse", "--short", "HEAD")
    if not head:
        return "unknown"
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if changed else head


def _git(folder, *words):
    """What git prints; "" where it fails or is not installed."""
    command = ["git", "-C", str(folder), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def all_versions():
    """{name: version} of Python, the libraries that shape results, and lvd."""
    try:
        own = version("lvd")
    except PackageNotFoundError:  # run from its folder
        own = "not installed"
    return {**versions(), "lvd": own}


def cpu_model():
    """The processor's name as Linux gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
