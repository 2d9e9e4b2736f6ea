"""Run a script as several processes of one thread each, on the CPUs of this machine.

The script must know `accelerate launch`, as MagicTime/inference_magictime.py does: the processes
share its work, and the results are those of one process of one thread. Unlike that launcher this
one needs no port to be chosen, and it ends with one line: Ctrl-C stops all processes, and when one
fails the others are stopped, too. The same command goes on.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command

MEMORY = 2**30  # bytes that a process of the tiny world needs, with something to spare
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # how much of the CPUs a container may use
MOST = 1024  # processes
PATIENCE = 10  # seconds that a process has to end after SIGTERM
LOOK = 0.1  # seconds between two looks at the processes


def build_parser():
    parser = Parser(
        __doc__,
        "python tools/side_by_side.py --processes auto MagicTime/inference_magictime.py "
        "--config sample_configs/Tiny.yaml --gpu_num -1",
    )
    parser.add_argument(
        "--processes",
        default="auto",
        metavar="N",
        help="how many; auto (default): one for each core, and for each GiB of free memory",
    )
    parser.add_argument("script", help="path of a Python script")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="its arguments")
    return parser


def work(args):
    count = usable_cores() if args.processes == "auto" else _count(args.processes)
    if not Path(args.script).is_file():
        raise InputError(f"script {args.script}: no such file")
    command = [sys.executable, args.script, *args.words]
    print(f"{count} process(es) of one thread each", flush=True)
    together(command, count)


def _count(text):
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MOST:
        raise InputError(f"--processes {text}: auto, or a number from 1 to {MOST}, is needed")
    return int(text)


def usable_cores():
    """Return how many processes of one thread this machine can run at full speed."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        cores = min(cores, round(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no container, or one without a limit ("max")
    return max(1, min(cores, psutil.virtual_memory().available // MEMORY))


def together(command, count):
    """Run `count` processes of a command until all have ended.

    Args:
        command: [word].
        count: number of processes.

    Raises:
        InputError: a process was killed.
        SystemExit: a process has failed, which has said why; the status is its own.
    """
    started = []
    try:
        # Processes that ignore Ctrl-C say nothing about it, this one stops them.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for variables in environments(count):
                started.append(subprocess.Popen(command, env=variables))
        finally:
            signal.signal(signal.SIGINT, before)
        failed = _first_failed(started)
    finally:
        _stop(started)
    if failed is None:
        return
    if started[failed].returncode < 0:
        killed_by = signal.Signals(-started[failed].returncode).name
        raise InputError(
            f"process {failed} of {count} was ended by {killed_by}; the same command goes on "
            "(SIGKILL: maybe too little memory, fewer --processes are needed)"
        )
    raise SystemExit(started[failed].returncode)


def environments(count):
    """Return the environment variables of each process, as launchers of torch set them."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    if count == 1:
        return [variables]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if loopback:  # else the machine's name is looked up, and a laptop may not know its own
        variables.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
    return [{**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _first_failed(started):
    """Wait until all have ended, or one has failed.

    Returns:
        The number of that one, or None. One that another's end has stopped comes after that one.
    """
    while True:
        status = [process.poll() for process in started]
        failed = [rank for rank, each in enumerate(status) if each]
        if failed:
            return min(failed, key=lambda rank: (status[rank] > 0, rank))
        if all(each == 0 for each in status):
            return None
        time.sleep(LOOK)


def _stop(started):
    """End the processes that still run."""
    running = [process for process in started if process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
