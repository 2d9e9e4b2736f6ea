"""What a script took: seconds, and the most memory of the machine and of the GPU."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from importlib import import_module

import torch

from lvd.utils.config import ROOT

POLL = 0.05  # seconds between two looks at the GPU's memory


@dataclass(frozen=True)
class Measured:
    """What a script took.

    Attributes:
        seconds: of the clock.
        host: bytes of its largest process; gpu: bytes of the GPU, with the driver's own.
        failed: the last line that it said, where it failed; else "".
    """

    seconds: float
    host: int
    gpu: int
    failed: str = ""


class Scripts:
    """Runs the project's scripts, each in a process of its own, or all in this one.

    Args:
        device: torch.device whose memory is looked at.
        here: whether they run in this process, which is cheaper and measures no memory.
    """

    def __init__(self, device, here):
        self.device, self.here = device, here
        self.used_before = self._used()

    def run(self, script, flags, seconds):
        """Run a script; one that takes more seconds is ended.

        Args:
            script: its path from the repository's root.
            flags: its flags.
            seconds: that it may take.

        Returns:
            Measured.
        """
        began = time.monotonic()
        if self.here:
            module = import_module(script.removesuffix(".py").replace("/", "."))
            status = module.main([str(flag) for flag in flags])
            failed = f"exit status {status}" if status else ""
            return Measured(time.monotonic() - began, 0, 0, failed)
        return self._process([sys.executable, str(ROOT / script), *map(str, flags)], seconds)

    def _process(self, command, seconds):
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_paths())},
        )
        said = []
        reader = threading.Thread(target=lambda: said.append(process.stderr.read()), daemon=True)
        reader.start()
        most, host = 0, 0
        while process.poll() is None:
            most = max(most, self._used() - self.used_before)
            host = max(host, _resident(process.pid))
            if time.monotonic() - began > seconds:
                process.kill()
                process.wait()
                return Measured(time.monotonic() - began, host, most, "out of time")
            time.sleep(POLL)
        taken = time.monotonic() - began
        reader.join()
        lines = [line for line in "".join(said).splitlines() if line.strip()]
        failed = (lines[-1][:200] if lines else "?") if process.returncode else ""
        return Measured(taken, host, most, failed)

    def _used(self):
        """Bytes of the GPU that are in use, by whomever."""
        if self.device.type != "cuda":
            return 0
        free, total = torch.cuda.mem_get_info(self.device)
        return total - free


def disk_used(folder):
    """Bytes that the files below a folder take on the disk, linked ones once."""
    taken = {}
    for path in [folder, *folder.rglob("*")]:
        stat = path.lstat()
        taken[stat.st_ino] = stat.st_blocks * 512
    return sum(taken.values())


def _resident(pid):
    """The most bytes of memory that a process has had; 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _paths():
    """Where a script's Python looks first: this repository, then what the caller has named."""
    return [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
