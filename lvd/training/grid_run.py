"""Training all detectors that a command names: resumable, several processes, one table of metrics.

Processes come in two ways: those of one `accelerate launch`, each with its part of the detectors on
its own GPU, and within each of these the `workers` that it starts itself.
"""

import csv
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import psutil
import torch

from lvd.data.clip_cache import read_ahead
from lvd.data.sources import Source
from lvd.data.split import Split
from lvd.data.transforms import input_size
from lvd.detectors.detector import detector_path, detector_paths, load_file, save_detector
from lvd.detectors.pretrained import Pretrained
from lvd.detectors.videomae import token_count
from lvd.errors import InputError
from lvd.training.curves import curve_rows, save_curves
from lvd.training.grid import (
    detector_seed,
    input_config,
    rows_to_train,
    stackable,
    step_reader,
    train_detectors,
)
from lvd.training.recipes import NOT_IDENTITY
from lvd.utils.config import need_same_training, versions
from lvd.utils.files import atomic
from lvd.utils.processes import Processes

METRICS = "metrics.csv"
LOOK_EVERY = 0.5  # seconds between looks at what the processes have finished
PAYS = {
    "cpu": 25,
    "cuda": 64,
}  # detectors together: a CPU's caches are full, a GPU's units are busy
SHARE = 0.25  # of the free memory


@dataclass(frozen=True)
class Job:
    """The detectors of one step. source: where their clips come from; categories: {group: display
    name} of those to train; device: as torch.device takes it; init: what they start from."""

    source: Source
    save_dir: Path
    step: int
    categories: dict
    split: Split
    eval_sha256: str
    settings: dict
    device: str
    init: Pretrained | None = None

    def rows(self, group):
        """What the detector of that category is trained on: see `rows_to_train`."""
        return rows_to_train(self.source, group, self.step, self.split, self.settings)


class TrainRun:
    """Sized iterable over the detectors of `jobs` that are still to be trained.

    Iterating trains and saves them and yields (group, step). Finished detectors of the same
    settings, data rows and eval.pth stay as they are; InputError names one that was trained
    otherwise.

    processes: of one launch, all of which make the same TrainRun before any of them iterates. Each
    trains its own part; the main one also yields what the others have finished, and keeps the table
    of metrics. All end together.
    """

    def __init__(self, jobs, workers=1, processes=None):
        self.workers, self.processes = workers, processes or Processes()
        self.save_dir = Path(jobs[0].save_dir)
        self.rows = {}  # (group, step) → row of metrics
        self.left = [
            (job, group)
            for job in jobs
            for group in job.categories
            if not self._finished(job, group)
        ]
        self.jobs = part_of(self.left, self.processes)
        self.chunks = chunks_of(self.jobs, workers, self.processes.count)
        self.skipped = len(self.rows)
        self._find_others()

    def __len__(self):
        return len(self.left)

    def __iter__(self):
        for row in self._train():
            if row and (row["group"], row["step"]) not in self.rows:
                self.rows[row["group"], row["step"]] = row
                yield row["group"], row["step"]
            yield from self._note_finished()
        self.processes.barrier()
        yield from self._note_finished()
        self._need_all()
        self._find_others()  # another command may have trained here meanwhile
        self._save_metrics()
        self._save_curves()

    def _train(self):
        if self.workers > 1 and len(self.chunks) > 1:
            return _in_processes(self.chunks, self.workers, self.processes.count)
        return _here(self.chunks, self.processes.count)

    def _note_finished(self):
        """Yield the detectors that other processes have finished since the last time; save the
        table."""
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
                raise InputError(
                    f"{path}: another process trained it, but it is not here; all machines need "
                    "the same --save_dir"
                )

    def _finished(self, job, group):
        path = detector_path(job.save_dir, group, job.step)
        if not path.exists():
            return False
        found = load_file(path, mmap=True)
        about = {"representation": found.get("representation"), **found.get("about", {})}
        need_same_training(path, about, _identity(job, group))
        self.rows[group, job.step] = _metrics_row(about)
        return True

    def _find_others(self):
        """Rows of the detectors in the folder that this command did not ask for; bare state dicts
        have none."""
        for pair, path in detector_paths(self.save_dir).items():
            if pair not in self.rows:
                about = load_file(path, mmap=True).get("about", {})
                if "metrics" in about:
                    self.rows[about["group"], about["step"]] = _metrics_row(about)

    def _save_metrics(self):
        """The table of all detectors in the folder, if there are any yet."""
        if not self.processes.is_main or not self.rows:
            return
        with atomic(Path(self.save_dir) / METRICS) as partial, open(partial, "w", newline="") as f:
            names = dict.fromkeys(
                name for row in self.rows.values() for name in row
            )  # older detectors know fewer
            table = csv.DictWriter(f, fieldnames=list(names), restval="")
            table.writeheader()
            table.writerows(row for _, row in sorted(self.rows.items()))

    def _save_curves(self):
        if self.processes.is_main:
            paths = [detector_path(self.save_dir, group, step) for group, step in sorted(self.rows)]
            save_curves(
                [row for path in paths for row in curve_rows(load_file(path, mmap=True)["about"])],
                self.save_dir,
            )


def part_of(pairs, processes):
    """Jobs of this process's part of the (job, group) pairs: neighbours, so that few steps are read
    by two processes, and as many as every other process has (or one more or less)."""
    first, last = (
        len(pairs) * rank // processes.count for rank in (processes.rank, processes.rank + 1)
    )
    by_step = {}
    for job, group in pairs[first:last]:
        by_step.setdefault(job.step, (job, {}))[1][group] = job.categories[group]
    return [replace(job, categories=categories) for job, categories in by_step.values()]


def _identity(job, group):
    settings = {key: value for key, value in job.settings.items() if key not in NOT_IDENTITY}
    return {
        "group": group,
        "step": job.step,
        "settings": settings,
        "eval_sha256": job.eval_sha256,
        "rows": job.rows(group),
        "init": job.init.sha256 if job.init else None,
        "representation": job.source.representation,
        "dataset": job.source.made_by,
    }


def _train_chunk(jobs, readers=None):
    """Train and save the detectors of some steps, yield a row of metrics for each. Clips are read
    once for all groups."""
    readers = readers or _readers(jobs)
    for group in sorted({group for job in jobs for group in job.categories}):
        for together in _alike([job for job in jobs if group in job.categories], group):
            steps = {job.step: job for job in together}
            seeds = {
                step: detector_seed(job.settings["seed"], group, step)
                for step, job in steps.items()
            }
            first = together[0]
            for step, detector, about in train_detectors(
                first.rows(group),
                [readers[step] for step in steps],
                list(seeds.values()),
                first.settings,
                torch.device(first.device),
                first.init,
            ):
                detector.about = _about(steps[step], group, seeds[step], about)
                save_detector(detector, detector_path(first.save_dir, group, step))
                yield _metrics_row(detector.about)


def _alike(jobs, group):
    """The jobs in parts that train on the same rows."""
    parts = {}
    for job in jobs:
        parts.setdefault(str(job.rows(group)), []).append(job)
    return list(parts.values())


def _about(job, group, seed, about):
    settings = {key: value for key, value in job.settings.items() if key not in NOT_IDENTITY}
    return {
        "category": job.categories[group],
        "group": group,
        "step": job.step,
        "categories": job.source.categories,
        "dataset": job.source.made_by,
        "sampling": job.source.sampling,
        "eval_sha256": job.eval_sha256,
        "seed": seed,
        "settings": settings,
        "init": job.init.sha256 if job.init else None,
        **about,
        "versions": versions(),
    }


def _readers(jobs):
    """{step: StepReader}"""
    return {
        job.step: step_reader(
            job.source, job.step, job.rows(next(iter(job.categories)))["unsafe"][0], job.settings
        )
        for job in jobs
    }


def _loaded(jobs):
    """The jobs' readers, with all clips of their detectors read: so that a thread can do it while
    other steps train."""
    readers = _readers(jobs)
    for job in jobs:
        for group in job.categories:
            readers[job.step].load(job.rows(group))
    return readers


def _metrics_row(about):
    return {
        "group": about["group"],
        "step": about["step"],
        "category": about["category"],
        **about["metrics"],
    }


def _threads(settings, together):
    """Threads of each of the processes that train together. Small networks take one: more hardly
    help them, and so the detectors do not depend on how many processes or cores there are."""
    return max(1, (os.cpu_count() or 1) // together) if settings["size"] == "base" else 1


def _here(chunks, launched):
    before = torch.get_num_threads()
    try:
        on_gpu = (
            chunks and torch.device(chunks[0][0].device).type == "cuda"
        )  # on the CPU reading would take from training
        for jobs, readers in zip(
            chunks, read_ahead(_loaded, chunks) if on_gpu else map(_readers, chunks), strict=True
        ):
            torch.set_num_threads(_threads(jobs[0].settings, launched))
            yield from _train_chunk(jobs, readers)
    finally:
        torch.set_num_threads(before)


def _in_processes(chunks, workers, launched):
    threads = _threads(chunks[0][0].settings, workers * launched)
    others = set(active_children())
    with ProcessPoolExecutor(
        min(workers, len(chunks)), get_context("spawn"), _start_worker, (threads,)
    ) as pool:
        with _no_interrupts():
            waiting = [pool.submit(_whole_chunk, jobs) for jobs in chunks]
        try:
            left = set(waiting)
            while left:
                done, left = wait(left, LOOK_EVERY, FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
                yield None  # the parent may look at what is finished
        except BrokenProcessPool as error:
            raise InputError(
                f"--workers {workers}: a training process was killed, as happens when memory runs "
                "out; finished detectors are kept, run again with fewer workers"
            ) from error
        except (
            BaseException
        ) as error:  # what waits is dropped; what runs is finished, but not after Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
                for process in set(active_children()) - others:
                    process.terminate()
            raise


@contextmanager
def _no_interrupts():
    """Processes started here never see Ctrl-C, which would print their tracebacks: the parent stops
    them."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _start_worker(threads):
    """A worker ends with the process that started it, however that ends: it would hold its GPU for
    ever."""
    torch.set_num_threads(threads)
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()


def _whole_chunk(jobs):
    return list(_train_chunk(jobs))


def chunks_of(jobs, workers=1, launched=1):
    """Jobs, one for each step, in lists that are trained together: neighbours, all about as long,
    and as many for each of `workers` processes. launched: processes that share this machine's
    memory besides."""
    if not jobs:
        return []
    most = jobs[0].settings["together"] or _fitting(jobs[0], workers * launched)
    most = most if stackable(jobs[0].settings) else 1
    workers = min(workers, len(jobs))
    count = -(-len(jobs) // (most * workers)) * workers
    edges = [len(jobs) * k // count for k in range(count + 1)]
    return [jobs[a:b] for a, b in zip(edges, edges[1:], strict=False) if b > a]


def _fitting(job, processes):
    """How many detectors of the job's kind fit beside each other, from 1 to PAYS."""
    if not stackable(job.settings):
        return 1
    group = next(iter(job.categories))
    rows = job.rows(group)
    config = input_config(job.source, job.step, rows["unsafe"][0], job.settings)
    device = torch.device(job.device)
    held, active = clip_bytes(job, config), training_bytes(config, job.settings)
    free = psutil.virtual_memory().available
    if device.type == "cuda":  # the next clips are read meanwhile
        fits = min(free / (2 * held) / processes, torch.cuda.mem_get_info(device)[0] / active)
    else:
        fits = free / (held + active) / processes
    return max(1, min(PAYS.get(device.type, 1), int(SHARE * fits)))


def clip_bytes(job, config):
    """What a step's clips take while its detectors train: all held in float16, and a copy of one
    category's."""
    rows = len(job.source.rows("unsafe", job.step)) + len(job.source.rows("normal", job.step))
    height, width = input_size(config)
    return 2 * 2 * rows * config.num_channels * config.num_frames * height * width


def training_bytes(config, settings):
    """About what one detector's optimiser step takes: the inputs and their augmented copies, what
    the backward pass needs of each layer (norms, attention, feed-forward), and the weights with
    gradients, moments and average."""
    height, width = input_size(config)
    values = config.num_channels * config.num_frames * height * width
    tokens = max(1, round((1 - settings["mask"]) * token_count(config)))
    hidden, inner = config.hidden_size, config.intermediate_size
    layer = 12 * hidden + 3 * inner + 3 * config.num_attention_heads * tokens
    weights = config.num_hidden_layers * (4 * hidden * hidden + 2 * hidden * inner)
    return 4 * (
        settings["batch_size"] * (4 * values + config.num_hidden_layers * tokens * layer)
        + 6 * weights
    )
