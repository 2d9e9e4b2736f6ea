"""Scripts as `accelerate launch` starts them: several CPU processes of this interpreter, one thread
each.

A launch that runs to its end, and the processes that it starts, are forks of a server that has
imported (fork_server.py).
"""

import functools
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.worlds import fork_server, forked

LAUNCH = "accelerate.commands.launch"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@functools.cache
def quick_python():
    """The path of a `python` that need not import anything; its server ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="python"))
    python, address = folder / "python", folder / "socket"
    fork_server.write_python(python, address)
    server = forked.start(Path(fork_server.__file__), address)
    while not address.exists():
        assert server.poll() is None, server.err.read_text()
        time.sleep(0.02)
    return str(python)


def command(script, *args, processes, port=None, more=(), python=sys.executable):
    """Return the words of a launch; more: flags of the launcher."""
    return [
        python,
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
    process = _started(command(script, *args, processes=processes, python=quick_python()))
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
        ways = dict(processes=count, port=port, more=more, python=quick_python())
        words = command(script, *args, **ways)
        started.append(_started(words, cwd=folder))
    done = [(each, each.communicate(timeout=timeout)) for each in started]
    return [subprocess.CompletedProcess(p.args, p.returncode, *texts) for p, texts in done]
