"""Scripts as `accelerate launch` starts them: several CPU processes of this interpreter, one thread
each."""

import os
import socket
import subprocess
import sys

LAUNCH = "accelerate.commands.launch"


def command(script, *args, processes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        sys.executable,
        "-m",
        LAUNCH,
        "--multi_gpu",
        "--num_processes",
        str(processes),
        "--main_process_port",
        str(port),
        str(script),
        *map(str, args),
    ]


def start(script, *args, processes=2, **options):
    """A running launch, in a process group of its own (options: of subprocess.Popen)."""
    return subprocess.Popen(
        command(script, *args, processes=processes),
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
