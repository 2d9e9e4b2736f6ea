"""Scripts as processes of their own that need not import anything: forks of a server that has.

A process of the sampler imports for six seconds. What such a process does otherwise is the same:
its arguments, environment, folder, output, exit status, and the signals that end it. It computes
with one thread.
"""

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

IMPORTED = ["train_mae", "build_x0", "MagicTime.utils.run", "MagicTime.utils.guarded"]
LOOK_EVERY = 0.01  # seconds


def _be_the_script(script, words, environment, keyboard, out, err):
    """Run a script in this fork, as `python script words` does."""
    os.dup2(keyboard.fileno(), 0)
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", closefd=False, buffering=1)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [script, *words]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")


class Forked:
    """Running processes of one script, in the current folder.

    When one of them fails, the others are ended, as accelerate launch does.

    Args:
        script: its path.
        words: its arguments.
        environments: variables that each process has besides those of this one.

    Attributes:
        pids: of the processes.
        stdin: the keyboard of the processes, a pipe of bytes.
        out, err: the files of what they wrote on stdout and stderr up to now.
    """

    def __init__(self, script, words, environments):
        self.folder = tempfile.TemporaryDirectory(prefix="forked")
        self.args = [str(script), *map(str, words)]
        self.out, self.err = (Path(self.folder.name) / name for name in ("out", "err"))
        self.out.touch()
        self.err.touch()
        context = server_context()
        keyboard, keys = context.Pipe(duplex=False)
        self.processes = []
        for environment in environments:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
            given = (self.args[0], self.args[1:], environment, keyboard, self.out, self.err)
            self.processes.append(context.Process(target=_be_the_script, args=given))
            self.processes[-1].start()
        self.stdin = open(os.dup(keys.fileno()), "wb", buffering=0)
        keyboard.close()
        keys.close()
        atexit.register(self.kill)  # of a test that has failed, too
        self.pids = [process.pid for process in self.processes]

    def poll(self):
        """The exit status: None while one runs, otherwise the first that is not 0."""
        codes = [process.exitcode for process in self.processes]
        if any(codes):
            for process, code in zip(self.processes, codes, strict=True):
                if code is None:
                    process.terminate()
        if None in codes:
            return None
        return next((code for code in codes if code), 0)

    def communicate(self, timeout=120):
        """Wait for all, who read no more; returns what they wrote on (stdout, stderr)."""
        self.stdin.close()
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                self.kill()
                raise TimeoutError(f"after {timeout} s: {self.err.read_text()}")
            time.sleep(LOOK_EVERY)
        return self.out.read_text(), self.err.read_text()

    def wait(self, timeout=120):
        """Wait for all; returns the exit status."""
        self.communicate(timeout)
        return self.returncode

    @property
    def returncode(self):
        return self.poll()

    def send_signal(self, number):
        for pid in self.pids:
            os.kill(pid, number)

    def kill(self):
        for process in self.processes:
            process.kill()
            process.join()


def server_context():
    """multiprocessing's context, whose server starts with the first process and imports once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        multiprocessing.forkserver.ensure_running()
    return context


def start(script, *words, processes=1):
    """A running script: one process, or several that know each other as torchrun's do."""
    if processes == 1:
        return Forked(script, words, [{}])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    ranks = map(str, range(processes))
    return Forked(script, words, [{**common, "RANK": k, "LOCAL_RANK": k} for k in ranks])


def run(script, *words, processes=1, timeout=300):
    """A script that has ended: returncode, stdout, stderr."""
    running = start(script, *words, processes=processes)
    out, err = running.communicate(timeout)
    return subprocess.CompletedProcess(running.args, running.returncode, out, err)


def start_code(code, *words, folder):
    """Code that runs in a folder, as `python -c code words` does there."""
    script = Path(tempfile.mkdtemp(prefix="code")) / "code.py"
    script.write_text(f"import os\nos.chdir({str(folder)!r})\n{code}")
    return start(script, *words)


def run_code(code, *words, folder):
    """Such code that has ended: returncode, stdout, stderr."""
    running = start_code(code, *words, folder=folder)
    out, err = running.communicate()
    return subprocess.CompletedProcess(running.args, running.returncode, out, err)
