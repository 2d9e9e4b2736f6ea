"""Runs tasks, several at a time, each as a process of its own."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from lvd.errors import InputError
from lvd.utils.config import ROOT
from lvd.utils.files import read_text
from lvd.utils.progress import progress
from lvd_study.tasks import NOTHING_TO_CHOOSE, Done, in_order

PATIENCE = 10  # seconds that a process has to end after SIGTERM
LOOK = 0.05  # seconds between two looks at the processes
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends


@dataclass
class Started:
    """A task that runs: its process, since when, and the file of what it says."""

    task: object
    process: object
    began: float
    log: object


class Runner:
    """Runs what is missing of tasks.

    Args:
        ledger: Ledger.
        logs: folder for what the tasks say, a file each.
        jobs: how many run at a time.
    """

    def __init__(self, ledger, logs, jobs=1):
        self.ledger = ledger
        self.logs = logs
        self.jobs = jobs

    def missing(self, wanted):
        """Return the Tasks of `wanted`, and of what they need, that are not done, in order."""
        return [task for task in in_order(wanted) if self.ledger.find(task) is None]

    def run(self, wanted):
        """Run what is missing.

        Args:
            wanted: Tasks.

        Raises:
            InputError: a task has failed; its last line says why, and its log has the rest.
        """
        waiting = self.missing(wanted)
        if not waiting:
            return
        self.logs.mkdir(parents=True, exist_ok=True)
        running = []
        bar = progress(None, "study", unit="task", total=len(waiting))
        try:
            with bar:
                while waiting or running:
                    self._start_more(waiting, running)
                    names = ", ".join(each.task.name for each in running)
                    bar.set_postfix_str(names)
                    bar.update(self._take_ended(running))
        finally:
            _stop(running)

    def _start_more(self, waiting, running):
        """Start tasks whose needs are done, as many as may run at a time."""
        open_names = {task.name for task in waiting} | {each.task.name for each in running}
        for task in list(waiting):
            if len(running) >= self.jobs:
                return
            if open_names.isdisjoint(each.name for each in task.needs):
                running.append(self._start(task))
                waiting.remove(task)

    def _start(self, task):
        path = self.logs / f"{task.slug}.log"
        log = open(path, "wb")
        threads = max(1, len(os.sched_getaffinity(0)) // self.jobs)
        variables = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONUNBUFFERED": "1"}
        before = os.environ.get("PYTHONPATH")
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), before]))
        process = subprocess.Popen(
            [sys.executable, *task.words()],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=variables,
            preexec_fn=_die_with(os.getpid()),
        )
        return Started(task, process, time.monotonic(), log)

    def _take_ended(self, running):
        """Note the tasks that have ended, and return how many; wait a little where none has."""
        ended = [each for each in running if each.process.poll() is not None]
        if not ended:
            time.sleep(LOOK)
        for each in ended:
            running.remove(each)
            each.log.close()
            self._settle(each)
        return len(ended)

    def _settle(self, ended):
        """Note one that has ended; InputError where it failed."""
        task, status = ended.task, ended.process.returncode
        seconds = time.monotonic() - ended.began
        if status == 0:
            self.ledger.note(task, Done(seconds))
            return
        path = self.logs / f"{task.slug}.log"
        said = _last_line(path)
        if status == NOTHING_TO_CHOOSE and task.may_refuse:
            self.ledger.note(task, Done(seconds, said.removeprefix("error: ")))
            return
        why = f"ended by {signal.Signals(-status).name}" if status < 0 else said
        raise InputError(f"{task.name}: {why} (all it said: {path})")


def _last_line(path):
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def _die_with(parent):
    """Return what a new process calls so that it ends when this one is killed (SIGKILL).

    Else it would go on writing while the same command starts it once more. Only Linux has this.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask():
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # killed just now
            os._exit(1)

    return ask


def _stop(running):
    """End the processes that still run."""
    for each in running:
        each.process.terminate()
    for each in running:
        try:
            each.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            each.process.kill()
            each.process.wait()
        each.log.close()
