"""Runs tasks, several at a time, each as a process of its own."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from lvd.errors import InputError, plural
from lvd.utils.config import ROOT
from lvd.utils.progress import progress
from lvd_study.tasks import NOTHING_TO_CHOOSE, Done, in_order

PATIENCE = 10  # seconds that a process has to end after SIGTERM
LOG_END = 4096  # bytes of a log that are read
LOOK = 0.05  # seconds between two looks at the processes
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends


@dataclass
class Started:
    """A task that runs: its process, since when, the file of what it says, and its GPU."""

    task: object
    process: object
    began: float
    log: object
    gpu: int | None = None


class Runner:
    """Runs what is missing of tasks.

    Args:
        ledger: Ledger.
        logs: folder for what the tasks say, a file each.
        jobs: how many run at a time.
        gpus: numbers of CUDA devices: each task that has a device gets the one that the fewest
            running tasks have. (): the device that its command names.
    """

    def __init__(self, ledger, logs, jobs=1, gpus=()):
        self.ledger = ledger
        self.logs = logs
        self.jobs = jobs
        self.gpus = gpus
        self.failed = {}  # name of a task → why it failed

    def missing(self, wanted):
        """Return the Tasks of `wanted`, and of what they need, that are not done, in order.

        What needs a task that is not done is done again after it, too.
        """
        missing = {}
        for task in in_order(wanted):
            is_late = any(each.name in missing for each in task.needs)
            if self.ledger.find(task) is None or is_late:
                missing[task.name] = task
        return list(missing.values())

    def run(self, wanted):
        """Run what is missing. Where a task fails, all that does not need it is done all the same.

        Args:
            wanted: Tasks.

        Returns:
            How many were missing.

        Raises:
            InputError: a task has failed; its last line says why, and its log has the rest.
        """
        waiting = self.missing(wanted)
        count = len(waiting)
        if not waiting:
            return 0
        self.logs.mkdir(parents=True, exist_ok=True)
        running, self.failed = [], {}
        bar = progress(None, "study", unit="task", total=count)
        try:
            with bar:
                while waiting or running:
                    self._start_more(waiting, running)
                    names = ", ".join(each.task.name for each in running)
                    bar.set_postfix_str(names)
                    bar.update(self._take_ended(running))
                    bar.update(self._drop_hopeless(waiting))
        finally:
            _stop(running)
        self._need_none_failed()
        return count

    def _need_none_failed(self):
        """InputError for the first task that failed, with how many more did."""
        if not self.failed:
            return
        name, why = next(iter(self.failed.items()))
        more = len(self.failed) - 1
        others = f"; {plural(more, 'other task')} failed, too" if more else ""
        raise InputError(f"{name}: {why}{others}")

    def _drop_hopeless(self, waiting):
        """Take out the tasks that need one which has failed; return how many."""
        hopeless = dict.fromkeys(self.failed)
        for task in waiting:  # in order: what a task needs stands before it
            if any(each.name in hopeless for each in task.needs):
                hopeless[task.name] = None
        kept = [task for task in waiting if task.name not in hopeless]
        dropped = len(waiting) - len(kept)
        waiting[:] = kept
        return dropped

    def _start_more(self, waiting, running):
        """Start tasks whose needs are done, as many as may run at a time."""
        open_names = {task.name for task in waiting} | {each.task.name for each in running}
        for task in list(waiting):
            if len(running) >= self.jobs:
                return
            if open_names.isdisjoint(each.name for each in task.needs):
                running.append(self._start(task, self._free_gpu(task, running)))
                waiting.remove(task)

    def _free_gpu(self, task, running):
        """The GPU that the fewest tasks have; None where the task names its device itself."""
        if not self.gpus or not names_gpu(task.words()):
            return None
        taken = [each.gpu for each in running]
        return min(self.gpus, key=taken.count)

    def _start(self, task, gpu=None):
        if task.may_refuse and task.makes:  # what an earlier command chose is no answer to this one
            task.makes.unlink(missing_ok=True)
        log = open(self.logs / f"{task.slug}.log", "wb")
        threads = max(1, len(os.sched_getaffinity(0)) // self.jobs)
        variables = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONUNBUFFERED": "1"}
        before = os.environ.get("PYTHONPATH")
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), before]))
        process = subprocess.Popen(
            [sys.executable, *on_gpu(task.words(), gpu)],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=variables,
            preexec_fn=_die_with(os.getpid()),
        )
        return Started(task, process, time.monotonic(), log, gpu)

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
        """Note one that has ended, or why it failed."""
        task, status = ended.task, ended.process.returncode
        seconds = time.monotonic() - ended.began
        if status == 0:
            self.ledger.note(task, Done(seconds))
            return
        path = self.logs / f"{task.slug}.log"
        said = _last_line(path).removeprefix("error: ")
        is_answer = not task.refuses_with or any(words in said for words in task.refuses_with)
        if status == NOTHING_TO_CHOOSE and task.may_refuse and is_answer:
            self.ledger.note(task, Done(seconds, said))
            return
        why = f"ended by {signal.Signals(-status).name}" if status < 0 else said
        self.failed[task.name] = f"{why} (all it said: {path})"


def names_gpu(words):
    """Tell whether a command runs on a GPU that it names."""
    return any(flag == "--gpu_num" and gpu != "-1" for flag, gpu in zip(words, words[1:]))


def on_gpu(words, gpu):
    """Return a command with another CUDA device in its --gpu_num; None: as it is."""
    if gpu is None:
        return words
    before = [None, *words]
    return [str(gpu) if flag == "--gpu_num" else word for flag, word in zip(before, words)]


def _last_line(path):
    """Return the last line of a log, which says why a script failed, in 200 letters at most."""
    with open(path, "rb") as log:
        log.seek(-min(LOG_END, path.stat().st_size), os.SEEK_END)
        text = log.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
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
