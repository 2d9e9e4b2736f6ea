"""The steps of the grid that are trained together: how many, their clips, and what is saved."""

import psutil
import torch

from lvd.data.transforms import input_size
from lvd.detectors.detector import detector_path, save_detector
from lvd.detectors.schemas import Curve
from lvd.detectors.videomae import token_count
from lvd.training.grid import detector_seed, input_config, step_reader, train_detectors
from lvd.training.job import Measured, Place
from lvd.training.recipes import stackable
from lvd.utils.config import versions
from lvd.utils.schema import Finite, Positive, Probability, checked

# With so many detectors together a CPU's caches are full, and a GPU is busy: more gain nothing.
PAYS = {"cpu": 25, "cuda": 64}
SHARE = 0.25  # of the free memory that may be taken


def chunks_of(jobs, workers=1, launched=1):
    """Put jobs of one step each into lists that are trained together.

    Args:
        jobs: [Job], sorted by step.
        workers: processes; each gets as many lists as any other, all about as long.
        launched: processes of the launch that share this machine's memory.

    Returns:
        [[Job, ...], ...]: neighbours together.
    """
    if not jobs:
        return []
    most = 1
    if stackable(jobs[0].settings):
        most = jobs[0].settings.together or _most_in_memory(jobs[0], workers * launched)
    workers = min(workers, len(jobs))
    count = -(-len(jobs) // (most * workers)) * workers
    edges = [len(jobs) * k // count for k in range(count + 1)]
    chunks = [jobs[first:last] for first, last in zip(edges, edges[1:], strict=False)]
    return [chunk for chunk in chunks if chunk]


def _most_in_memory(job, processes):
    """How many detectors of the job's kind have room beside each other, from 1 to PAYS."""
    group = next(iter(job.categories))
    config = input_config(job.source, job.step, job.rows(group)["unsafe"][0], job.settings)
    device = torch.device(job.device)
    held = clip_bytes(job, config)
    active = training_bytes(config, job.settings)
    free = psutil.virtual_memory().available
    if device.type == "cuda":
        on_cpu = free / (2 * held) / processes  # 2: the next clips are read meanwhile
        room = min(on_cpu, torch.cuda.mem_get_info(device)[0] / active)
    else:
        room = free / (held + active) / processes
    return max(1, min(PAYS.get(device.type, 1), int(SHARE * room)))


def clip_bytes(job, config):
    """Return the bytes of a step's clips while its detectors train.

    All are held in float16, beside a copy of one category's.
    """
    rows = len(job.source.rows("unsafe", job.step)) + len(job.source.rows("normal", job.step))
    height, width = input_size(config)
    return 2 * 2 * rows * config.num_channels * config.num_frames * height * width


def training_bytes(config, settings):
    """Return about how many bytes the optimiser step of one detector takes.

    They are the inputs and their augmented copies, what the backward pass needs of each layer
    (norms, attention, feed-forward), and the weights with gradients, moments and average.
    """
    height, width = input_size(config)
    values = config.num_channels * config.num_frames * height * width
    tokens = max(1, round((1 - settings.mask) * token_count(config)))
    hidden, inner = config.hidden_size, config.intermediate_size
    layer = 12 * hidden + 3 * inner + 3 * config.num_attention_heads * tokens
    activations = settings.batch_size * (4 * values + config.num_hidden_layers * tokens * layer)
    weights = config.num_hidden_layers * (4 * hidden * hidden + 2 * hidden * inner)
    return 4 * (activations + 6 * weights)


def train_chunk(jobs, readers=None):
    """Train and save the detectors of some steps; the clips are read once for all categories.

    Args:
        jobs: [Job] of one step each.
        readers: {step: StepReader} of these steps, None: new ones.

    Yields:
        a row of metrics for each detector.
    """
    readers = readers or open_readers(jobs)
    for group in sorted({group for job in jobs for group in job.categories}):
        of_group = [job for job in jobs if group in job.categories]
        for together in _with_same_rows(of_group, group):
            yield from _train_together(together, group, readers)


def _train_together(jobs, group, readers):
    """Train the detectors of one category at steps that have the same rows."""
    first, by_step = jobs[0], {job.step: job for job in jobs}
    seeds = {step: detector_seed(first.settings.seed, group, step) for step in by_step}
    trained = train_detectors(
        first.rows(group),
        [readers[step] for step in by_step],
        list(seeds.values()),
        first.settings,
        torch.device(first.device),
        first.init,
    )
    for step, detector, about in trained:
        detector.about = _about(by_step[step], group, seeds[step], about)
        save_detector(detector, detector_path(first.save_dir, group, step))
        yield metrics_row(detector.about)


def _with_same_rows(jobs, group):
    """The jobs in lists that train on the same rows."""
    lists = {}
    for job in jobs:
        lists.setdefault(str(job.rows(group)), []).append(job)
    return list(lists.values())


def detector_identity(job, group):
    """Return {key: value} that the detector of a category and step follows from."""
    return {
        "group": group,
        "step": job.step,
        **job.identity(),
        "rows": job.rows(group),
        "init": job.init_sha256,
    }


def _about(job, group, seed, about):
    """What a detector says about itself."""
    return {
        "category": job.categories[group],
        "group": group,
        "step": job.step,
        "categories": job.source.categories,
        "dataset": job.source.made_by,
        "sampling": job.source.sampling,
        "eval_sha256": job.eval_sha256,
        "seed": seed,
        "settings": job.settings.identity(),
        "init": job.init_sha256,
        **about,
        "versions": versions(),
    }


class FiniteCurve(Curve):
    """A detector's curve that can be drawn: all numbers are known."""

    epoch: list[Positive]
    train_loss: list[Finite]
    val_loss: list[Finite]
    val_auroc: list[Probability]


class TrainedAbout(Place):
    """What a detector must say about itself, so that a table and a curve can be made of it."""

    metrics: Measured
    curve: FiniteCurve | None = None


def metrics_row(about, path=None):
    """Return the row of the table of metrics of a detector.

    Args:
        about: what it says about itself.
        path: its file; None: it has just been trained.

    Raises:
        InputError: it says something else than a detector that was trained here.
    """
    if path is not None:
        checked(TrainedAbout, about, f"{path}: about")
    place = {key: about[key] for key in ("group", "step", "category")}
    return {**place, **about["metrics"]}


def open_readers(jobs):
    """Return {step: StepReader} of jobs of one step each."""
    readers = {}
    for job in jobs:
        row = job.rows(next(iter(job.categories)))["unsafe"][0]
        readers[job.step] = step_reader(job.source, job.step, row, job.settings)
    return readers


def load_readers(jobs):
    """Return the jobs' readers with all their clips read: a thread can do so ahead of training."""
    readers = open_readers(jobs)
    for job in jobs:
        for group in job.categories:
            readers[job.step].load(job.rows(group))
    return readers
