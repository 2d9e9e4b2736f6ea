"""Scripts as `accelerate launch` starts them: several CPU processes of this interpreter, one thread
each."""

import os
import socket
import subprocess
import sys

LAUNCH = "accelerate.commands.launch"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def command(script, *args, processes, port=None, more=()):
    """Return the words of a launch; more: flags of the launcher."""
    return [
        sys.executable,
        "-m",
        LAUNCH,
        "--multi_gpu",
        "--num_processes",
        str(processes),
        "--main_process_port",
        str(port or free_port()),
        *more,
        str(script),
        *map(str, args),
    ]


def start(script, *args, processes=2, **options):
    """A running launch, in a process group of its own (options: of subprocess.Popen)."""
    return _started(command(script, *args, processes=processes), **options)


def _started(words, **options):
    return subprocess.Popen(
        words,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def run(script, *args, processes=2, timeout=300):
    """A finished launch: returncode, stdout, stderr."""
    process = start(script, *args, processes=processes)
    out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_machines(script, *args, folders, timeout=300):
    """A launch on several "machines", each with one process and a working folder of its own.

    Returns:
        [CompletedProcess], one a machine.
    """
    port, count = free_port(), len(folders)
    started = []
    for rank, folder in enumerate(folders):
        more = ["--num_machines", str(count), "--machine_rank", str(rank)]
        more += ["--main_process_ip", "127.0.0.1"]
        words = command(script, *args, processes=count, port=port, more=more)
        started.append(_started(words, cwd=folder))
    done = [(each, each.communicate(timeout=timeout)) for each in started]
    return [subprocess.CompletedProcess(p.args, p.returncode, *texts) for p, texts in done]
