"""How many steps are trained at a time: as many detectors as fit into memory and still pay, spread evenly over processes."""

import psutil
import torch

from lvd.ensemble import input_size, token_count
from lvd.train import input_config, stackable

PAYS = {"cpu": 25, "cuda": 64}  # detectors together: a CPU's caches are full, a GPU's units are busy
SHARE = 0.25  # of the free memory


def chunks_of(jobs, workers=1, launched=1):
    """Jobs, one for each step, in lists that are trained together: neighbours, all about as long, and as many for each of
    `workers` processes. launched: processes that share this machine's memory besides."""
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
    """What a step's clips take while its detectors train: all held in float16, and a copy of one category's."""
    rows = len(job.source.rows("unsafe", job.step)) + len(job.source.rows("normal", job.step))
    height, width = input_size(config)
    return 2 * 2 * rows * config.num_channels * config.num_frames * height * width


def training_bytes(config, settings):
    """About what one detector's optimiser step takes: the inputs and their augmented copies, what the backward pass needs
    of each layer (norms, attention, feed-forward), and the weights with gradients, moments and average."""
    height, width = input_size(config)
    values = config.num_channels * config.num_frames * height * width
    tokens = max(1, round((1 - settings["mask"]) * token_count(config)))
    hidden, inner = config.hidden_size, config.intermediate_size
    layer = 12 * hidden + 3 * inner + 3 * config.num_attention_heads * tokens
    weights = config.num_hidden_layers * (4 * hidden * hidden + 2 * hidden * inner)
    return 4 * (settings["batch_size"] * (4 * values + config.num_hidden_layers * tokens * layer) + 6 * weights)
