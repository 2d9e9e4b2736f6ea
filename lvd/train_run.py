"""Training all detectors that a command names: resumable, several processes, one table of metrics.

Processes come in two ways: those of one `accelerate launch`, each with its part of the detectors on its own GPU, and
within each of these the `workers` that it starts itself.
"""

import csv
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import torch

from lvd.detector import load_file, save_detector
from lvd.errors import InputError
from lvd.files import atomic
from lvd.parallel import Processes
from lvd.recipe import NOT_IDENTITY
from lvd.settings import versions
from lvd.source import Source, read_ahead
from lvd.split import Split
from lvd.train import detector_seed, rows_to_train, step_reader, train_detector

METRICS = "metrics.csv"


@dataclass(frozen=True)
class Job:
    """The detectors of one step. source: where their clips come from; categories: {group: display name} of those to
    train; device: as torch.device takes it."""

    source: Source
    save_dir: Path
    step: int
    categories: dict
    split: Split
    eval_sha256: str
    settings: dict
    device: str

    def rows(self, group):
        """What the detector of that category is trained on: see `rows_to_train`."""
        return rows_to_train(self.source, group, self.step, self.split, self.settings)


def detector_path(save_dir, group, step):
    return Path(save_dir) / str(group) / f"{step}.pth"


class TrainRun:
    """Sized iterable over the detectors of `jobs` that are still to be trained.

    Iterating trains and saves them and yields (group, step). Finished detectors of the same settings, data rows and
    eval.pth stay as they are; InputError names one that was trained otherwise.

    processes: of one launch, all of which make the same TrainRun before any of them iterates. Each trains its own part;
    the main one also yields what the others have finished, and keeps the table of metrics. All end together.
    """

    def __init__(self, jobs, workers=1, processes=None):
        self.workers, self.processes = workers, processes or Processes()
        self.save_dir = Path(jobs[0].save_dir)
        self.rows = {}  # (group, step) → row of metrics
        self.left = [(job, group) for job in jobs for group in job.categories if not self._finished(job, group)]
        self.jobs = part_of(self.left, self.processes)
        self.skipped = len(self.rows)
        self._find_others()

    def __len__(self):
        return len(self.left)

    def __iter__(self):
        for row in self._train():
            new = (row["group"], row["step"]) not in self.rows
            self.rows[row["group"], row["step"]] = row
            if new:
                yield row["group"], row["step"]
            yield from self._note_finished()
        self.processes.barrier()
        yield from self._note_finished()
        self._need_all()
        self._find_others()  # another command may have trained here meanwhile
        self._save_metrics()

    def _train(self):
        if self.workers > 1 and len(self.jobs) > 1:
            return _in_processes(self.jobs, self.workers, self.processes.count)
        return _here(self.jobs, self.processes.count)

    def _note_finished(self):
        """Yield the detectors that other processes have finished since the last time; save the table."""
        if not self.processes.is_main:
            return
        for job, group in self.left:
            path = detector_path(self.save_dir, group, job.step)
            if (group, job.step) not in self.rows and path.exists():
                self.rows[group, job.step] = _metrics_row(load_file(path, mmap=True)["about"])
                yield group, job.step
        self._save_metrics()

    def _need_all(self):
        for job, group in self.left if self.processes.is_main else []:
            if (group, job.step) not in self.rows:
                path = detector_path(self.save_dir, group, job.step)
                raise InputError(f"{path}: another process trained it, but it is not here; all machines need the same "
                                 f"--save_dir")

    def _finished(self, job, group):
        path = detector_path(job.save_dir, group, job.step)
        if not path.exists():
            return False
        about = load_file(path, mmap=True).get("about", {})
        identity = _identity(job, group)
        for key, value in identity.items():
            if about.get(key) != value:
                raise InputError(f"{path}: trained with another {key} ({_brief(about.get(key), value)}); use another "
                                 f"--save_dir or delete it")
        self.rows[group, job.step] = _metrics_row(about)
        return True

    def _find_others(self):
        """Rows of the detectors in the folder that this command did not ask for; bare state dicts have none."""
        for path in Path(self.save_dir).glob("[0-9]*/[0-9]*.pth"):
            if path.stem.isdecimal() and (int(path.parent.name), int(path.stem)) not in self.rows:
                about = load_file(path, mmap=True).get("about", {})
                if "metrics" in about:
                    self.rows[about["group"], about["step"]] = _metrics_row(about)

    def _save_metrics(self):
        """The table of all detectors in the folder, if there are any yet."""
        if not self.processes.is_main or not self.rows:
            return
        with atomic(Path(self.save_dir) / METRICS) as partial, open(partial, "w", newline="") as f:
            table = csv.DictWriter(f, fieldnames=list(next(iter(self.rows.values()))), restval="", extrasaction="ignore")
            table.writeheader()
            table.writerows(row for _, row in sorted(self.rows.items()))


def part_of(pairs, processes):
    """Jobs of this process's part of the (job, group) pairs: neighbours, so that few steps are read by two processes,
    and as many as every other process has (or one more or less)."""
    first, last = (len(pairs) * rank // processes.count for rank in (processes.rank, processes.rank + 1))
    by_step = {}
    for job, group in pairs[first:last]:
        by_step.setdefault(job.step, (job, {}))[1][group] = job.categories[group]
    return [replace(job, categories=categories) for job, categories in by_step.values()]


def _identity(job, group):
    settings = {key: value for key, value in job.settings.items() if key not in NOT_IDENTITY}
    return {"group": group, "step": job.step, "settings": settings, "eval_sha256": job.eval_sha256,
            "rows": job.rows(group)}


def _brief(before, now):
    """The first setting that differs, or nothing to say for long lists."""
    if isinstance(before, dict) and isinstance(now, dict):
        key = next((k for k in sorted(set(before) | set(now)) if before.get(k) != now.get(k)), "")
        if isinstance(now.get(key), list):
            return f"{key}: {len(before.get(key) or [])} rows there, {len(now[key])} now"
        return f"{key}: {before.get(key)!r} there, {now.get(key)!r} now"
    return f"{str(before)[:12]} there, {str(now)[:12]} now"


def _train_step(job, reader=None):
    """Train and save the detectors of one job, yield a row of metrics for each. Clips are read once for all groups."""
    reader = reader or _reader(job)
    for group, category in job.categories.items():
        seed = detector_seed(job.settings["seed"], group, job.step)
        detector, about = train_detector(job.rows(group), reader, job.settings, seed, torch.device(job.device))
        settings = {key: value for key, value in job.settings.items() if key not in NOT_IDENTITY}
        detector.about = {"category": category, "group": group, "step": job.step, "categories": job.source.categories,
                          "dataset": job.source.made_by, "eval_sha256": job.eval_sha256, "seed": seed,
                          "settings": settings, **about, "versions": versions()}
        save_detector(detector, detector_path(job.save_dir, group, job.step))
        yield _metrics_row(detector.about)


def _reader(job):
    return step_reader(job.source, job.step, job.rows(next(iter(job.categories)))["unsafe"][0], job.settings)


def _loaded(job):
    """The job's reader, with all clips of its detectors read: so that a thread can do it while another step trains."""
    reader = _reader(job)
    for group in job.categories:
        reader.load(job.rows(group))
    return reader


def _metrics_row(about):
    return {"group": about["group"], "step": about["step"], "category": about["category"], **about["metrics"]}


def _threads(settings, together):
    """Threads of each of the processes that train together. Small networks take one: more hardly help them, and so the
    detectors do not depend on how many processes or cores there are."""
    return max(1, (os.cpu_count() or 1) // together) if settings["size"] == "base" else 1


def _here(jobs, launched):
    before = torch.get_num_threads()
    try:
        on_gpu = jobs and torch.device(jobs[0].device).type == "cuda"  # on the CPU reading would take from training
        for job, reader in zip(jobs, read_ahead(_loaded, jobs) if on_gpu else map(_reader, jobs), strict=True):
            torch.set_num_threads(_threads(job.settings, launched))
            yield from _train_step(job, reader)
    finally:
        torch.set_num_threads(before)


def _in_processes(jobs, workers, launched):
    threads = _threads(jobs[0].settings, workers * launched)
    others = set(active_children())
    with ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _start_worker, (threads,)) as pool:
        with _no_interrupts():
            waiting = [pool.submit(_whole_step, job) for job in jobs]
        try:
            for future in as_completed(waiting):
                yield from future.result()
        except BrokenProcessPool as error:
            raise InputError(f"--workers {workers}: a training process was killed, as happens when memory runs out; "
                             f"finished detectors are kept, run again with fewer workers") from error
        except BaseException as error:  # what waits is dropped; what runs is finished, but not after Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
                for process in set(active_children()) - others:
                    process.terminate()
            raise


@contextmanager
def _no_interrupts():
    """Processes started here never see Ctrl-C, which would print their tracebacks: the parent stops them."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _start_worker(threads):
    """A worker ends with the process that started it, however that ends: it would hold its GPU for ever."""
    torch.set_num_threads(threads)
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()


def _whole_step(job):
    return list(_train_step(job))
