"""Training all detectors of the grid that a command names: resumable, with a table of metrics.

Processes come in two ways: those of one `accelerate launch`, each with its part of the detectors on
its own GPU, and within each of these the `workers` that it starts itself.
"""

from pathlib import Path

from lvd.detectors.detector import detector_path, detector_paths, load_file
from lvd.errors import InputError
from lvd.training.chunks import chunks_of, detector_identity, metrics_row
from lvd.training.curves import curve_rows, save_curves
from lvd.training.job import METRICS
from lvd.training.workers import train_here, train_in_processes
from lvd.utils.config import need_same_training
from lvd.utils.disk import look_anew
from lvd.utils.files import save_csv
from lvd.utils.processes import Processes


class TrainRun:
    """Sized iterable over the detectors of a Job that are still to be trained.

    Iterating trains and saves them and yields (group, step). Finished detectors of the same
    settings, data rows and eval.pth stay as they are.

    Attributes:
        rows: {(group, step): row of metrics} of the detectors in the folder.
        skipped: how many were finished before.
    """

    def __init__(self, job, processes=None):
        """
        Args:
            job: Job.
            processes: Processes of one launch, all of which make the same TrainRun before any of
                them iterates. Each trains its own part; the main one also yields what the others
                have finished, and keeps the table of metrics. All end together.

        Raises:
            InputError: a finished detector was trained otherwise, or a detector that is still to
                be trained has too few clips.
        """
        self.workers, self.processes = job.settings.workers, processes or Processes()
        self.save_dir, self.rows = Path(job.save_dir), {}
        self._look_anew(job.categories)
        steps = [job.part(step, job.categories) for step in job.steps]
        asked = [(part, group) for part in steps for group in part.categories]
        self.left = [pair for pair in asked if not self._finished(*pair)]
        for part, group in self.left:  # too few clips are told before anything is trained
            part.rows(group)
        parts = part_of(self.left, self.processes)
        self.chunks = chunks_of(parts, self.workers, self.processes.count)
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
        if self.processes.is_main:
            self._need_all()
            self._find_others()  # another command may have trained here meanwhile
            self._save_metrics()
            self._save_curves()

    def _train(self):
        if self.workers > 1 and len(self.chunks) > 1:
            return train_in_processes(self.chunks, self.workers, self.processes.count)
        return train_here(self.chunks, self.processes.count)

    def _finished(self, job, group):
        """Whether the detector is there; InputError if it was trained otherwise."""
        path = detector_path(job.save_dir, group, job.step)
        if not path.exists():
            return False
        content = load_file(path, mmap=True)
        about = {"representation": content.get("representation"), **content.get("about", {})}
        need_same_training(path, about, detector_identity(job, group))
        self.rows[group, job.step] = metrics_row(about, path)
        return True

    def _note_finished(self):
        """Yield the detectors that other processes have finished since the last time."""
        if not self.processes.is_main:
            return
        self._look_anew({group for _, group in self.left})
        for job, group in self.left:
            path = detector_path(self.save_dir, group, job.step)
            if (group, job.step) not in self.rows and path.exists():
                about = load_file(path, mmap=True)["about"]
                self.rows[group, job.step] = metrics_row(about, path)
                yield group, job.step
        self._save_metrics()

    def _look_anew(self, groups):
        """See what other machines have finished."""
        if self.processes.count > 1:
            for group in groups:
                look_anew(detector_path(self.save_dir, group, 0).parent)

    def _need_all(self):
        for job, group in self.left:
            if (group, job.step) not in self.rows:
                path = detector_path(self.save_dir, group, job.step)
                raise InputError(
                    f"{path}: another process trained it, but it is not here; all machines need "
                    "the same --save_dir"
                )

    def _find_others(self):
        """Add the rows of detectors that were not asked for; bare state dicts have none."""
        for place, path in detector_paths(self.save_dir).items():
            if place not in self.rows:
                about = load_file(path, mmap=True).get("about", {})
                if "metrics" in about:
                    row = metrics_row(about, path)
                    self.rows[row["group"], row["step"]] = row

    def _save_metrics(self):
        """Write the table of all detectors in the folder, if there are any yet."""
        if not self.rows:
            return
        columns = {}  # a dict keeps the order; older detectors know fewer columns
        for row in self.rows.values():
            columns |= dict.fromkeys(row)
        rows = [self.rows[place] for place in sorted(self.rows)]
        save_csv(rows, self.save_dir / METRICS, list(columns))

    def _save_curves(self):
        rows = []
        for group, step in sorted(self.rows):
            path = detector_path(self.save_dir, group, step)
            rows += curve_rows(load_file(path, mmap=True)["about"])
        save_curves(rows, self.save_dir)


def part_of(pairs, processes):
    """Return the jobs of this process's part of the (job, group) pairs.

    The part is a run of neighbours, so that few steps are read by two processes, as long as every
    other process's (or one longer or shorter).
    """
    first = len(pairs) * processes.rank // processes.count
    last = len(pairs) * (processes.rank + 1) // processes.count
    by_step = {}
    for job, group in pairs[first:last]:
        _, categories = by_step.setdefault(job.step, (job, {}))
        categories[group] = job.categories[group]
    return [job.part(step, categories) for step, (job, categories) in by_step.items()]
