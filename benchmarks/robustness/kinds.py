"""The kinds of trials: what happens to a command before it is run to its end."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from benchmarks.robustness.trials import Ended, Running, copy_world, faults_of, files_below, run
from lvd.utils.config import ROOT

SIGNALS = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}  # exit statuses
SIZE_LIMIT, SMALL_DISK, AT_ONCE = "file size limit", "small disk", "two at once"
LAUNCHED = "one of two processes killed"
KINDS = (*SIGNALS, SIZE_LIMIT, SMALL_DISK, AT_ONCE)
AGAIN = 1 / 3  # share of the stopped commands that are stopped a second time
PRELOAD = Path(__file__).parent / "preload"


def disturb(kind, reference, folder, draw):
    """Do to a command what the kind says.

    Args:
        kind: of KINDS, or LAUNCHED.
        reference: of the command.
        folder: the world where it works, as it was before it.
        draw: random.Random.

    Returns:
        (faults, whether it was stopped on the way, what `reference.finish` says).
    """
    if kind == SMALL_DISK:
        with SmallDisk(folder, reference.before) as disk:
            return disk.fill(reference, draw)
    faults, stopped = _disturb(kind, reference, folder, draw)
    return faults, stopped, reference.finish(folder)


def _disturb(kind, reference, folder, draw):
    if kind in SIGNALS:
        return _stop(kind, reference, folder, draw)
    if kind == AT_ONCE:
        return _two_at_once(reference.case, folder)
    if kind == LAUNCHED:
        return _launch(reference, folder, draw)
    largest = max(reference.written_sizes(), default=1)
    ended = run(reference.case, folder, limit=draw.randrange(largest))
    return _of_a_full_disk(ended, folder)


def _stop(kind, reference, folder, draw):
    faults, times = [], 1 + (draw.random() < AGAIN)
    for _ in range(times):
        at = draw.randint(1, max(1, reference.operations))
        ended = run(reference.case, folder, at=at, signum=signal.Signals[kind])
        reached = ended.operations is None or ended.operations >= at
        statuses = {SIGNALS[kind]} if reached else {0}
        faults += [f"operation {at}: {fault}" for fault in faults_of(ended, statuses)]
    return faults, True


def _two_at_once(case, folder):
    both = [Running(case, folder) for _ in range(2)]
    ends = [running.wait() for running in both]
    faults = [fault for ended in ends for fault in faults_of(ended, {0, 2})]
    if all(ended.status for ended in ends):
        faults.append("neither of two finished")
    return faults, any(ended.status for ended in ends)


def _of_a_full_disk(ended, folder):
    """(faults, whether it was full) of a command that had too little room."""
    faults = faults_of(ended, {0, 2})
    if ended.status == 2 and "error: standard" in ended.errors:
        faults.append(f"names no file: {ended.lines[-1]}")
    left = [name for name in files_below(folder) if ".partial" in name]
    return faults + [f"{name}: is left" for name in left], ended.status == 2


class SmallDisk:
    """A tmpfs in place of the folder where a command works; only root can make one."""

    def __init__(self, folder, before):
        self.folder, self.before = folder, before

    @staticmethod
    def works(folder):
        """Whether this process may mount one."""
        mounted = _mount("-t", "tmpfs", "tmpfs", folder)
        return mounted and _unmount(folder)

    def __enter__(self):
        _mount("-t", "tmpfs", "-o", "size=1g", "tmpfs", self.folder)
        copy_world(self.before, self.folder)
        return self

    def fill(self, reference, draw):
        """Run the command with too little room, then again with enough."""
        room = os.statvfs(self.folder)
        used = (room.f_blocks - room.f_bfree) * room.f_frsize
        size = used + draw.randrange(max(1, reference.bytes_written()))
        _mount("-o", f"remount,size={size}", self.folder)
        faults, full = _of_a_full_disk(run(reference.case, self.folder), self.folder)
        _mount("-o", "remount,size=1g", self.folder)
        return faults, full, reference.finish(self.folder)

    def __exit__(self, *_):
        _unmount(self.folder)


def _mount(*words):
    return subprocess.run(["mount", *map(str, words)], capture_output=True).returncode == 0


def _unmount(folder):
    return subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0


def _launch(reference, folder, draw):
    """Kill one of two processes of `accelerate launch`; the launcher ends the other."""
    name = draw.choice(["SIGKILL", "SIGTERM", "SIGINT"])
    stop = {
        "STOP_RANK": str(draw.randrange(2)),
        # A process of two does half of the operations, and counts fewer: not those of its imports.
        "STOP_AT": str(draw.randint(1, max(1, reference.operations // 8))),
        "STOP_SIGNAL": str(int(signal.Signals[name])),
        "PYTHONPATH": f"{PRELOAD}:{ROOT}",
        "OMP_NUM_THREADS": "1",
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    script = reference.case.script.__file__
    command = [sys.executable, "-m", *words, "--main_process_port", str(port), script]
    done = subprocess.run(
        [*command, *reference.case.argv],
        cwd=folder,
        env={**os.environ, **stop},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return [], Ended(done.returncode, done.stderr).status != 0
